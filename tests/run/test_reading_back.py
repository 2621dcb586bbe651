"""I22, I40: what a destination does behind our back is found by reading samples back, as soon as chance allows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import pytest
from sites import Site

ROWS, TRIALS = 600, 30
SHARE = 0.1
SAMPLES = math.ceil(math.log(0.05) / math.log(1 - SHARE))
LEAST = round(0.95 * TRIALS - 3 * math.sqrt(TRIALS * 0.95 * 0.05))
"""Three deviations below what 95% of the trials are."""


@pytest.mark.parametrize("fault", ["lie", "drop_field", "zombie"])
def test_damage_is_found_in_as_few_samples_as_chance_allows(
    site: Site, faulty: Callable[..., None], fault: str
) -> None:
    site.sync = {"freshness": {"sample": 0}}
    site.write()
    site.fill(ROWS)
    site.run()
    site.sql("update t set v = v + 1, name = 'x' || name")
    faulty(**{fault: SHARE})
    assert site.run().report.status == "succeeded"
    time.sleep(0.1)
    model = site.model()
    damaged = {key for key in model if site.sink.records.get(key) != model[key]}
    assert 0.06 * ROWS < len(damaged) < 0.14 * ROWS
    found = 0
    with site.project as project, project.workspace.lease(project.sync("users")):
        for seed in range(TRIALS):
            verified = project.verify("users", count=SAMPLES, seed=seed)
            assert {str(mismatch.key) for mismatch in verified.mismatches} <= damaged
            found += bool(verified.mismatches)
    assert found >= LEAST, f"{found} of {TRIALS} samples of {SAMPLES} found the damage"


@pytest.mark.parametrize("fault", ["lie", "drop_field", "zombie"])
def test_what_is_found_is_said_and_sent_again(site: Site, faulty: Callable[..., None], fault: str) -> None:
    """Each run reads its own sample: the runs converge once the destination behaves."""
    site.fill(100)
    site.run()
    site.sql("update t set v = v + 1")
    faulty(**{fault: 0.5})
    site.run()
    time.sleep(0.1)
    with site.project as project:
        wrong = len(project.verify("users", count=None, seed=1).mismatches)
    faulty()
    assert wrong > 20
    report = site.run().report
    assert report.delivered >= wrong
    assert site.sink.records == site.model()


def read_back(site: Site, runs: int) -> list[int]:
    """The keys that so many runs read back, each of which delivers everything."""
    for _ in range(runs):
        site.sql("update t set v = v + 1").run()
    return [int(key) for keys in site.sink.read for key in keys]


def test_i40_a_sample_as_large_as_what_was_delivered_is_all_of_it(site: Site) -> None:
    site.sync = {"freshness": {"sample": 52}}
    site.batch_size = 5
    site.write()
    site.fill(52)
    site.sink.faults.refuse_key = "7"
    assert sorted(read_back(site, 1)) == [key for key in range(52) if key != 7]


def test_i40_every_record_is_as_likely_to_be_read_back(site: Site) -> None:
    site.batch_size = 7
    site.write()
    site.fill(100)
    keys = read_back(site, 30)
    assert len(keys) == 300
    later = sum(key >= 50 for key in keys)
    assert abs(later - 150) < 5 * math.sqrt(300 / 4), later
    assert len(set(keys)) > 80  # 96 where each run draws anew
