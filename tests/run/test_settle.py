"""`backhaul settle`: a person says what became of a create that nobody can look up; over both states."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sites import Site
from test_unknown import FOUND, inserting, silent, statuses

from backhaul.errors import RunError, UsageError


@pytest.fixture(params=["folder", "postgres"])
def lost(site: Site, request: pytest.FixtureRequest) -> Site:
    """Ten creates that were applied and never answered."""
    if request.param == "postgres":
        site.settings = {"state": request.getfixturevalue("postgres_db")}
    inserting(site)
    silent(site)
    assert site.run().report.unknown == 10
    site.sink.faults.silence = 0.0
    return site


def settle(site: Site, key: str, **how: Any) -> dict[str, Any]:
    with site.project as project:
        return project.settle("users", key, **how)


def test_i16_what_a_person_found_is_delivered_and_what_is_missing_is_created_once(lost: Site) -> None:
    del lost.sink.records["4"]
    assert settle(lost, "3", delivered=True, remote_id="r3") == {
        "sync": "users", "key": 3, "was": "unknown", "delivered": True,
    }  # fmt: skip
    settle(lost, "4", delivered=False)
    assert statuses(lost) == {"unknown": 8, "acknowledged": 1, "pending": 1}
    with lost.project as project:
        (row,) = project.records("users", "acknowledged")
    assert (row["key"], row["remote_id"]) == (3, "r3")
    seen = len(lost.sink.seen)
    assert lost.run().report.delivered == 1
    assert lost.sent(seen) == {"4": 1}
    assert statuses(lost) == {"unknown": 8, "acknowledged": 2}
    assert lost.run().report.requests == 0


def test_only_what_waits_for_a_person_is_settled(lost: Site) -> None:
    settle(lost, "3", delivered=True)
    with pytest.raises(UsageError, match="neither unknown nor quarantined"):
        settle(lost, "3", delivered=False)
    with pytest.raises(UsageError, match="waits for an answer"):
        settle(lost, "99", delivered=True)
    with lost.project as project, project.workspace.lease(project.sync("users")), pytest.raises(RunError):
        settle(lost, "4", delivered=True)


def test_i14_a_quarantined_record_goes_on_when_a_person_has_chosen(site: Site) -> None:
    inserting(site, lookup=FOUND)
    silent(site)
    site.run()
    site.sink.faults.silence = 0.0
    site.sink.creates["4"] = 3
    site.run()
    site.sink.creates["4"] = 1
    assert settle(site, "4", delivered=True, remote_id="4-0")["was"] == "quarantined"
    assert statuses(site) == {"acknowledged": 10}
    assert site.run().report.requests == 0


def test_what_the_next_run_settles_by_itself_is_left_to_it(site: Site) -> None:
    site.api = {"timeout": "0.4s"}
    site.write()
    site.fill(3)
    silent(site)
    site.run()
    site.sink.faults.silence = 0.0
    if statuses(site).get("unknown"):
        with pytest.raises(UsageError, match="by itself"):
            settle(site, "1", delivered=True)
    site.run()
    assert statuses(site) == {"acknowledged": 3}


def test_the_command(lost: Site) -> None:
    wrong = lost.call("settle", "users", "3")
    complaint = wrong.stderr
    assert (wrong.exit_code, "--not-delivered" in complaint) == (2, True)
    said = lost.call("settle", "users", "3", "--delivered", "--json").stdout
    assert json.loads(said) == {"sync": "users", "key": 3, "was": "unknown", "delivered": True}
    told = lost.call("settle", "users", "4", "--not-delivered").stdout
    assert "the next run creates it" in told
    answer = lost.call("why", "users", "5", "--offline").stdout
    assert "backhaul settle users" in answer


def test_i15_what_the_next_run_sends_again_under_its_key_is_not_for_a_person(site: Site) -> None:
    inserting(site, keyed="1d")
    silent(site)
    assert site.run().report.unknown
    site.sink.faults.silence = 0.0
    with pytest.raises(UsageError, match="again under its idempotency key"):
        settle(site, "3", delivered=False)
    assert site.run().report.status == "succeeded"
    assert set(site.sink.creates.values()) == {1}
