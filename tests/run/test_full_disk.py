"""A disk without room: what cannot be written down is not sent, and the next run goes on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sites import Site
from tests.waiting import HANGS

from backhaul.errors import StateError


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB on which the state lies."""
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no small file system can be mounted: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill_up(folder: Path, leave: int) -> Path:
    """Takes all room but `leave` bytes."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    with ballast.open("wb") as file:
        for _ in range(max(free - leave, 0) // 4096):
            file.write(b"\0" * 4096)
    return ballast


def put_state_on(site: Site, folder: Path) -> None:
    text = (site.root / "backhaul.yml").read_text()
    (site.root / "backhaul.yml").write_text(
        text.replace('"project": "t"', f'"project": "t", "state": "{folder / "state"}"')
    )


@pytest.mark.parametrize("leave", [0, 4096, 16_384, 65_536, 262_144, 1 << 20])
def test_nothing_is_sent_that_is_not_written_down(
    site: Site, faulty: Callable[..., None], small: Path, leave: int
) -> None:
    site.batch_size = 10
    site.write()
    put_state_on(site, small)
    site.fill(3000)
    site.run(limit=100)
    site.sql("update t set v = v + 1")
    since = len(site.sink.seen)
    ballast = fill_up(small, leave)
    process = site.command("run")
    _, said = process.communicate(timeout=HANGS)
    sent = site.sent(since)
    assert leave or not sent
    assert "Traceback" not in said
    assert process.returncode == 1, said
    ballast.unlink()
    report = site.run().report
    assert report.status == "succeeded", report.error
    assert site.sink.records == site.model()
    twice = [key for key, count in (site.sent(since) - sent).items() if key in sent and count]
    assert len(twice) <= 48 * 10


def test_a_state_that_cannot_be_made_is_said(site: Site, small: Path) -> None:
    put_state_on(site, small)
    site.fill(10)
    fill_up(small, 0)
    with pytest.raises(StateError):
        site.run()
    assert site.sink.seen == []


def test_care_without_room_loses_nothing(site: Site, small: Path) -> None:
    put_state_on(site, small)
    site.fill(5000).run()
    file = site.root / "backup.tar"
    with site.project as project:
        project.back_up_state(file)
    fill_up(small, 65_536)
    for act in (
        lambda project: project.back_up_state(small / "other.tar"),
        lambda project: project.restore_state(file),
        lambda project: project.compact_state(),
    ):
        with site.project as project, pytest.raises(StateError):
            act(project)
    assert sorted(path.name for path in small.iterdir()) == ["ballast", "state"]
    (small / "ballast").unlink()
    with site.project as project:
        assert all(one.ok for one in project.check_state())
    assert site.run().report.requests == 0
