"""I3: every record of the model has exactly one status, whatever its runs met."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from sites import Site

from backhaul.testing.sink import Faults


def listed(site: Site) -> dict[Any, str]:
    """Each record's status; `status` counts the same."""
    with site.project as project:
        rows = [(row["key"], row["status"]) for row in project.records("users")]
        (health,) = project.status(["users"])
    told = dict(rows)
    assert len(told) == len(rows), "a key came twice"
    assert {name: count for name, count in health["records"].items() if count} == Counter(told.values())
    return told


def keys(site: Site) -> set[Any]:
    return {record["id"] for record in site.model().values()}


def test_i3_what_a_deferred_run_did_not_send_is_pending(site: Site) -> None:
    site.batch_size = 10
    site.api = {"rate_limits": ["6/1d"], "share": "100%"}
    site.sync = {
        "freshness": {"sample": 0},
        "guards": dict.fromkeys(("max_deletes", "max_drop", "min_rows"), "off"),
    }
    site.write()
    report = site.fill(100).run().report
    assert (report.status, report.delivered, report.deferred) == ("deferred", 60, 40)
    assert Counter(listed(site).values()) == {"acknowledged": 60, "pending": 40}
    report = site.fill(100).run().report
    assert (report.status, report.deferred) == ("deferred", 40)
    assert Counter(listed(site).values()) == {"acknowledged": 60, "pending": 40}
    assert site.sql("delete from t").run().report.deferred == 60
    assert Counter(listed(site).values()) == {"pending": 60}


def test_i3_a_limit_leaves_the_rest_pending_until_a_run_finds_nothing_to_do(site: Site) -> None:
    site.fill(5).run()
    site.sql("update t set v = v + 1").run(limit=2)
    assert Counter(listed(site).values()) == {"acknowledged": 2, "pending": 3}
    held = {key: record["score"] for key, record in site.sink.records.items()}
    for key, score in held.items():
        site.sql(f"update t set v = {score} where id = {key}")
    assert site.run().report.requests == 0
    assert Counter(listed(site).values()) == {"acknowledged": 5}


def test_i3_a_discarded_dead_letter_is_still_a_rejected_record(site: Site) -> None:
    site.sink.faults = Faults(refuse_key="1")
    site.fill(3).run()
    with site.project as project:
        project.mark_dead_letters([project.dead_letters("users")[0]["id"]], "discarded")
    assert listed(site) == {0: "acknowledged", 1: "rejected", 2: "acknowledged"}


@pytest.mark.parametrize("seed", range(6))
def test_i3_every_record_of_the_model_has_one_status_in_every_situation(site: Site, seed: int) -> None:
    rng = random.Random(seed)
    mode = ("mirror", "upsert", "insert")[seed % 3]
    site.batch_size = rng.choice((1, 3, 7))
    site.sync = {
        "mode": mode, "nulls": "error", "freshness": {"sample": 0}, "guards": {"max_deletes": "off", "max_drop": "off", "max_creates": 25},
    }  # fmt: skip
    site.write()
    site.fill(20).run()
    seen = Counter[str]()
    for step in range(5):
        site.sink.faults = Faults(
            refuse=rng.choice((0, 0, 0.2)), omit=rng.choice((0, 0, 0.3)), poison=rng.choice(("", "3")),
            reset_after=rng.choice((0, 0, 0.4)) if mode == "insert" else 0,
        )  # fmt: skip
        new = 1000 * (step + 1)
        site.sql(
            f"update t set v = v + 1 where id % 4 = {rng.randrange(4)}",
            f"update t set name = null where id % 7 = {rng.randrange(7)}",
            f"delete from t where id % 5 = {rng.randrange(5)}",
            f"insert into t select {new} + i, 'n' || i, i from range({rng.choice((3, 10, 40))}) x(i)",
        )
        report = site.run(limit=rng.choice((None, None, 0, 4))).report
        told = listed(site)
        known = keys(site)
        assert known <= told.keys(), (report.status, sorted(known - told.keys()))
        assert sum(Counter(told[key] for key in known).values()) == len(known)
        if report.status != "held":
            unsent = [key for key in known if told[key] == "pending"]
            assert len(unsent) <= report.deferred + report.pending, report
        seen.update(told.values())
    assert {"acknowledged", "rejected"} <= seen.keys()
