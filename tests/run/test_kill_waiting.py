"""What is known after kill -9 of a run that waits: only what may have left is unknown."""

from __future__ import annotations

import pytest
from sites import Site
from test_unknown import inserting, statuses
from tests.waiting import HANGS, until


def killed_while_waiting(site: Site, *, silent: bool) -> set[str]:
    """Two hundred creates in forty requests of which the limit lets two leave; gives the keys that left."""
    inserting(site)
    site.api |= {"timeout": "10m", "concurrency": 4, "rate_limits": ["2/30m"]}
    site.write()
    site.fill(200)
    if silent:
        site.sink.faults.silence = 2 * HANGS
    run = site.command("run", "users")
    until(lambda: len(site.sink.seen) >= 2, run)
    if not silent:  # their outcomes are stored
        until(lambda: site.rows("SELECT count(*) FROM outcomes") == [(2,)], run)
    run.kill()
    run.wait()
    site.sink.faults.silence = 0.0
    return set(site.sent())


@pytest.mark.parametrize("silent", [True, False], ids=["unanswered", "answered"])
def test_i5_what_waited_for_the_rate_limit_is_pending_after_a_kill(site: Site, silent: bool) -> None:
    left = killed_while_waiting(site, silent=silent)
    assert len(left) == 10
    with site.project as project:
        project.plan("users")  # settles what the run left
        unknown = {str(record["key"]) for record in project.records("users", "unknown")}
    assert unknown == (left if silent else set())
    site.api |= {"rate_limits": ["1000/1s"], "timeout": "5s"}
    site.write()
    assert site.run().report.delivered == 190
    assert set(site.sink.creates.values()) == {1}
    assert statuses(site) == ({"acknowledged": 190, "unknown": 10} if silent else {"acknowledged": 200})
