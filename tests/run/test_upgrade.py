"""A state that an earlier backhaul left after a bad day (states/README.md), in the hands of this one."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from sites import Site
from tests.waiting import HANGS

STATES = sorted((Path(__file__).parent / "states").glob("*.tar.gz"))


@pytest.fixture(params=STATES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def earlier(site: Site, request: pytest.FixtureRequest) -> Site:
    """The project with that state, its warehouse, and the destination as it was then."""
    with tarfile.open(request.param) as tar:
        tar.extractall(site.root, filter="data")
    site.batch_size = 2
    site.write()
    site.sink.records.update(json.loads((site.root / "sink.json").read_text()))
    return site


def test_i37_a_state_that_names_no_account_is_refused_and_baseline_is_the_way_over(earlier: Site) -> None:
    """Its ledger does not say whose records it is about; nothing is sent on its word."""
    before = None
    for words in (("run",), ("plan",), ("status",)):
        process = earlier.command(*words)
        out, err = process.communicate(timeout=HANGS)
        assert (process.returncode, out) == (1, "")
        assert "before its first release" in err
        assert "backhaul baseline" in err
        assert "Traceback" not in err
        # the first to open it finds the log of the killed run, which SQLite takes into the file
        before = before or earlier.state.read_bytes()
    assert earlier.sent() == {}
    assert earlier.state.read_bytes() == before
    earlier.state.parent.rename(earlier.root / "old-state")
    with earlier.project as project:
        taken = project.baseline("users", read=True)
    assert (taken.records > 0, taken.differ > 0) == (True, True)
    report = earlier.run().report
    assert (report.status, report.delivered) == ("succeeded", taken.differ)
    assert earlier.sink.records == earlier.model()


def test_i37_an_earlier_backhaul_leaves_a_newer_state_as_it_is(site: Site) -> None:
    site.fill(3).run()
    with closing(sqlite3.connect(site.state)) as state:
        version = state.execute("PRAGMA user_version").fetchone()[0]
        state.execute(f"PRAGMA user_version = {version + 1}")
    before = site.state.read_bytes()
    process = site.command("run")
    out, err = process.communicate(timeout=HANGS)
    assert (process.returncode, out) == (1, "")
    assert "newer backhaul" in err
    assert "Traceback" not in err
    assert site.state.read_bytes() == before
