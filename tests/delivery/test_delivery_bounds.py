"""What delivery costs at most, and what it waits for: halving (I19), late application (I22), storms (I31), repeated deletes."""

from __future__ import annotations

import asyncio
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_delivery import Written, chunks

from backhaul.changes import IllegalTransition, Stage
from backhaul.delivery.budget import Budget
from backhaul.delivery.delivery import Delivery
from backhaul.delivery.tally import Tally
from backhaul.destinations.kit import Batch, Spec
from backhaul.errors import Refused, Unsettled
from backhaul.state.journal import Journal, Reason
from backhaul.state.sqlite import SqliteState
from backhaul.types import BatchLimits, Delivered, Op, Outcomes, RefusalClass, Rejected

BAD = Reason("bad", "no", RefusalClass.RECORD)


async def delivered(destination: Written, rows: int, size: int) -> Delivery:
    """One plan of upserts, delivered with a journal of its own."""
    with tempfile.TemporaryDirectory() as folder:
        state = SqliteState(Path(folder))
        async with Journal(state, "s", "p") as journal:
            delivery = Delivery(destination, journal, Budget("d", ()))
            await delivery.deliver(chunks(rows), BatchLimits(size), rows)
        state.close()
    return delivery


class Answering(Written):
    """Answers for each record: those that are bad are refused."""

    def __init__(self, bad: set[str], code: str) -> None:
        super().__init__(lambda batch: None)
        self.bad, self.code, self.held = bad, code, set[str]()

    async def write(self, batch: Batch) -> Outcomes:
        self.calls += 1
        self.held |= set(batch.keys) - self.bad
        refused = [Rejected(key, self.code, "no") for key in batch.keys if key in self.bad]
        return Outcomes((*refused, *(Delivered(key) for key in batch.keys if key not in self.bad)))


class Wholesale(Answering):
    """Refuses a request with a bad record as a whole, and names nobody."""

    async def write(self, batch: Batch) -> Outcomes:
        self.calls += 1
        if self.bad & set(batch.keys):
            raise Refused("one of them", code=self.code)
        self.held |= set(batch.keys)
        return Outcomes(everything=True)


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(2, 130), seed=st.integers(0, 1 << 30), share=st.floats(0.0, 1.0),
    code=st.sampled_from(["400", "422", "AP001", "XX000", "P0003", "INVALID_EMAIL", "", "403"]),
    kind=st.sampled_from([Answering, Wholesale]),
)  # fmt: skip
def test_i19_k_bad_of_n_cost_at_most_two_logarithms_each(
    size: int, seed: int, share: float, code: str, kind: type[Answering]
) -> None:
    """Whatever the code, and whether the answer is for each record or for all: exactly the bad ones are rejected, unless there are
    as many as the breaker allows."""
    rng = random.Random(seed)
    bad = {str(number) for number in range(size) if rng.random() < share}
    k, n = len(bad), size
    if k >= 50 or k == n:
        return
    destination = kind(bad, code)
    delivery = asyncio.run(delivered(destination, size, size))
    delivery.conclude()
    assert delivery.failure is None
    assert (delivery.totals.rejected, delivery.totals.delivered) == (k, n - k)
    assert destination.held == {str(number) for number in range(size)} - bad
    probes = 2 * k
    assert destination.calls <= max(2 * k * math.ceil(math.log2(n)) + k, 1) + probes


def test_i13_a_refusal_of_everything_ends_after_few_records() -> None:
    destination = Wholesale(set(map(str, range(5000))), "422")
    delivery = asyncio.run(delivered(destination, 5000, 1000))
    assert "configuration" in str(delivery.failure)
    assert destination.calls < 250


@pytest.mark.parametrize("records", [1, 100])
@pytest.mark.parametrize("kind", [Answering, Wholesale])
def test_i19_bad_records_at_the_beginning_are_no_matter_of_the_settings(
    kind: type[Answering], records: int
) -> None:
    """Before a run is stopped, records further back in the plan are tried."""
    destination = kind(set(map(str, range(200))), "422")
    delivery = asyncio.run(delivered(destination, 1000, records))
    delivery.conclude()
    assert delivery.failure is None
    totals = delivery.totals
    assert (totals.delivered, totals.rejected + len(delivery.waiting)) == (800, 200)
    assert sorted(destination.held, key=int) == list(map(str, range(200, 1000)))


def test_i22_what_repeats_a_request_in_doubt_comes_later_than_it_can_land() -> None:
    at: list[float] = []

    def act(batch: Batch) -> None:
        at.append(time.monotonic())
        if len(at) == 1:
            raise Unsettled("no answer", code="timeout")

    class Slow(Written):
        spec = Spec("slow", Written.spec.config, "", Written.spec.batch, late=0.8)

    delivery = asyncio.run(delivered(Slow(act), 5, 5))
    assert delivery.totals.delivered == 5
    assert at[1] - at[0] >= 0.8


def test_i31_a_storm_ends_deferred_and_is_not_multiplied() -> None:
    """Every second request fails: without a budget each batch would be tried until it is through."""
    calls = iter(range(10_000))

    def act(batch: Batch) -> None:
        if next(calls) % 2 == 0:
            raise Unsettled("oops", code="500")

    destination = Written(act, concurrency=50)
    delivery = asyncio.run(delivered(destination, 1000, 1))
    assert delivery.totals.retries <= 30 + 0.1 * destination.calls
    assert (
        delivery.totals.deferred + delivery.totals.unknown + delivery.totals.delivered == 1000
        or delivery.stopping
    )
    assert delivery.exhausted is not None
    assert "repeated" in str(delivery.exhausted)


@pytest.mark.parametrize("act", [Tally.lose, lambda tally, rows: tally.refuse(rows[0], BAD)])
def test_a_record_that_was_refused_cannot_go_anywhere_else(act: Callable[..., Any]) -> None:
    (chunk,) = chunks(3)
    tally = Tally(chunk.batch_from(0, len(chunk), BatchLimits(3)))
    tally.refuse(1, BAD)
    assert tally.at(Stage.REJECTED) == [1]
    with pytest.raises(IllegalTransition):
        act(tally, [1])


def test_a_repeated_delete_that_finds_nothing_is_delivered() -> None:
    (chunk,) = chunks(3)
    chunk.op = Op.DELETE
    batch = chunk.batch_from(0, len(chunk), BatchLimits(3))
    tally = Tally(batch, doubted=[1, 2])
    assert not tally.reject(batch, 1, Rejected("1", "404", "not found"))
    assert tally.reject(batch, 2, Rejected("2", "400", "no"))
    assert list(tally.refusals) == [2]
