"""Records stay apart whatever comes back: orders, look-alikes, hostile bodies; and nothing but our own errors is raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.hubspot import HubSpot, HubSpotConfig
from backhaul.destinations.kit import Answer, Wire
from backhaul.errors import BackhaulError, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, FieldType, Op, Outcome, Rejected

Row = dict[str, Any]


@pytest.fixture
def sandbox() -> HubSpotSandbox:
    return HubSpotSandbox()


@pytest.fixture(params=["v3", "2026-09"])
async def hubspot(sandbox: HubSpotSandbox, request: pytest.FixtureRequest) -> AsyncIterator[HubSpot]:
    async with serve(sandbox) as url:
        door = Door(Budget("crm", ()), 10.0)
        door.owner = HubSpot(
            HubSpotConfig(access_token="local", base_url=url, api_version=request.param), door
        )
        yield door.owner
        await door.close()


def batch(
    op: Op, rows: Sequence[Row], ids: Sequence[str | None] | None = None, object: str = "contacts"
) -> RecordBatch:
    """Records that go by their first field."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    fields = tuple(map(Field, names[:1] if op is Op.DELETE else names))
    return RecordBatch(op, object, (names[0],), fields, rows, Wire.TEXT, ids)


async def written(hubspot: HubSpot, *given: Any, **more: Any) -> dict[str, Outcome]:
    found = await hubspot.write(batch(*given, **more))
    assert len({item.key for item in found.items}) == len(found.items)
    return {item.key: item for item in found.items}


def id_of(outcome: Outcome) -> str:
    assert isinstance(outcome, Delivered)
    assert outcome.remote_id
    return outcome.remote_id


def held(sandbox: HubSpotSandbox, name: str = "contacts") -> list[dict[str, str]]:
    return [dict(record.properties) for record in sandbox.types[name].records.values()]


ADA, BOB = {"email": "Ada@Example.com", "firstname": "Ada"}, {"email": "bob@example.com", "firstname": "Bob"}


async def test_what_is_left_out_is_kept_and_what_is_empty_is_cleared(
    hubspot: HubSpot, sandbox: HubSpotSandbox
) -> None:
    await written(hubspot, Op.UPSERT, [{**ADA, "city": "London", "phone": "1"}])
    await written(hubspot, Op.UPSERT, [{"email": "ada@example.com", "city": None}])
    (record,) = held(sandbox)
    assert (record["city"], record["phone"], record["firstname"]) == ("", "1", "Ada")


async def test_results_in_any_order_belong_to_their_own_records(
    hubspot: HubSpot, sandbox: HubSpotSandbox
) -> None:
    sandbox.faults = Faults(shuffle=True, refuse=0.2)
    rows = [{"email": f"u{number}@example.com", "firstname": str(number)} for number in range(100)]
    found = await written(hubspot, Op.UPSERT, rows)
    assert set(found) == {row["email"] for row in rows}
    truth = {record.properties["email"]: key for key, record in sandbox.types["contacts"].records.items()}
    assert 0 < len(truth) < 100
    assert {key: id_of(item) for key, item in found.items() if isinstance(item, Delivered)} == truth


async def test_numbers_that_look_like_places_are_not_taken_for_them(
    hubspot: HubSpot, sandbox: HubSpotSandbox
) -> None:
    """Identifiers 0, 1, 2 in an order that is not theirs, and property values that are other records' identifiers."""
    rows = [{"external_id": str(2 - place), "name": str(place)} for place in range(3)]
    sandbox.faults = Faults(shuffle=True, refuse_key="1")
    found = await written(hubspot, Op.UPSERT, rows, object="2-1001")
    assert {key: type(item) for key, item in found.items()} == {"0": Delivered, "1": Rejected, "2": Delivered}


