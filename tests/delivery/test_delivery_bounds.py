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
from backhaul.state.journal import Journal
from backhaul.state.sqlite import SqliteState
from backhaul.types import BatchLimits, Op, Rejected


async def delivered(destination: Written, rows: int, size: int) -> Delivery:
    """One plan of upserts, delivered with a journal of its own."""
    with tempfile.TemporaryDirectory() as folder:
        state = SqliteState(Path(folder))
        async with Journal(state, "s", "p") as journal:
            delivery = Delivery(destination, journal, Budget("d", ()))
            await delivery.deliver(chunks(rows), BatchLimits(size), rows)
        state.close()
    return delivery


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 130), seed=st.integers(0, 1 << 30), share=st.floats(0.0, 0.3))
def test_i19_k_bad_of_n_cost_at_most_two_logarithms_each(size: int, seed: int, share: float) -> None:
    rng = random.Random(seed)
    bad = {str(number) for number in range(size) if rng.random() < share}

    def act(batch: Batch) -> None:
        found = bad & set(batch.keys)
        if found:
            raise Refused(
                "one of them", code="-".join(sorted(found))
            )  # no two refusals alike: data, not settings

    destination = Written(act)
    delivery = asyncio.run(delivered(destination, size, size))
    assert (delivery.totals.rejected, delivery.totals.delivered) == (len(bad), size - len(bad))
    k, n = len(bad), size
    assert destination.calls <= max(2 * k * math.ceil(math.log2(n)) + k, 1)


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


@pytest.mark.parametrize("act", [Tally.lose, lambda tally, rows: tally.refuse(rows[0], "c", "m")])
def test_a_record_that_was_refused_cannot_go_anywhere_else(act: Callable[..., Any]) -> None:
    (chunk,) = chunks(3)
    tally = Tally(next(iter(chunk.batches(BatchLimits(3)))))
    tally.refuse(1, "bad", "no")
    assert tally.at(Stage.REJECTED) == [1]
    with pytest.raises(IllegalTransition):
        act(tally, [1])


def test_a_repeated_delete_that_finds_nothing_is_delivered() -> None:
    (chunk,) = chunks(3)
    chunk.op = Op.DELETE
    batch = next(iter(chunk.batches(BatchLimits(3))))
    tally = Tally(batch, doubted=[1, 2])
    assert not tally.reject(batch, 1, Rejected("1", "404", "not found"))
    assert tally.reject(batch, 2, Rejected("2", "400", "no"))
    assert list(tally.refusals) == [2]
