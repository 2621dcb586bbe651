"""`state compact`: gives back the room that deleted rows and old plans hold."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from backhaul.care.backup import quiet
from backhaul.ledger.rewrite import rewrite
from backhaul.workspace import Workspace


def compact(workspace: Workspace) -> tuple[int, int]:
    """Drops what `history` does not want any more, and writes state and ledgers anew, each beside the old one until it is
    whole. Gives the bytes of the folder before and after.

    Raises:
        RunError: a sync is being run.
        StateError: the disk is full; nothing was lost.
    """
    folder = workspace.folder
    before = _size(folder)
    with quiet(folder), workspace.engine() as engine:
        workspace.tidy()
        for path in sorted((folder / "ledgers").glob("*.duckdb")):
            rewrite(engine, path)
        workspace.state.scrub()
    return before, _size(folder)


def _size(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size if path.is_file() else 0
    return total
