"""The destination that the guide writes, and its test, taken from the page as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.testing.remote import installed

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "write-a-destination.md"
_TEXT = GUIDE.read_text(encoding="utf-8")
CLASS, *_, TEST = re.findall(r"^```python\n(.*?)^```", _TEXT, re.MULTILINE | re.DOTALL)
(ENTRY,) = re.findall(r"^```toml\n(.*?)^```", _TEXT, re.MULTILINE | re.DOTALL)
_made: dict[str, type] = {}
exec(compile(TEST, str(GUIDE), "exec"), _made)  # noqa: S102 - our own page, which says that it is a test


class TestGuide(_made["TestAcme"]):  # type: ignore[misc]
    @pytest.fixture(autouse=True)
    def _package(self) -> Iterator[None]:
        name, target = re.findall(r"(\w+) = \"(.+)\"", ENTRY)[0]
        with installed(name, target, CLASS):
            yield


def test_it_is_one_short_file() -> None:
    assert CLASS.count("\n") < 120
