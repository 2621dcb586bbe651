"""A batch refused as a whole is halved down to the bad record, cheaply, and nobody else pays for it."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import log2

import pytest
from aiohttp import web
from sites import Site, outcome


class Picky:
    """Refuses a whole batch, naming nobody, where a bad record is in it; `forbidden` ones end in a 401."""

    def __init__(self, bad: set[int], forbidden: int | None = None) -> None:
        self.bad, self.forbidden = bad, forbidden
        self.held: set[int] = set()
        self.requests: list[list[int]] = []

    async def __call__(self, request: web.Request) -> web.Response:
        ids = [record["id"] for record in (await request.json())["records"]]
        self.requests.append(ids)
        if self.bad & set(ids):
            return web.json_response({"message": "one of the records is bad"}, status=400)
        if self.forbidden in ids:
            return web.json_response({"message": "no"}, status=401)
        self.held |= set(ids)
        return web.json_response({"results": [{"id": key, "status": "ok"} for key in ids]})

    def cost(self, batch: int, size: int = 100) -> int:
        """Requests that carried records of one batch."""
        return sum(ids[0] // size == batch for ids in self.requests)


@pytest.fixture
def pages(site: Site, answering: Callable[..., list[str]]) -> Callable[..., Picky]:
    """A project with `count` batches of 100 rows whose destination is picky about `bad` ones."""

    def start(count: int, bad: set[int], forbidden: int | None = None) -> Picky:
        picky = Picky(bad, forbidden)
        site.sync = {"freshness": {"sample": 0}, "mode": "upsert"}
        answering(picky)
        site.fill(count * 100)
        return picky

    return start


def test_one_bad_record_at_any_place_costs_at_most_15_requests(
    site: Site, pages: Callable[..., Picky]
) -> None:
    bad = {batch * 100 + batch for batch in range(100)}
    picky = pages(100, bad)
    report = site.run().report
    assert outcome(report) == {"delivered": 9900, "rejected": 100}
    assert picky.held == set(range(10_000)) - bad
    assert max(picky.cost(batch) for batch in range(100)) <= 16


@pytest.mark.parametrize("count", [1, 2, 3])
def test_bad_records_cost_two_logarithms_each(site: Site, pages: Callable[..., Picky], count: int) -> None:
    rng = random.Random(count)
    bad = {batch * 100 + place for batch in range(60) for place in rng.sample(range(100), count)}
    picky = pages(60, bad)
    report = site.run().report
    assert report.rejected == len(bad)
    assert picky.held == set(range(6000)) - bad
    most = 2 * count * log2(100) + count + 1
    assert max(picky.cost(batch) for batch in range(60)) <= most
    assert {letter["key"] for letter in site.letters()} == bad


def test_neighbours_that_are_all_bad_are_data_when_the_rest_is_taken(
    site: Site, pages: Callable[..., Picky]
) -> None:
    picky = pages(1, set(range(90, 100)))
    report = site.run().report
    assert report.status == "partial", report.error
    assert report.rejected == 10
    assert picky.held == set(range(90))


def test_what_was_taken_before_the_run_was_stopped_stays_delivered(
    site: Site, pages: Callable[..., Picky]
) -> None:
    picky = pages(1, {60}, forbidden=99)
    report = site.run().report
    assert report.status == "failed"
    assert report.delivered == len(picky.held) > 0
    first = set(picky.held)
    picky.requests.clear()
    picky.forbidden = None
    site.run()
    assert picky.held == set(range(100)) - {60}
    assert not first & {key for ids in picky.requests for key in ids}
