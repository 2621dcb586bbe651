"""The crash table of SEMANTICS: killed at each row, what is found, what the next run sends again and what not.

Each case is a real process that kills itself at a named point (backhaul.failpoints), a real HTTP sink, and a second run.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from killing import forks, in_flight, run_users
from sites import Site
from tests.waiting import HANGS

from backhaul.failpoints import NAMES, arm

ROWS, BATCH = 60, 3
"""More batches than may be on their way at once, so that some leave after others were settled."""
RETRIED = {"upsert", "delete"}
"""Operations whose repetition does no harm."""


def run_to_death(root: Path, point: str) -> None:
    arm(point)
    run_users(root)


def killed_at(site: Site, point: str) -> None:
    process = forks().Process(target=run_to_death, args=(site.root, point))
    process.start()
    process.join(HANGS)
    assert process.exitcode == -signal.SIGKILL, (point, process.exitcode)


def prepared(site: Site, op: str) -> set[str]:
    """A project whose next run does `op` to every row, in small batches, one request at a time; the keys."""
    site.batch_size = BATCH
    site.api = {"concurrency": 1}
    site.sync = {
        "freshness": {"sample": 0},
        "mode": "insert" if op == "insert" else "mirror",
        "guards": {"max_deletes": "off", "min_rows": "off", "max_drop": "off"},
    }
    site.write()
    site.fill(ROWS)
    if op == "delete":
        site.run()
        site.sql("delete from t")
    return {str(number) for number in range(ROWS)}


def found(site: Site) -> dict[str, int]:
    """What the journal holds: plans on their way, their intents and outcomes."""
    of_plans = "JOIN plans ON plans.id = plan"
    tables = {"plans": "plans", "intents": f"intents {of_plans}", "outcomes": f"outcomes {of_plans}"}
    return {name: site.rows(f"SELECT count(*) FROM {table}")[0][0] for name, table in tables.items()}


FOUND = {
    "planned": {"plans": 0, "intents": 0, "outcomes": 0},
    "folding": {"plans": 1, "intents": 0, "outcomes": ROWS // BATCH},
    "folded": {"plans": 1, "intents": 0, "outcomes": ROWS // BATCH},
}
"""What is in the journal where it is the same whatever the timing; batches in flight share their commits."""


@pytest.mark.parametrize("point", [name for name in NAMES if name != "rejected"])
@pytest.mark.parametrize("op", ["upsert", "delete", "insert"])
def test_killed_at_every_row_of_the_table(site: Site, op: str, point: str) -> None:
    keys = prepared(site, op)
    since = len(site.sink.seen)
    killed_at(site, point)
    assert found(site) == FOUND.get(point, found(site))
    doubtful, before = in_flight(site), set(site.sent(since))
    if point in ("intended", "sent", "answered"):
        assert doubtful, point
    if point in ("sent", "answered"):
        assert before & doubtful
    elif point in ("planned", "intended"):
        assert not before
    report = site.run().report
    sent = site.sent(since)
    again = {key for key, count in sent.items() if count > 1}
    if op in RETRIED:
        assert set(sent) == keys
        assert again == before & doubtful  # in flight, and nothing else
        assert set(site.sink.records) == (set() if op == "delete" else keys)
        assert report.status == "succeeded", report.error
    else:
        assert not again  # a create that may have been applied is never sent again
        assert set(sent) == keys - (doubtful - before)
        assert {record["key"] for record in unknown(site)} == {int(key) for key in doubtful}
    assert site.run().report.requests == 0


def test_killed_after_a_refusal_was_committed(site: Site) -> None:
    prepared(site, "upsert")
    site.sink.faults.refuse_key = "3"
    killed_at(site, "rejected")
    assert [letter["key"] for letter in site.letters()] == [3]
    since = len(site.sink.seen)
    site.run()
    assert "3" not in site.sent(since)
    site.sink.faults.refuse_key = ""
    site.sql("update t set v = 77 where id = 3")
    assert site.run().report.delivered == 1
    assert site.letters() == []
    assert site.sink.records == site.model()


def unknown(site: Site) -> list[dict[str, Any]]:
    with site.project as project:
        return list(project.records("users", status="unknown"))
