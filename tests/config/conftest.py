from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from config_project import SYNC, Files


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "project")


@pytest.fixture
def sync(files: Files) -> Callable[..., Files]:
    """Writes the sync of the project with some of its text replaced."""

    def change(*pairs: tuple[str, str], add: str = "") -> Files:
        text = SYNC
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new)
        return files.write("syncs/contacts.yml", text + add)

    return change
