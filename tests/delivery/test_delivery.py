"""The delivery engine with a destination written for the purpose, a real state folder and hand-made rows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from backhaul.delivery.batches import Chunk
from backhaul.delivery.budget import Budget
from backhaul.delivery.delivery import ATTEMPTS, Delivery
from backhaul.delivery.encoding import Encoding
from backhaul.delivery.tally import Totals
from backhaul.destinations.kit import Batch, Destination, DestinationConfig, Spec
from backhaul.errors import Exhausted, Halt, Throttled, Unsettled, UsageError
from backhaul.ledger.plan import Plan, Segment
from backhaul.state.journal import Journal
from backhaul.state.sqlite import SqliteState
from backhaul.surroundings import Surroundings
from backhaul.types import BatchLimits, Delivered, ObjectSchema, Op, Outcomes, Rate, Retry

LIMITS = BatchLimits(records=10)


class Hasty(random.Random):
    """Pauses are as short as they may be."""

    def uniform(self, a: float, b: float) -> float:
        return a


class Written(Destination[DestinationConfig]):
    """A destination whose `write` is a function of the batch."""

    spec: ClassVar[Spec] = Spec(name="written", config=DestinationConfig, docs="", batch={Op.UPSERT: LIMITS})

    def __init__(self, act: Callable[[Batch], Any], **settings: Any) -> None:
        super().__init__(DestinationConfig(**settings), None)  # type: ignore[arg-type]
        self.act = act
        self.flying = self.most = self.calls = 0

    async def describe(self, object: str) -> ObjectSchema:
        return ObjectSchema(object, open=True)

    async def write(self, batch: Batch) -> Outcomes:
        self.calls += 1
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            await asyncio.sleep(0.002)
            self.act(batch)
        finally:
            self.flying -= 1
        return Outcomes(tuple(Delivered(key) for key in batch.keys))


def chunks(rows: int) -> Generator[Chunk, None, None]:
    """One chunk of rows `{"id": n}`."""
    plan = Plan(id="p", sync="s", path=Path("p.parquet"), rows=rows, changes={})
    names = [str(number) for number in range(rows)]
    columns = {"key": names, "pk": names, "hash": names, "remote_id": [None] * rows}
    arrays = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    arrays["wire"] = pa.array([f'{{"id":{name}}},' for name in names], pa.string())
    table = pa.RecordBatch.from_pydict(arrays)
    yield Chunk(table, 0, plan, Segment(Op.UPSERT, 0, rows), "thing", (), ("id",), Encoding())


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    state = SqliteState(tmp_path)
    async with Journal(state, "s", "p") as journal:
        yield journal
    state.close()


async def test_everything_is_delivered_within_the_places_there_are(journal: Journal) -> None:
    destination = Written(lambda batch: None, concurrency=5)
    delivery = Delivery(destination, journal, Budget("d", ()))
    await delivery.deliver(chunks(500), LIMITS, 500)
    assert delivery.totals.delivered == 500
    assert destination.most <= 5


@pytest.mark.parametrize("error", [ValueError("a bug"), UsageError("not like this")])
async def test_an_unexpected_error_of_a_connector_is_raised(journal: Journal, error: Exception) -> None:
    def act(batch: Batch) -> None:
        if "20" in batch.keys:
            raise error

    destination = Written(act)
    delivery = Delivery(destination, journal, Budget("d", ()))
    with pytest.raises(type(error), match=str(error)) as caught:
        await delivery.deliver(chunks(1000), LIMITS, 1000)
    assert caught.value.__notes__ == ["raised by written"]
    assert destination.calls < 100
    doubtful = [(row["low"], row["high"]) for row in journal.state.do("intents", {"plan": "p"})]
    assert (20, 30) in doubtful


async def test_waiting_for_a_window_is_no_slow_answer(journal: Journal) -> None:
    """What the limits take is not taken for a destination that is busy."""
    destination = Written(lambda batch: None, concurrency=12)
    budget = Budget("d", [Rate("r", 25, 0.4)])
    budget.counts_writes = True
    delivery = Delivery(destination, journal, budget)
    await delivery.deliver(chunks(1000), LIMITS, 1000)
    assert delivery.totals.delivered == 1000
    assert delivery.concurrency.limit >= 6


async def test_an_answer_for_somebody_else_is_remembered(journal: Journal) -> None:
    class Spelling(Written):
        async def write(self, batch: Batch) -> Outcomes:
            return Outcomes(tuple(Delivered(f"K{key}" if key == "3" else key) for key in batch.keys))

    delivery = Delivery(
        Spelling(lambda batch: None), journal, Budget("d", ()), surroundings=Surroundings(rng=Hasty())
    )
    await delivery.deliver(chunks(10), LIMITS, 10)
    assert (delivery.totals.delivered, delivery.totals.unknown, delivery.totals.stray) == (9, 1, "K3")


async def test_a_refusal_of_us_stops_at_once(journal: Journal) -> None:
    def act(batch: Batch) -> None:
        raise Halt("no entrance")

    destination = Written(act, concurrency=8)
    delivery = Delivery(destination, journal, Budget("d", ()))
    await delivery.deliver(chunks(1000), LIMITS, 1000)
    assert isinstance(delivery.failure, Halt)
    assert destination.calls <= 8
    assert delivery.totals.deferred == len(journal.state.do("outcomes", {"plan": "p"})) * 10


async def test_a_stop_sends_nothing_new(journal: Journal) -> None:
    calls = list[int]()

    def stop(batch: Batch) -> None:
        if "100" in batch.keys:
            delivery.stop()
            calls.append(destination.calls)

    destination = Written(stop, concurrency=4)
    delivery = Delivery(destination, journal, Budget("d", ()))
    await delivery.deliver(chunks(1000), LIMITS, 1000)
    assert calls == [destination.calls]
    assert destination.calls * 10 == delivery.totals.delivered


async def test_a_part_of_a_chunk_is_sent(journal: Journal) -> None:
    destination = Written(lambda batch: None)
    delivery = Delivery(destination, journal, Budget("d", ()))
    await delivery.deliver(chunks(100), LIMITS, 37)
    assert delivery.totals.delivered == 37
    assert journal.state.do("intents", {"plan": "p"}) == []


class Later(Written):
    """Wants to be asked again about record 3."""

    def __init__(self, after: float) -> None:
        super().__init__(lambda batch: None)
        self.after, self.asked = after, list[float]()

    async def write(self, batch: Batch) -> Outcomes:
        self.asked.append(asyncio.get_running_loop().time())
        first = len(self.asked) == 1
        return Outcomes(tuple(
            Retry(key, "busy", self.after) if first and key == "3" else Delivered(key) for key in batch.keys
        ))  # fmt: skip


async def test_what_an_answer_asks_for_one_record_is_waited_for(journal: Journal) -> None:
    destination = Later(0.5)
    delivery = Delivery(destination, journal, Budget("d", ()), surroundings=Surroundings(rng=Hasty()))
    await delivery.deliver(chunks(10), LIMITS, 10)
    assert delivery.totals.delivered == 10
    first, second = destination.asked
    assert second - first >= 0.5


async def test_a_record_that_wants_a_long_wait_is_left_to_a_later_run(journal: Journal) -> None:
    destination = Later(7200)
    delivery = Delivery(destination, journal, Budget("d", ()), surroundings=Surroundings(rng=Hasty()))
    await delivery.deliver(chunks(20), LIMITS, 20)
    assert (delivery.totals.delivered, delivery.totals.deferred) == (19, 1)
    assert len(destination.asked) == 2


async def test_the_answer_to_the_last_attempt_holds_everybody_too(journal: Journal) -> None:
    """I29."""
    errors = [*(Unsettled("reset") for _ in range(ATTEMPTS - 1)), Throttled("busy", after=7200)]

    def act(batch: Batch) -> None:
        raise errors.pop(0)

    budget = Budget("d", ())
    delivery = Delivery(Written(act), journal, budget, surroundings=Surroundings(rng=Hasty()))
    await delivery.deliver(chunks(10), LIMITS, 10)
    assert errors == []
    with pytest.raises(Exhausted):
        await budget.acquire()


async def test_what_shows_the_progress_may_break_and_nothing_hangs(journal: Journal) -> None:
    def show(totals: Totals) -> None:
        raise ValueError("no terminal")

    delivery = Delivery(Written(lambda batch: None), journal, Budget("d", ()), progress=show)
    async with asyncio.timeout(20):
        with pytest.raises(ValueError, match="no terminal"):
            await delivery.deliver(chunks(500), LIMITS, 500)
    assert journal.state.do("intents", {"plan": "p"}) == []
