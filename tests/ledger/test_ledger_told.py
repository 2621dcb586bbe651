"""What ended the writing of a ledger is told, and not that what came after it failed too."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import HANGS

_WRITE = """
import resource, signal, sys
from pathlib import Path
from backhaul.engine import open_engine
from backhaul.ledger.ledger import ALIAS, Ledger

path, limit = Path(sys.argv[1]), int(sys.argv[2])
engine = open_engine(1 << 30, path.parent / "spill")
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Ledger(path).writing(engine):
    engine.execute(f"CREATE TABLE {ALIAS}.acked AS SELECT range AS k0 FROM range({sys.argv[3]})")
"""


@pytest.mark.parametrize(("limit", "rows", "told"), [
    (12_400, 5000, "Failed to commit: Could not write file"),  # the log cannot grow
    (274_432, 5000, "StateError: s.duckdb cannot be used"),  # the log can, the file cannot
])  # fmt: skip
def test_a_full_disk_is_told(tmp_path: Path, limit: int, rows: int, told: str) -> None:
    words = [sys.executable, "-c", _WRITE, str(tmp_path / "s.duckdb"), str(limit), str(rows)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=HANGS)
    assert ended.returncode == 1
    assert told in ended.stderr
    assert "cannot rollback" not in ended.stderr.splitlines()[-1]
