"""A process that dies while it makes or writes a ledger leaves one that the next run can go on with."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from tests.waiting import HANGS

from backhaul.engine import number, open_engine
from backhaul.ledger.ledger import ALIAS, Ledger

_WRITE = """
import resource, signal, sys
from pathlib import Path
from backhaul.engine import open_engine
from backhaul.ledger.ledger import ALIAS, Ledger

path, limit, rows = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
engine = open_engine(1 << 30, path.parent / "spill")
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
signal.signal(signal.SIGXFSZ, getattr(signal, sys.argv[4]))
with Ledger(path).writing(engine):
    engine.execute(f"CREATE TABLE {ALIAS}.acked AS SELECT range AS k0 FROM range({rows})")
"""
"""Writes a ledger of so many rows in a process whose files may have no more than so many bytes. What is over it kills the
process (SIG_DFL), or is an error as on a full disk (SIG_IGN)."""

ROWS = 200_000


def write(path: Path, limit: int, over: str) -> int:
    words = [sys.executable, "-c", _WRITE, str(path), str(limit), str(ROWS), over]
    return subprocess.run(words, capture_output=True, timeout=HANGS).returncode


def count(engine: duckdb.DuckDBPyConnection) -> int:
    tables = f"SELECT count(*) FROM duckdb_tables() WHERE database_name = '{ALIAS}' AND table_name = 'acked'"
    return number(engine, f"SELECT count(*) FROM {ALIAS}.acked") if number(engine, tables) else 0


@pytest.mark.parametrize("over", ["SIG_DFL", "SIG_IGN"])
@pytest.mark.parametrize("limit", [0, 100, 4096, 8192, 12_288, 20_000, 274_432, 500_000, 1 << 30])
def test_a_ledger_that_was_cut_short_is_written_by_the_next_run(
    tmp_path: Path, limit: int, over: str
) -> None:
    path = tmp_path / "s.duckdb"
    ended = write(path, limit, over)
    assert (ended == 0) == (limit == 1 << 30)
    assert over == "SIG_IGN" or ended in (0, -signal.SIGXFSZ)
    engine = open_engine(1 << 30, tmp_path / "spill")
    ledger = Ledger(path)
    with ledger.reading(engine) as view:
        assert view is None or count(engine) in (0, ROWS)
    with ledger.writing(engine):
        assert count(engine) in (0, ROWS)
        engine.execute(f"CREATE OR REPLACE TABLE {ALIAS}.acked AS SELECT 1 AS k0")
    with ledger.reading(engine):
        assert count(engine) == 1
    engine.close()
    assert {item.name for item in tmp_path.iterdir()} <= {"s.duckdb", "spill"}
