"""Senders that share a budget in one state file, against a clock that the test turns or the real one."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import HANGS

from backhaul.delivery.budget import PATIENCE, RETRIES, RETRIES_FREE, Budget, Stale
from backhaul.delivery.delivery import ATTEMPTS
from backhaul.delivery.waiting import LONGEST_WAIT
from backhaul.delivery.windows import LONGEST_HOLD
from backhaul.errors import Exhausted, StateError
from backhaul.state.clock import Machine
from backhaul.state.protocol import Buckets
from backhaul.state.sqlite import SqliteState
from backhaul.types import Left, Rate


class Host:
    """A machine and its state. Its clocks stand still unless turned."""

    def __init__(self, folder: Path) -> None:
        self.elapsed, self.wall, self.boot = 1000.0, 1_700_000_000.0, "first"
        self.folder = folder

    def turn(self, seconds: float) -> None:
        self.elapsed += seconds
        self.wall += seconds

    def budget(self, *rates: Rate, name: str = "crm", priority: int = 0) -> Budget:
        machine = Machine(self.boot, lambda: self.elapsed, lambda: self.wall)
        buckets = SqliteState(self.folder / "state").buckets(machine)
        return Budget(name, rates, buckets=buckets, priority=priority, clock=lambda: self.elapsed)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


async def taken(budget: Budget, count: int) -> int:
    """How many of so many requests may leave before the budget says that it takes too long."""
    found = 0
    for _ in range(count):
        try:
            await asyncio.wait_for(budget.acquire(), HANGS)
        except Exhausted:
            break
        found += 1
    return found


DAY = Rate("day", 10, 86_400.0)


async def test_i28_two_processes_share_a_window_from_the_first_request(host: Host) -> None:
    one, other = host.budget(DAY), host.budget(DAY)
    assert await taken(one, 6) == 6
    assert await taken(other, 6) == 4
    assert await taken(one, 1) == 0


async def test_i30_a_quota_is_kept_over_restarts_and_says_when_it_goes_on(host: Host) -> None:
    assert await taken(host.budget(DAY), 20) == 10
    host.turn(3600)
    with pytest.raises(
        Exhausted, match=r"limit of 10 in 1 day is used up; it can go on in 23.* UTC"
    ) as caught:
        await host.budget(DAY).acquire()
    assert caught.value.after == pytest.approx(82_800, abs=500)
    host.turn(caught.value.after + 0.3)
    assert await taken(host.budget(DAY), 20) == 10


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0, 400 * 86_400.0, -400 * 86_400.0])
async def test_i32_nobody_notices_that_the_wall_clock_is_set(host: Host, jump: float) -> None:
    assert await taken(host.budget(DAY), 4) == 4
    host.wall += jump
    assert await taken(host.budget(DAY), 20) == 6
    host.turn(87_000)
    assert await taken(host.budget(DAY), 20) == 10


@pytest.mark.parametrize("jump", [60.0, -86_400.0, -400 * 86_400.0])
async def test_i32_a_restart_of_the_machine_forgets_nothing(host: Host, jump: float) -> None:
    assert await taken(host.budget(DAY), 4) == 4
    host.boot, host.elapsed = "second", 5.0
    host.wall += jump
    assert await taken(host.budget(DAY), 20) == 6


@pytest.mark.parametrize("jump", [-86_400.0, -400 * 86_400.0])
async def test_i32_without_a_boot_id_a_clock_set_back_neither_blocks_nor_forgets(
    host: Host, jump: float
) -> None:
    host.boot = ""
    assert await taken(host.budget(DAY), 4) == 4
    host.wall += jump
    assert await taken(host.budget(DAY), 20) == 6
    host.turn(87_000)
    assert await taken(host.budget(DAY), 20) == 10


async def test_i29_a_hold_is_for_all_and_outlives_the_process(host: Host) -> None:
    one, other = host.budget(Rate("r", 100, 1.0)), host.budget(Rate("r", 100, 1.0))
    assert await taken(other, 1) == 1
    one.hold(7200, "HTTP 429")
    await one.close()
    with pytest.raises(Exhausted, match="HTTP 429; it can go on in 2 hours"):
        await other.acquire()
    unlimited = host.budget()
    await unlimited.open()
    with pytest.raises(Exhausted, match="HTTP 429"):
        await unlimited.acquire()
    host.turn(7201)
    assert await taken(host.budget(Rate("r", 100, 1.0)), 1) == 1
    assert await taken(unlimited, 1) == 1


async def test_i29_who_keeps_no_window_hears_of_a_hold_too(host: Host) -> None:
    one, other = host.budget(), host.budget()
    await other.open()
    await other.acquire()
    one.hold(7200, "HTTP 429")
    await one.close()
    host.turn(2)

    async def until_told() -> None:
        while True:
            await other.acquire()
            await asyncio.sleep(0.01)

    with pytest.raises(Exhausted, match="HTTP 429"):
        await asyncio.wait_for(until_told(), HANGS)


class Stuck:
    """Buckets in which nothing is stored for a while."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets = buckets

    async def exchange(self, bucket: str, act: Any) -> Any:
        await asyncio.Event().wait()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.buckets, name)