@pytest.mark.parametrize(("object", "identifier", "old", "new"), [
    ("contacts", "email", "ada@example.com", "ada@lovelace.org"),
    ("2-1001", "external_id", "a-1", "a-2"),
])  # fmt: skip
async def test_an_update_by_record_id_moves_the_identifier(
    hubspot: HubSpot, sandbox: HubSpotSandbox, object: str, identifier: str, old: str, new: str
) -> None:
    made = await written(hubspot, Op.UPSERT, [{identifier: old}], object=object)
    moved = await written(hubspot, Op.UPDATE, [{identifier: new}], [id_of(made[old])], object=object)
    assert id_of(moved[new]) == id_of(made[old])
    assert [record[identifier] for record in held(sandbox, object)] == [new]


async def test_known_and_unknown_record_ids_in_one_update(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    made = await written(hubspot, Op.UPSERT, [ADA, BOB])
    rows = [{"email": "bob@example.com", "city": "Rome"}, {"email": "ada@lovelace.org", "city": "Oslo"}]
    found = await written(hubspot, Op.UPDATE, rows, [None, id_of(made["Ada@Example.com"])])
    assert {key: id_of(item) for key, item in found.items()} == {
        "bob@example.com": id_of(made["bob@example.com"]), "ada@lovelace.org": id_of(made["Ada@Example.com"]),
    }  # fmt: skip
    cities = {record["email"]: record["city"] for record in held(sandbox)}
    assert cities == {"bob@example.com": "Rome", "ada@lovelace.org": "Oslo"}


class Says:
    """A door whose every answer is this one."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        self.answer = Answer(status, {"content-type": "application/json"}, body)

    async def request(self, *_: Any, **__: Any) -> Answer:
        return self.answer

    async def login(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise NotImplementedError


def connector(body: bytes = b"") -> HubSpot:
    return HubSpot(HubSpotConfig(access_token="very-secret"), Says(body))


@pytest.mark.parametrize(("status", "headers", "error", "after"), [
    (429, {}, Throttled, 10), (429, {"retry-after": "3"}, Throttled, 3), (423, {}, NotApplied, 2),
    (429, {"x-hubspot-ratelimit-interval-milliseconds": "2500"}, Throttled, 2.5), (477, {"retry-after": "60"}, NotApplied, 60),
    (502, {}, Unsettled, None), (521, {}, Unsettled, None), (414, {}, Refused, None), (302, {"location": "/x"}, Halt, None),
])  # fmt: skip
@pytest.mark.parametrize("body", [
    b"", b"<html>", b'{"status":"error"', b'{"status":"error","message":"m","category":"C"}', b"[]", b"null",
])  # fmt: skip
def test_a_status_is_read_whatever_the_body(
    status: int, headers: dict[str, str], error: type[BackhaulError], after: float | None, body: bytes
) -> None:
    found = connector().classify(Answer(status, headers, body))
    assert isinstance(found, error)
    assert getattr(found, "after", None) == after
    assert "very-secret" not in f"{found!r} {found.hint}"


@pytest.mark.parametrize(("field", "sent", "held", "equal"), [
    (Field("n", FieldType.NUMBER), "1.0", "1", True), (Field("n", FieldType.NUMBER), "1e3", "1000", True),
    (Field("n", FieldType.NUMBER), "1", "2", False), (Field("t"), None, "", True), (Field("t"), "", None, True),
    (Field("t"), "x", None, False), (Field("t"), "x", "X", False), (Field("e", case_insensitive=True), "A@x.y", "a@x.y", True),
    (Field("d", FieldType.DATE), "2026-11-23", "1795392000000", True),
    (Field("d", FieldType.DATE), "2026-11-23", "2026-11-24", False),
    (Field("m", FieldType.DATETIME), "2026-11-23T10:00:00Z", "2026-11-23T10:00:00.000Z", True),
    (Field("m", FieldType.DATETIME), "2026-11-23T10:00:00.123456Z", "2026-11-23T10:00:00.123Z", True),
    (Field("m", FieldType.DATETIME), "2026-11-23T11:00:00+01:00", "2026-11-23T10:00:00Z", True),
    (Field("m", FieldType.DATETIME), "2026-11-23T10:00:00Z", "2026-11-23T10:00:01Z", False),
    (Field("m", FieldType.DATETIME), "2026-11-23T10:00:00Z", "2026-13-45", False),
    (Field("b", FieldType.BOOLEAN), True, "true", True), (Field("b", FieldType.BOOLEAN), "false", "true", False),
    (Field("c", native_type="enumeration/checkbox"), "a;b", "b;a", True),
    (Field("c", native_type="enumeration/checkbox"), "a", "a;b", False),
])  # fmt: skip
def test_values_are_compared_as_hubspot_keeps_them(field: Field, sent: Any, held: Any, equal: bool) -> None:
    assert connector().same(field, sent, held) is equal


SMALL = st.sampled_from([
    None, "0", "1", "2", "7", 0, 1, -1, 2.5, True, "", "a@x.y", "A@X.Y ", "b@x.y", "9" * 30, "²", "OBJECT_NOT_FOUND", {}, [],
])  # fmt: skip
NAMES = st.sampled_from([
    "id", "objectWriteTraceId", "properties", "email", "context", "ids", "category", "message", "status", "results",
    "errors", "name", "type", "fieldType", "options", "value", "hs_additional_emails", "modificationMetadata", "archived",
])  # fmt: skip
OBJECTS = st.dictionaries(
    NAMES, SMALL | st.dictionaries(NAMES, SMALL, max_size=3) | st.lists(SMALL, max_size=3), max_size=5
)
ITEMS = st.lists(OBJECTS | SMALL, max_size=5) | SMALL | OBJECTS
BODIES = st.fixed_dictionaries({"results": ITEMS, "errors": ITEMS}) | OBJECTS | SMALL
TEXTS = SMALL | st.text(alphabet="0123456789-:.TZ+;eEnaif ", max_size=24)
ROWS = [{"email": "a@x.y", "city": "1"}, {"email": "b@x.y", "city": "0"}, {"email": "1", "city": "a@x.y"}]


@settings(max_examples=400, deadline=None)
@given(body=BODIES, op=st.sampled_from(list(Op)), known=st.booleans())
def test_any_answer_names_only_records_of_the_batch_and_each_once(body: Any, op: Op, known: bool) -> None:
    sent = batch(op, ROWS, ["7", "8", "9"] if known else None)
    try:
        found = asyncio.run(connector(orjson.dumps(body)).write(sent))
    except BackhaulError:
        return
    assert not found.everything
    keys = [item.key for item in found.items]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= set(sent.keys)
    if op is not Op.DELETE:
        results = body.get("results")
        told = results if isinstance(results, list) else []
        assert sum(isinstance(item, Delivered) for item in found.items) <= len(told)


@settings(max_examples=200, deadline=None)
@given(body=BODIES, by=st.sampled_from(["email", "hs_object_id", "city"]))
def test_any_answer_to_a_read_or_a_description_ends_well(body: Any, by: str) -> None:
    here = connector(orjson.dumps(body))
    for ask in (
        lambda: here.read("contacts", (by,), ["a@x.y", "1"], ["city"]),
        lambda: here.describe("contacts"),
    ):
        try:
            found = asyncio.run(ask())
        except BackhaulError:
            continue
        if isinstance(found, dict):
            assert set(found) <= {"a@x.y", "1"}


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from(list(FieldType)), native=st.sampled_from([None, "enumeration/checkbox"]), fold=st.booleans(),
    one=TEXTS, other=TEXTS,
)  # fmt: skip
def test_any_two_values_can_be_compared(
    kind: FieldType, native: str | None, fold: bool, one: Any, other: Any
) -> None:
    field = Field("f", kind, native_type=native, case_insensitive=fold)
    assert isinstance(connector().same(field, one, other), bool)
