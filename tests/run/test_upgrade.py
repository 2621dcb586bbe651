"""A state that an earlier backhaul left after a bad day (states/README.md), taken on by this one."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest
from sites import Site

from backhaul.testing.sink import Faults

STATES = sorted((Path(__file__).parent / "states").glob("*.tar.gz"))


@pytest.fixture(params=STATES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def earlier(site: Site, request: pytest.FixtureRequest) -> Site:
    """The project with that state, its warehouse, and the destination as it was then: record 7 is refused."""
    with tarfile.open(request.param) as tar:
        tar.extractall(site.root, filter="data")
    site.batch_size = 2
    site.write()
    site.sink.records.update(json.loads((site.root / "sink.json").read_text()))
    site.sink.faults = Faults(refuse_key="7")
    return site


def test_i37_an_upgrade_keeps_what_was_known(earlier: Site) -> None:
    assert [letter["key"] for letter in earlier.letters()] == [7]
    report = earlier.run().report
    wanted = earlier.model()
    refused = wanted.pop("7")
    assert earlier.sink.records == wanted
    # what was acknowledged is not sent again: only what was in doubt, of the killed run what it had not heard of, and what was
    # refused with a hash of another function
    assert set(earlier.sent()) <= {"3", "7", *(str(key) for key in range(10, 20))}
    assert "3" in earlier.sent()
    assert (report.status, report.rejected) == ("partial", 1), report.error
    assert earlier.run().report.requests == 0
    earlier.sink.faults = Faults()
    with earlier.project as project:
        project.mark_dead_letters([letter["id"] for letter in project.dead_letters("users")], "replay")
    earlier.run()
    assert earlier.sink.records == {**wanted, "7": refused}
    assert earlier.letters() == []


def test_an_upgrade_keeps_the_runs_and_the_state_is_whole(earlier: Site) -> None:
    with earlier.project as project:
        assert [run["status"] for run in project.runs()][-2:] == ["partial", "partial"]
        assert all(one.ok for one in project.check_state())


def test_i37_an_earlier_backhaul_leaves_a_newer_state_as_it_is(earlier: Site) -> None:
    earlier.run()
    with closing(sqlite3.connect(earlier.state)) as state:
        version = state.execute("PRAGMA user_version").fetchone()[0]
        state.execute(f"PRAGMA user_version = {version + 1}")
    before = earlier.state.read_bytes()
    process = earlier.command("run")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "newer backhaul" in err
    assert "Traceback" not in err
    assert earlier.state.read_bytes() == before
