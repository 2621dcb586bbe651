"""Fixtures: a project to spoil."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_project import BadProject

from backhaul.testing.serving import serving
from backhaul.testing.sink import Sink


@pytest.fixture
def bad(tmp_path: Path) -> Iterator[BadProject]:
    """The project with three rows; nothing is wrong with it yet."""
    sink = Sink()
    with serving(sink.app()) as url:
        made = BadProject(tmp_path, url, sink).write()
        yield made.sql(
            "create table t as select i as id, 'n' || i as name, i * 1.5::double as v from range(3) x(i)"
        )
