"""The delivery engine with a destination written for the purpose, a real state folder and hand-made rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from backhaul.delivery.batches import Chunk
from backhaul.delivery.budget import Budget
from backhaul.delivery.delivery import Delivery
from backhaul.destinations.kit import Batch, Destination, DestinationConfig, Spec, Wire
from backhaul.errors import Halt, UsageError
from backhaul.ledger.plan import Plan, Segment
from backhaul.state.journal import Journal
from backhaul.state.store import State
from backhaul.types import BatchLimits, Delivered, ObjectSchema, Op, Outcomes

LIMITS = BatchLimits(records=10)


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
    yield Chunk(table, 0, plan, Segment(Op.UPSERT, 0, rows), "thing", (), ("id",), Wire.JSON)


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    state = State(tmp_path)
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
    with pytest.raises(type(error), match=str(error)):
        await delivery.deliver(chunks(1000), LIMITS, 1000)
    assert destination.calls < 100
    doubtful = [tuple(row) for row in journal.state.do("intents", {"plan": "p"})]
    assert (20, 30) in doubtful


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
    destination = Written(lambda batch: delivery.stop() if "100" in batch.keys else None, concurrency=4)
    delivery = Delivery(destination, journal, Budget("d", ()))
    await delivery.deliver(chunks(1000), LIMITS, 1000)
    assert 0 < delivery.totals.delivered <= 150
    assert destination.calls * 10 == delivery.totals.delivered


async def test_a_part_of_a_chunk_is_sent(journal: Journal) -> None:
    destination = Written(lambda batch: None)
    delivery = Delivery(destination, journal, Budget("d", ()))
    await delivery.deliver(chunks(100), LIMITS, 37)
    assert delivery.totals.delivered == 37
    assert journal.state.do("intents", {"plan": "p"}) == []
