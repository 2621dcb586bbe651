"""Writes a DuckDB file anew, so that no free block of it keeps old bytes."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import duckdb

from backhaul.engine import attached, in_order
from backhaul.ledger.ledger import ALIAS, log_of
from backhaul.ledger.plan import make_durable

_FRESH = "_backhaul_fresh"


def rewrite(engine: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Replaces a ledger by a copy of what is in it; the old one stays until the new one is whole.

    Raises:
        StateError: it is damaged, or there is no room for a copy.
    """
    mark = f".{path.stem}.fresh-"
    for left in path.parent.glob(f"{mark}*"):  # by a process that was killed; whoever rewrites holds the sync
        shutil.rmtree(left)
    # a run that was killed left its log; the engine refuses another file with it
    if log_of(path).exists():
        with attached(engine, path, ALIAS, writable=True):
            engine.execute(f"CHECKPOINT {ALIAS}")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=mark) as made:
        fresh = Path(made) / path.name
        with attached(engine, path, ALIAS), attached(engine, fresh, _FRESH, writable=True), in_order(engine):
            engine.execute(f"COPY FROM DATABASE {ALIAS} TO {_FRESH}")
        shutil.copymode(path, fresh)
        fresh.replace(path)
    make_durable(path)
