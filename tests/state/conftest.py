"""What a state promises is held against every kind of state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backhaul.state.opening import open_state
from backhaul.state.protocol import State


@pytest.fixture(params=["sqlite", "postgres", "dynamodb"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a fresh state of each kind is to be."""
    if request.param == "sqlite":
        return str(tmp_path / "state")
    return str(
        request.getfixturevalue({"postgres": "postgres_db", "dynamodb": "dynamodb_state"}[request.param])
    )


@pytest.fixture
def state(address: str) -> Iterator[State]:
    opened = open_state(address)
    yield opened
    opened.close()
