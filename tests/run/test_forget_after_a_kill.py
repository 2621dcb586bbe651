"""`forget` also reaches what killed processes left: plan files that no one recorded, and what they spilled."""

from __future__ import annotations

import os
import signal

import pytest
from sites import Site
from tests.waiting import HANGS

from backhaul.errors import StateError

NAME = "Zebedee-Quux"


@pytest.fixture
def left(site: Site) -> Site:
    """What a run leaves that is killed before it records its plan."""
    site.fill(20).sql(f"update t set name = '{NAME}' where id = 3").run()
    site.sql("update t set v = v + 1")
    killed = site.command("run", env=os.environ | {"BACKHAUL_FAILPOINT": "planned"})
    killed.communicate(timeout=HANGS)
    assert killed.returncode == -signal.SIGKILL
    assert {path.split("/")[0][:5] for path in holding(site)} >= {"plans", "spill"}
    return site


def holding(site: Site) -> list[str]:
    """The files of the state that hold the record's name."""
    folder = site.root / ".backhaul"
    files = (path for path in folder.rglob("*") if path.is_file())
    return [str(path.relative_to(folder)) for path in files if NAME.encode() in path.read_bytes()]


def test_i39_nothing_of_a_killed_run_outlives_the_record(left: Site) -> None:
    with left.project as project:
        project.forget("users", "3")
    assert holding(left) == []
    assert left.run().report.status == "succeeded"
    assert "3" not in left.sink.records


def test_i39_a_plan_that_another_process_may_record_is_not_taken_for_a_dead_ones(left: Site) -> None:
    with left.project as project, left.project as other:
        with other.workspace.engine(), pytest.raises(StateError, match="another process is planning"):
            project.forget("users", "3")
        assert any((left.root / ".backhaul" / "plans").glob("*"))
        project.forget("users", "3")
    assert holding(left) == []
