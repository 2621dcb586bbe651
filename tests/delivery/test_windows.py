"""Reserving, as arithmetic: many senders on one document, against exact times."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from backhaul.delivery.windows import Ask, Document, Grant, leave, reserve
from backhaul.types import Left, Rate


def busiest(times: Sequence[float], length: float) -> int:
    """The most of these times in any window that is shorter than the length by a hair."""
    found, first, ordered = 0, 0, sorted(times)
    for last, at in enumerate(ordered):
        while ordered[first] <= at - length * 0.999999:
            first += 1
        found = max(found, last - first + 1)
    return found


def one(
    document: Document, now: float, *rates: Rate, owner: str = "a", count: int = 1, **more: object
) -> Grant:
    return reserve(document, Ask(owner, rates, count, **more), now)  # type: ignore[arg-type]


@given(
    counts=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    pers=st.lists(st.sampled_from([0.3, 1.0, 10.0, 60.0, 86_400.0]), min_size=3, max_size=3, unique=True),
    asks=st.lists(
        st.tuples(
            st.floats(0, 2, allow_nan=False), st.integers(1, 30), st.sampled_from("abc"), st.booleans()
        ),
        max_size=80,
    ),
)
def test_i28_no_window_of_any_sender_ever_holds_more_than_allowed(
    counts: list[int], pers: list[float], asks: list[tuple[float, int, str, bool]]
) -> None:
    rates = [Rate("r", count, per) for count, per in zip(counts, pers, strict=False)]
    document: Document = {}
    now, times = 1_000.0, []
    for gap, count, owner, patient in asks:
        now += gap * rates[0].per / 5
        grant = one(document, now, *rates, owner=owner, count=count)
        times += [now] * grant.granted
        if patient and grant.granted < count:
            assert 0 < grant.wait <= max(rate.per for rate in rates) * 1.05
            now += grant.wait
            again = one(document, now, *rates, owner=owner)
            times += [now] * again.granted
    for rate in rates:
        assert busiest(times, rate.per) <= rate.count


@given(count=st.integers(1, 200), per=st.sampled_from([1.0, 10.0]), many=st.integers(1, 8))
def test_nearly_all_of_a_window_is_used_by_many_senders(count: int, per: float, many: int) -> None:
    rate, document = Rate("r", count, per), Document()
    now, taken, turn = 1_000.0, 0, 0
    while now < 1_000.0 + 20 * per:
        turn += 1
        grant = one(document, now, rate, owner=str(turn % many), count=8)
        taken += grant.granted
        if not grant.granted:
            now += grant.wait
    assert taken >= 0.95 * 20 * count


def test_i28_a_window_that_only_another_sender_keeps_counts_every_request() -> None:
    document: Document = {}
    ten, minute = Rate("a", 10, 1.0), Rate("b", 12, 60.0)
    assert one(document, 100.0, minute).granted == 1
    assert one(document, 101.0, ten, count=10).granted == 10
    assert one(document, 102.0, minute, count=5).granted == 1


def test_a_request_that_left_late_counts_when_it_left() -> None:
    document, rate = Document(), Rate("r", 2, 1.0)
    first = one(document, 100.0, rate, count=2)
    assert one(document, 100.9, rate, count=0, moved=[first.at]).granted == 0
    assert one(document, 101.1, rate, count=2).granted == 1
    assert one(document, 101.94, rate).granted == 1


def test_i29_a_hold_is_for_every_sender_and_has_an_end() -> None:
    document, rate = Document(), Rate("r", 100, 1.0)
    one(document, 100.0, rate, count=0, hold=(30.0, "slow down"))
    grant = one(document, 110.0, rate, owner="b")
    assert (grant.granted, grant.wait, grant.why) == (0, 20.0, "slow down")
    one(document, 111.0, rate, count=0, hold=(5.0, "shorter"))
    assert one(document, 111.0, rate).wait == 19.0
    assert one(document, 130.0, rate).granted == 1
    one(document, 131.0, rate, count=0, hold=(1e9, "for ever"))
    assert one(document, 131.0, rate).wait == 86_400.0


def test_i30_the_destination_says_that_less_is_left() -> None:
    document, day = Document(), Rate("day", 1000, 86_400.0)
    left = {"86400": Left(3, 600.0)}
    assert one(document, 100.0, day, count=5, left=left).granted == 3
    grant = one(document, 200.0, day, owner="b")
    assert (grant.granted, grant.wait) == (0, 500.0)
    assert one(document, 701.0, day, count=5).granted == 5


@given(jump=st.sampled_from([-86_400.0, -400 * 86_400.0, -3.0, -0.001]), used=st.integers(1, 10))
def test_i32_a_clock_that_goes_back_blocks_nothing_and_forgets_nothing(jump: float, used: int) -> None:
    document, rate, day = Document(), Rate("r", 10, 10.0), Rate("d", 1000, 86_400.0)
    before = 1.7e9
    one(document, before, rate, day, count=used)
    one(document, before, rate, day, count=0, hold=(2.0, "x"))
    now = before + jump
    assert one(document, now, rate, day, count=20).granted == 0
    assert one(document, now + 2.01, rate, day, count=20).granted == 10 - used
    later = one(document, now + 2.02, rate, day)
    assert 0 < later.wait <= 10.4
    assert one(document, now + 10.4, rate, day, count=20).granted == used


def test_i32_a_clock_that_jumps_ahead_blocks_nothing() -> None:
    document, rate = Document(), Rate("r", 10, 10.0)
    one(document, 100.0, rate, count=10)
    assert one(document, 100.0 + 400 * 86_400, rate, count=20).granted == 10


def test_a_lower_priority_waits_for_a_higher_one_and_takes_what_it_leaves() -> None:
    document, rate = Document(), Rate("r", 10, 1.0)
    assert one(document, 100.0, rate, owner="low", count=4, priority=-10).granted == 4
    high = one(document, 100.1, rate, owner="high", count=3, priority=10, needs={"1": 3})
    assert high.granted == 3
    low = one(document, 100.2, rate, owner="low", count=4, priority=-10)
    assert (low.granted, low.turn) == (0, True)
    assert one(document, 100.25, rate, owner="high", count=2, priority=10, needs={"1": 0}).granted == 2
    assert one(document, 100.3, rate, owner="low", count=4, priority=-10).granted == 1
    leave(document, "high")
    assert one(document, 101.2, rate, owner="low", count=9, priority=-10).granted >= 4


def test_who_was_killed_while_having_priority_keeps_nobody_waiting_for_long() -> None:
    document, rate = Document(), Rate("r", 10, 1.0)
    one(document, 100.0, rate, owner="high", count=1, priority=10, needs={"1": 10})
    assert one(document, 104.0, rate, owner="low").granted == 0
    assert one(document, 105.1, rate, owner="low").granted == 1


def test_who_waits_for_a_window_keeps_its_turn_until_then() -> None:
    document, rate = Document(), Rate("r", 10, 60.0)
    one(document, 100.0, rate, owner="low", count=10)
    high = one(document, 101.0, rate, owner="high", count=8, priority=10, turn=1.0)
    assert high.granted == 0
    assert one(document, 101.0 + high.wait, rate, owner="low", count=5).granted == 2


def test_equal_priorities_wait_for_nobody() -> None:
    document, rate = Document(), Rate("r", 10, 1.0)
    one(document, 100.0, rate, owner="a", count=1, needs={"1": 10})
    assert one(document, 100.1, rate, owner="b", count=20).granted == 9


@given(
    count=st.integers(1, 50),
    per=st.sampled_from([1.0, 3.0, 10.0]),
    tight=st.booleans(),
    late=st.lists(st.floats(0.0, 1.0), min_size=400, max_size=400),
)
def test_i28_windows_are_kept_where_requests_take_times_that_differ(
    count: int, per: float, tight: bool, late: list[float]
) -> None:
    """As the destination counts them: each arrives later than it left. By up to 4.5% of the window where it holds the sender up, and by up to half of it where another window does."""
    burst, steady = Rate("r", count, per), Rate("s", count * 8, per * 16)
    rates = (burst,) if tight else (burst, steady)
    spread = per * 0.045 if tight else per / 2
    document, now, arrived = Document(), 1_000.0, list[float]()
    while len(arrived) < min(4 * count, len(late)):
        grant = one(document, now, *rates, count=8, spread=spread)
        granted = min(grant.granted, len(late) - len(arrived))
        arrived += [now + late[len(arrived) + number] * spread for number in range(granted)]
        now += grant.wait if not grant.granted else 0.0
    assert busiest(arrived, per) <= count


def test_i28_a_pause_of_the_server_is_followed_by_no_throttling() -> None:
    """HubSpot's limit: the server does not look at the socket for 0.4 s, so it counts the first ten requests late; those that
    take their places ten seconds later arrive on time."""
    burst, day = Rate("burst", 100, 10.0), Rate("day", 250_000, 86_400.0)
    document, now, arrived = Document(), 1_000.0, list[float]()
    while len(arrived) < 300:
        spread = 0.4 if arrived else 0.0
        grant = one(document, now, burst, day, count=10, spread=spread)
        arrived += [max(now + 0.005, 1_000.4)] * grant.granted
        now += grant.wait or 0.1
    assert busiest(arrived, 10.0) <= 100
