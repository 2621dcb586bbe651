"""Windows, holds and what of them survives a restart, against a clock that the test turns."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backhaul.delivery.budget import Budget, Window
from backhaul.errors import Exhausted
from backhaul.types import Rate


class Clock:
    """Elapsed time and the time of day; both stand still unless turned."""

    def __init__(self, wall: float = 1_700_000_000.0) -> None:
        self.elapsed, self.wall = 1000.0, wall

    def turn(self, seconds: float) -> None:
        self.elapsed += seconds
        self.wall += seconds

    def budget(self, *rates: Rate) -> Budget:
        return Budget("d", rates, clock=lambda: self.elapsed, wall=lambda: self.wall)


def busiest(times: Sequence[float], length: float) -> int:
    return max((sum(begin <= at < begin + length for at in times) for begin in times), default=0)


@given(
    count=st.integers(1, 20),
    per=st.sampled_from([0.3, 1.0, 10.0, 60.0, 86_400.0]),
    gaps=st.lists(st.floats(0, 2, allow_nan=False), min_size=1, max_size=200),
)
def test_no_window_ever_holds_more_than_allowed(count: int, per: float, gaps: list[float]) -> None:
    window = Window(Rate("r", count, per))
    clock, times = 1000.0, []
    for gap in gaps:
        clock += gap * per / count
        wait = window.wait(clock)
        assert wait <= per * 1.05
        clock += wait
        window.take(clock)
        times.append(clock)
    assert busiest(times, per * 0.999999) <= count


@given(count=st.integers(1, 200), per=st.sampled_from([1.0, 10.0]))
def test_nearly_all_of_a_window_can_be_used(count: int, per: float) -> None:
    window = Window(Rate("r", count, per))
    clock, taken = 1000.0, 0
    while clock < 1000.0 + 20 * per:
        wait = window.wait(clock)
        if wait:
            clock += wait
        else:
            window.take(clock)
            taken += 1
    assert taken >= 0.95 * 20 * count


@given(
    moments=st.lists(st.floats(0, 3, allow_nan=False), max_size=60),
    break_at=st.integers(0, 60),
    away=st.floats(0, 3, allow_nan=False),
)
def test_a_restart_in_between_allows_no_more(moments: list[float], break_at: int, away: float) -> None:
    clock = Clock()
    rate = Rate("5/10s", 5, 10.0)
    stored: dict[tuple[str, int], int] = {}
    budget, times = clock.budget(rate), []

    async def one() -> None:
        clock.turn(budget.windows[0].wait(clock.elapsed))
        await budget.acquire()
        times.append(clock.wall)
        for name, (bucket, slot, used) in budget.statements():
            assert name == "spend"
            stored[bucket, slot] = stored.get((bucket, slot), 0) + used

    for number, gap in enumerate(moments):
        if number == break_at:
            clock.turn(away)
            clock.elapsed = 5.0  # another process, another machine's uptime
            budget = clock.budget(rate)
            budget.load(
                lambda bucket, since: [
                    (s, n) for (b, s), n in sorted(stored.items()) if b == bucket and s >= since
                ],
                None,
            )
        clock.turn(gap)
        asyncio.run(one())
    assert busiest(times, 9.999) <= 5


async def test_a_hold_holds_everybody_and_is_stored() -> None:
    clock = Clock()
    budget = clock.budget()
    budget.hold(5000)
    with pytest.raises(Exhausted):
        await budget.acquire()
    assert budget.statements() == [("hold", ("d", clock.wall + 5000))]
    later = clock.budget()
    clock.turn(4999)
    later.load(lambda bucket, since: [], clock.wall + 1)
    assert later._held_until == pytest.approx(clock.elapsed + 1)


async def test_a_stored_hold_far_in_the_future_is_capped() -> None:
    clock = Clock()
    budget = clock.budget()
    budget.load(lambda bucket, since: [], clock.wall + 400 * 86_400)
    assert budget._held_until - clock.elapsed <= 86_400


async def test_stored_requests_of_the_future_do_not_block_for_ever() -> None:
    clock = Clock()
    budget = clock.budget(Rate("2/1s", 2, 1.0))
    slot = int((clock.wall + 400 * 86_400) / 0.01)
    budget.load(lambda bucket, since: [(slot, 2)], None)
    assert budget.windows[0].wait(clock.elapsed) <= 1.05


async def test_a_stop_ends_the_wait() -> None:
    budget = Budget("d", ())
    budget.hold(600)
    waiting = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0.01)
    budget.stop.set()
    with pytest.raises(Exhausted, match="stopped"):
        await asyncio.wait_for(waiting, 1)


async def test_who_waits_takes_nothing() -> None:
    clock = Clock()
    budget = clock.budget(Rate("1/1d", 1, 86_400.0))
    await budget.acquire()
    for _ in range(3):
        with pytest.raises(Exhausted):
            await budget.acquire()
    assert sum(used for _, (_, _, used) in budget.statements()) == 1
