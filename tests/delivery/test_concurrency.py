"""How many requests may be in flight: more while all is well, fewer when the destination is busy."""

from __future__ import annotations

import asyncio

from backhaul.delivery.concurrency import Concurrency


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def rounds(
    places: Concurrency, clock: Clock, number: int, latency: float = 0.1, throttled: bool = False
) -> None:
    """Keeps more tasks waiting than there are places, for so many round trips."""
    for _ in range(number):
        taken = []
        for _ in range(int(places.limit)):
            await places.acquire()
            taken.append(None)
        extra = asyncio.create_task(places.acquire())
        await asyncio.sleep(0)
        clock.now += latency
        for _ in taken:
            places.release()
            places.seen(latency, throttled=throttled)
        await extra
        places.release()


async def test_it_grows_by_one_a_round_trip_up_to_the_most() -> None:
    clock = Clock()
    places = Concurrency(20, start=2, clock=clock)
    await rounds(places, clock, 5)
    assert 5 <= places.limit <= 8
    await rounds(places, clock, 40)
    assert places.limit == 20


async def test_throttling_takes_a_third_away_and_never_the_last_place() -> None:
    clock = Clock()
    places = Concurrency(20, start=20, clock=clock)
    clock.now = 10
    places.seen(0.1, throttled=True)
    assert places.limit == 14
    for _ in range(100):
        clock.now += 1
        places.seen(0.1, throttled=True)
    assert places.limit == 1


async def test_a_jump_of_latency_is_back_pressure_and_noise_is_not() -> None:
    clock = Clock()
    places = Concurrency(20, start=10, clock=clock)
    for latency in (0.10, 0.11, 0.09, 0.12, 0.10, 0.14, 0.08):
        clock.now += 1
        places.seen(latency)
    assert places.limit == 10
    clock.now += 1
    places.seen(1.5)
    assert places.limit == 7


async def test_it_does_not_grow_when_nobody_waits() -> None:
    clock = Clock()
    places = Concurrency(20, start=4, clock=clock)
    for _ in range(50):
        await places.acquire()
        clock.now += 1
        places.release()
        places.seen(0.1)
    assert places.limit == 4


async def test_never_more_than_allowed_and_in_order_of_arrival() -> None:
    places = Concurrency(3, start=3)
    order: list[int] = []

    async def work(number: int) -> None:
        await places.acquire()
        assert places.in_flight <= 3
        order.append(number)
        await asyncio.sleep(0)
        places.release()

    await asyncio.gather(*(work(number) for number in range(50)))
    assert order == list(range(50))
    assert places.in_flight == 0
    assert places.peak == 3
