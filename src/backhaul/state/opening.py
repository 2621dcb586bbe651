"""Opens a state by its address."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from backhaul.state.protocol import State
from backhaul.surroundings import REAL


def open_state(
    address: str | Path,
    mask: Callable[[str], str] = str,
    now: Callable[[], str] = REAL.now,
    *,
    length: float = 30.0,
) -> State:
    """The state in a folder, at postgresql://… or at dynamodb://…; `length` is a lease's, in seconds, where the state
    is a database.

    Raises:
        StateError: it cannot be opened; says why.
    """
    if str(address).startswith("dynamodb://"):
        from backhaul.state.dynamo.state import DynamoState

        return DynamoState(str(address), mask, now, length=length)
    if "://" in str(address):
        from backhaul.state.postgres import PostgresState

        return PostgresState(str(address), mask, now, length=length)
    from backhaul.state.sqlite import SqliteState

    return SqliteState(Path(address), mask, now)
