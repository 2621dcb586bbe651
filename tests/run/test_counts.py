"""I3: what the run report, `status`, `records` and `dead-letters` count is the same, and leaves no key out."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from sites import Site

from backhaul.testing.sink import Faults

ROWS = 120


@pytest.mark.parametrize("mode", ["mirror", "insert"])
@pytest.mark.parametrize("seed", range(4))
def test_i3_every_key_is_counted_once_and_everywhere_alike(site: Site, mode: str, seed: int) -> None:
    rng = random.Random(f"{seed}{mode}")
    site.batch_size = 10
    site.sync = {"mode": mode, "freshness": {"sample": 0}}
    site.write()
    site.fill(ROWS)
    site.sink.rng = random.Random(seed)
    site.sink.faults = Faults(
        refuse=rng.choice([0, 0.05]), omit=rng.choice([0, 0.1]), reset_after=rng.choice([0, 0.2]),
        reset_before=rng.choice([0, 0.2]), status_500=rng.choice([0, 0.1]),
    )  # fmt: skip
    report = site.run().report
    counted = agreed(site)
    assert report.delivered == counted["acknowledged"]
    assert report.rejected == counted["rejected"] == len(site.letters())
    assert report.unknown == counted["unknown"]
    waiting = report.deferred + report.pending
    assert counted["pending"] == waiting
    assert counted.total() == ROWS == sum(report.changes.values())
    site.sink.faults = Faults(refuse=site.sink.faults.refuse)
    site.run()
    assert agreed(site).total() == ROWS


def test_i3_a_held_plan_is_counted_as_it_is_listed(site: Site) -> None:
    site.fill(ROWS).run()
    site.sync = {"guards": {"max_deletes": 1}}
    site.write()
    site.sql(f"delete from t where id >= {ROWS - 30}")
    assert site.run().report.status == "held"
    assert agreed(site) == {"acknowledged": ROWS - 30, "held": 30}


def agreed(site: Site) -> Counter[str]:
    with site.project as project:
        listed = Counter(record["status"] for record in project.records("users"))
        (health,) = project.status(["users"])
        assert +Counter(health["records"]) == listed
        for status in listed:
            assert len(list(project.records("users", status=status))) == listed[status]
    return listed