async def test_i29_a_look_at_the_state_shortens_no_hold_that_is_not_stored_yet(host: Host) -> None:
    one = host.budget()
    one.hold(2, "HTTP 429")
    await one.close()
    machine = Machine(host.boot, lambda: host.elapsed, lambda: host.wall)
    buckets = Stuck(SqliteState(host.folder / "state").buckets(machine))
    other = Budget("crm", (), buckets=buckets, clock=lambda: host.elapsed)  # type: ignore[arg-type]
    other.hold(7, "HTTP 503")
    await other.open()
    host.turn(3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.acquire(), 0.1)
    host.turn(5)
    await asyncio.wait_for(other.acquire(), HANGS)


async def test_i30_less_is_left_when_the_destination_says_so(host: Host) -> None:
    one, other = host.budget(DAY), host.budget(DAY)
    assert await taken(one, 2) == 2  # in flight
    one.report({86_400.0: Left(5, 3700.0), 9.0: Left(0, 9.0)})
    assert await taken(one, 2) == 2
    assert await taken(other, 5) == 1


class Counting:
    """Buckets that say how often they were asked."""

    def __init__(self, buckets: Buckets) -> None:
        self.buckets, self.exchanges = buckets, 0

    async def exchange(self, bucket: str, act: Any) -> Any:
        self.exchanges += 1
        return await self.buckets.exchange(bucket, act)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.buckets, name)


async def test_all_who_wait_are_reserved_in_one_exchange(tmp_path: Path) -> None:
    buckets = Counting(SqliteState(tmp_path / "state").buckets())
    budget = Budget("crm", [Rate("r", 1000, 60.0)], buckets=buckets)
    await asyncio.gather(*(budget.acquire() for _ in range(200)))
    assert buckets.exchanges <= 3
    document, _ = await buckets.peek("crm")
    assert document["windows"]["60"]["slots"][0][1] == 200


async def test_a_sync_of_low_priority_leaves_room_for_one_of_high_priority(host: Host) -> None:
    rate = Rate("r", 10, 7200.0)
    low, high = host.budget(rate, priority=-10), host.budget(rate, priority=10)
    assert await taken(low, 2) == 2
    high.expect(6)
    assert await taken(high, 1) == 1  # it sends, and five are to come
    waiting = [asyncio.create_task(low.acquire()) for _ in range(5)]
    assert await taken(high, 5) == 5
    await high.close()
    host.turn(1)
    ended, _ = await asyncio.wait(waiting, timeout=HANGS, return_when=asyncio.FIRST_EXCEPTION)
    left = [task for task in ended if task.exception() is None]
    assert len(left) == 2, "what the other one leaves, and no more"
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_destination_without_limits_costs_no_exchange(tmp_path: Path) -> None:
    buckets = Counting(SqliteState(tmp_path / "state").buckets())
    budget = Budget("crm", (), buckets=buckets)
    for _ in range(1000):
        await budget.acquire()
    await budget.close()
    assert buckets.exchanges == 0


async def test_a_stop_ends_the_wait(host: Host) -> None:
    budget = host.budget(Rate("r", 1, 3000.0))
    await budget.acquire()
    waiting = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0.1)
    budget.stop.set()
    with pytest.raises(Exhausted, match="stopped"):
        await asyncio.wait_for(waiting, HANGS)


