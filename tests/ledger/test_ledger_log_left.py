"""A process that dies between the commit of a fold and the checkpoint leaves a log beside the ledger: nothing may part the two."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import HANGS

from backhaul.engine import number, open_engine
from backhaul.ledger.ledger import ALIAS, Ledger
from backhaul.ledger.rewrite import rewrite

_DIE = """
import os, signal, sys
from pathlib import Path
from backhaul.engine import attached, open_engine
from backhaul.ledger.ledger import ALIAS, Ledger

path = Path(sys.argv[1])
engine = open_engine(1 << 30, path.parent / "spill")
with Ledger(path).writing(engine):
    engine.execute(f"CREATE TABLE {ALIAS}.acked AS SELECT 1 AS k0")
with attached(engine, path, ALIAS, writable=True):
    engine.execute(f"INSERT INTO {ALIAS}.acked VALUES (2)")
    os.kill(os.getpid(), signal.SIGKILL)
"""
"""Commits a row to a ledger and dies before the engine takes its log into the file."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "s.duckdb"
    ended = subprocess.run([sys.executable, "-c", _DIE, str(path)], timeout=HANGS).returncode
    assert ended == -signal.SIGKILL
    assert log(path).exists()
    return path


def log(path: Path) -> Path:
    return path.with_name(path.name + ".wal")


def test_a_ledger_with_a_log_is_written_anew_with_what_is_in_the_log(path: Path) -> None:
    engine = open_engine(1 << 30, path.parent / "spill")
    rewrite(engine, path)
    assert not log(path).exists()
    with Ledger(path).reading(engine):
        assert number(engine, f"SELECT count(*) FROM {ALIAS}.acked") == 2
    engine.close()


def test_a_log_whose_ledger_is_gone_is_not_taken_for_the_new_ones(path: Path) -> None:
    path.unlink()
    engine = open_engine(1 << 30, path.parent / "spill")
    with Ledger(path).writing(engine) as view:
        assert view.bare
    with Ledger(path).reading(engine) as view:
        assert view is not None
        assert view.empty
    engine.close()
