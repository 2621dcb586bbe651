"""A `state restore` that was killed between its two moves is done again, and knows what the first one knew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from sites import Site

from backhaul.errors import StateError


def aside(site: Site, name: str, at: float) -> Path:
    """Moves the state aside, as a restore does first; one that is killed then goes no further."""
    folder = site.root / f".backhaul-before-{name}"
    folder.mkdir()
    (site.root / ".backhaul").rename(folder / ".backhaul")
    os.utime(folder, (at, at))
    return folder


@pytest.fixture
def cut_short(site: Site) -> Path:
    """A backup, an older state that a restore replaced by it, and the one that another moved aside when it was killed."""
    site.fill(20).run()
    file = site.root / "backup.tar"
    with site.project as project:
        project.back_up_state(file)
        shutil.copytree(site.root / ".backhaul", site.root / "copy")
        project.forget("users", "3")
    aside(site, "aaaa", 1.5e9)
    (site.root / "copy").rename(site.root / ".backhaul")
    aside(site, "zzzz", 1.2e9)
    return file


def test_i39_who_was_forgotten_stays_so(site: Site, cut_short: Path) -> None:
    with site.project as project:
        assert project.restore_state(cut_short).carried
        assert len(project.forgotten("users")) == 1
    report = site.run().report
    assert (report.status, report.suppressed) == ("succeeded", 1)
    assert "3" not in site.sink.records


def test_the_state_that_was_moved_aside_last_is_named(site: Site, cut_short: Path) -> None:
    with pytest.raises(StateError, match="before-aaaa holds one"):
        site.run()


def test_i39_who_was_forgotten_is_not_lost_because_the_state_cannot_be_read_now(site: Site) -> None:
    site.fill(20).run()
    file = site.root / "backup.tar"
    with site.project as project:
        project.back_up_state(file)
        project.forget("users", "3")
    state, elsewhere = site.root / ".backhaul" / "state.db", site.root / "elsewhere.db"
    state.rename(elsewhere)
    state.mkdir()
    with site.project as project, pytest.raises(StateError):
        project.restore_state(file)
    state.rmdir()
    elsewhere.rename(state)
    with site.project as project:
        assert project.restore_state(file).carried
    assert site.run().report.status == "succeeded"
    assert "3" not in site.sink.records


@pytest.mark.parametrize("begun", [".restoring-x", ".backing-up-x"])
def test_what_a_killed_one_left_is_removed_by_the_next(site: Site, begun: str) -> None:
    """It holds whole copies of the state."""
    site.fill(3).run()
    shutil.copytree(site.root / ".backhaul", site.root / begun / ".backhaul")
    with site.project as project:
        project.back_up_state(site.root / "backup.tar")
        project.restore_state(site.root / "backup.tar")
    assert not (site.root / begun).exists()