async def test_i13_a_stop_that_comes_with_a_place_lets_nothing_leave(host: Host) -> None:
    budget = host.budget(Rate("r", 10, 3000.0))
    waiting = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0)
    budget.stop.set()
    with pytest.raises(Exhausted, match="stopped"):
        await asyncio.wait_for(waiting, HANGS)
    await asyncio.wait_for(budget.acquire(), HANGS)  # what is asked for after a stop is asked for knowingly


async def test_who_is_cancelled_takes_nobodys_place(host: Host) -> None:
    budget = host.budget(Rate("r", 1, 0.2))
    await budget.acquire()
    gone = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0.05)
    gone.cancel()
    host.turn(0.3)
    await asyncio.wait_for(budget.acquire(), HANGS)


async def test_i34_what_cannot_be_reserved_does_not_leave(host: Host) -> None:
    budget = host.budget(DAY)
    with sqlite3.connect(host.folder / "state" / "state.db") as database:
        database.execute("DROP TABLE buckets")
    database.close()
    with pytest.raises(StateError):
        await asyncio.wait_for(budget.acquire(), HANGS)


async def test_i31_retries_are_a_tenth_of_the_traffic_and_a_few(host: Host) -> None:
    budget = host.budget()
    for _ in range(1000):
        await budget.acquire()
    assert sum(budget.retry() for _ in range(500)) == 130


async def test_a_request_that_leaves_late_is_counted_when_it_leaves(host: Host) -> None:
    budget = host.budget(Rate("r", 1, 10.0))
    given = await budget.acquire()
    assert given is not None
    host.turn(4)
    budget.leaves(given)
    await budget.close()
    host.turn(6.4)
    again = host.budget(Rate("r", 1, 10.0))
    waiting = asyncio.create_task(again.acquire())
    await asyncio.sleep(0.1)
    assert not waiting.done()
    waiting.cancel()


async def test_the_speed_of_a_limited_sender_is_its_limit() -> None:
    budget = Budget("d", [Rate("r", 20, 0.5)])
    began = time.monotonic()
    for _ in range(60):
        await budget.acquire()
    assert time.monotonic() - began >= 1.0


async def test_i28_a_request_whose_process_was_paused_does_not_leave(host: Host) -> None:
    budget = host.budget(Rate("r", 1, 10.0))
    given = await budget.acquire()
    assert given is not None
    host.turn(5.1)
    with pytest.raises(Stale):
        budget.leaves(given)


async def test_who_looks_on_is_told_of_a_long_wait(host: Host) -> None:
    budget, told = host.budget(Rate("r", 1, 60.0)), list[str]()
    budget.told = told.append
    await budget.acquire()
    waiting = asyncio.create_task(budget.acquire())
    while not told:
        await asyncio.sleep(0.01)
    budget.stop.set()
    with pytest.raises(Exhausted):
        await waiting
    assert told == ["the limit of 1 in 1 minute is used up; waiting for 1 minute", ""]


@pytest.mark.parametrize("rates", [(), (Rate("r", 5, 20.0),)])
async def test_i29_a_request_whose_connection_took_its_time_hears_of_a_pause(
    host: Host, rates: tuple[Rate, ...]
) -> None:
    budget = host.budget(*rates)
    given = await budget.acquire()
    budget.hold(7.0)
    with pytest.raises(Stale):
        budget.leaves(given)
    host.turn(7.1)
    budget.leaves(given)
    await budget.close()


async def test_i29_who_was_silent_for_long_looks_first_whether_another_process_was_told_to_be(
    host: Host,
) -> None:
    one, other = host.budget(), host.budget()
    await other.acquire()
    one.hold(60.0)
    await one.close()
    host.turn(3)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.acquire(), 0.3)


def test_the_docs_state_the_limits_of_the_code() -> None:
    """I29, I31: one number for each, and docs/limits.md has it."""
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    for stated in (
        f"for {LONGEST_HOLD / 3600:.0f} hours at most",
        f"longer than {PATIENCE / 3600:.0f} hour ends `deferred`",
        f"is sent {ATTEMPTS} times at most",
        f"grow to {LONGEST_WAIT:.0f} s at most",
        f"at most {RETRIES:.0%} of its requests plus {RETRIES_FREE}",
    ):
        assert stated in text
