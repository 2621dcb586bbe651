"""The connector through its own door, against the simulated account, at both path shapes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

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
        door.owner = HubSpot(HubSpotConfig(access_token="local", base_url=url, api_version=request.param), door)
        yield door.owner
        await door.close()


def batch(op: Op, rows: Sequence[Row], ids: Sequence[str | None] | None = None, object: str = "contacts") -> RecordBatch:
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


async def test_an_upsert_creates_then_updates_whatever_the_case(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    first = await written(hubspot, Op.UPSERT, [ADA, BOB])
    second = await written(hubspot, Op.UPSERT, [{"email": "ADA@example.com", "city": "London"}])
    assert set(first) == {"Ada@Example.com", "bob@example.com"}
    assert id_of(first["Ada@Example.com"]) == id_of(second["ADA@example.com"])
    assert {"email": "ada@example.com", "firstname": "Ada", "city": "London"} in held(sandbox)
    assert len(held(sandbox)) == 2


async def test_what_is_left_out_is_kept_and_what_is_empty_is_cleared(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    await written(hubspot, Op.UPSERT, [{**ADA, "city": "London", "phone": "1"}])
    await written(hubspot, Op.UPSERT, [{"email": "ada@example.com", "city": None}])
    (record,) = held(sandbox)
    assert (record["city"], record["phone"], record["firstname"]) == ("", "1", "Ada")


async def test_one_bad_record_does_not_take_the_others_along(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    found = await written(hubspot, Op.UPSERT, [ADA, {"email": "nobody", "firstname": "x"}, BOB])
    assert isinstance(found["nobody"], Rejected)
    assert found["nobody"].code == "VALIDATION_ERROR"
    assert "nobody is invalid" in found["nobody"].message
    assert [type(found[row["email"]]) for row in (ADA, BOB)] == [Delivered, Delivered]
    assert len(held(sandbox)) == 2


async def test_results_in_any_order_belong_to_their_own_records(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.faults = Faults(shuffle=True, refuse=0.2)
    rows = [{"email": f"u{number}@example.com", "firstname": str(number)} for number in range(100)]
    found = await written(hubspot, Op.UPSERT, rows)
    assert set(found) == {row["email"] for row in rows}
    truth = {record.properties["email"]: key for key, record in sandbox.types["contacts"].records.items()}
    assert 0 < len(truth) < 100
    assert {key: id_of(item) for key, item in found.items() if isinstance(item, Delivered)} == truth


async def test_a_record_in_neither_list_is_not_named(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.faults = Faults(omit=0.5)
    rows = [{"email": f"u{number}@example.com"} for number in range(100)]
    found = await written(hubspot, Op.UPSERT, rows)
    assert 0 < len(found) < 100
    assert all(isinstance(item, Delivered) for item in found.values())
    assert len(held(sandbox)) == 100


async def test_numbers_that_look_like_places_are_not_taken_for_them(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
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


@pytest.mark.parametrize(("object", "identifier", "here", "gone"), [
    ("contacts", "email", "Ada@example.com", "gone@example.com"), ("2-1001", "external_id", "a-1", "a-2"),
])  # fmt: skip
async def test_an_update_changes_what_is_there_and_makes_nothing(
    hubspot: HubSpot, sandbox: HubSpotSandbox, object: str, identifier: str, here: str, gone: str
) -> None:
    name = "city" if object == "contacts" else "name"
    await written(hubspot, Op.UPSERT, [{identifier: here}], object=object)
    rows = [{identifier: gone, name: "x"}, {identifier: here, name: "y"}]
    found = await written(hubspot, Op.UPDATE, rows, object=object)
    assert isinstance(found[here], Delivered)
    assert isinstance(found[gone], Rejected)
    assert found[gone].code == "OBJECT_NOT_FOUND"
    assert [record[name] for record in held(sandbox, object)] == ["y"]


async def test_known_and_unknown_record_ids_in_one_update(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    made = await written(hubspot, Op.UPSERT, [ADA, BOB])
    rows = [{"email": "bob@example.com", "city": "Rome"}, {"email": "ada@lovelace.org", "city": "Oslo"}]
    found = await written(hubspot, Op.UPDATE, rows, [None, id_of(made["Ada@Example.com"])])
    assert {key: id_of(item) for key, item in found.items()} == {
        "bob@example.com": id_of(made["bob@example.com"]), "ada@lovelace.org": id_of(made["Ada@Example.com"]),
    }  # fmt: skip
    cities = {record["email"]: record["city"] for record in held(sandbox)}
    assert cities == {"bob@example.com": "Rome", "ada@lovelace.org": "Oslo"}


async def test_records_can_go_by_their_record_id(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    made = await written(hubspot, Op.UPSERT, [ADA])
    key = id_of(made["Ada@Example.com"])
    found = await written(hubspot, Op.UPDATE, [{"hs_object_id": key, "city": "Rome"}])
    assert id_of(found[key]) == key
    assert (await hubspot.read("contacts", ("hs_object_id",), [key, "404"], ["city"]))[key]["city"] == "Rome"
    assert isinstance((await written(hubspot, Op.DELETE, [{"hs_object_id": key}]))[key], Delivered)
    assert not held(sandbox)


async def test_an_insert_that_exists_refuses_the_request(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    assert id_of((await written(hubspot, Op.INSERT, [ADA]))["Ada@Example.com"])
    with pytest.raises(Refused, match="already exists") as caught:
        await written(hubspot, Op.INSERT, [BOB, ADA])
    assert caught.value.code == "CONFLICT"
    assert len(held(sandbox)) == 1


async def test_a_delete_takes_known_and_unknown_ids_and_what_is_gone(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    made = await written(hubspot, Op.UPSERT, [ADA, BOB, {"email": "cy@example.com"}])
    rows = [{"email": "Ada@Example.com"}, {"email": "BOB@example.com"}, {"email": "gone@example.com"}]
    found = await written(hubspot, Op.DELETE, rows, [id_of(made["Ada@Example.com"]), None, None])
    assert {key: type(item) for key, item in found.items()} == {row["email"]: Delivered for row in rows}
    assert [record["email"] for record in held(sandbox)] == ["cy@example.com"]
    again = await written(hubspot, Op.DELETE, rows)
    assert {type(item) for item in again.values()} == {Delivered}


async def test_a_delete_whose_look_up_says_nothing_of_a_record_deletes_and_claims_nothing(
    hubspot: HubSpot, sandbox: HubSpotSandbox
) -> None:
    await written(hubspot, Op.UPSERT, [ADA, BOB])
    sandbox.faults = Faults(omit=1.0, reads=True)
    assert not await written(hubspot, Op.DELETE, [{"email": ADA["email"]}, {"email": BOB["email"]}])
    assert len(held(sandbox)) == 2


async def test_records_are_read_by_the_key_as_it_was_sent(hubspot: HubSpot) -> None:
    await written(hubspot, Op.UPSERT, [{**ADA, "city": None}, BOB])
    read = await hubspot.read("contacts", ("email",), ["Ada@Example.com", "gone@example.com"], ["firstname", "city"])
    assert list(read) == ["Ada@Example.com"]
    record = read["Ada@Example.com"]
    assert (record["email"], record["firstname"], record["city"]) == ("ada@example.com", "Ada", None)


async def test_fields_are_what_the_account_says(hubspot: HubSpot) -> None:
    schema = await hubspot.describe("contacts")
    email, stage = schema.fields["email"], schema.fields["lifecyclestage"]
    assert (email.unique, email.case_insensitive, email.writable) == (True, True, True)
    assert stage.choices is not None
    assert "customer" in stage.choices
    assert schema.fields["createdate"].type is FieldType.DATETIME
    assert not schema.fields["createdate"].writable
    assert schema.fields["hs_object_id"].unique
    assert (await hubspot.describe("p62515_assets")).fields["external_id"].unique
    with pytest.raises(Halt, match="nonsense"):
        await hubspot.describe("nonsense")


async def test_a_property_that_does_not_exist_refuses_the_request(hubspot: HubSpot) -> None:
    with pytest.raises(Refused, match="nope") as caught:
        await written(hubspot, Op.UPSERT, [{**ADA, "nope": "x"}])
    assert caught.value.code == "VALIDATION_ERROR"


@pytest.mark.parametrize(("faults", "error"), [
    (Faults(throttle=1.0, retry_after=7), Throttled), (Faults(throttle_silently=1.0), Throttled), (Faults(error=1.0), Unsettled),
    (Faults(reset_before=1.0), Unsettled), (Faults(reset_after=1.0), Unsettled), (Faults(html=1.0), Unsettled),
    (Faults(truncate=1.0), Unsettled), (Faults(expire_after=1), Halt), (Faults(refuse_all="VALIDATION_ERROR"), Refused),
])  # fmt: skip
async def test_a_fault_of_the_whole_request_has_its_type(
    hubspot: HubSpot, sandbox: HubSpotSandbox, faults: Faults, error: type[BackhaulError]
) -> None:
    await written(hubspot, Op.UPSERT, [BOB])
    sandbox.faults = faults
    if faults.expire_after:
        await written(hubspot, Op.UPSERT, [BOB])
    with pytest.raises(error) as caught:
        await written(hubspot, Op.UPSERT, [ADA])
    assert type(caught.value) is error
    assert len(held(sandbox)) == (2 if faults.reset_after or faults.truncate else 1)


async def test_limits_say_how_long_to_wait(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.burst.count = 1
    await written(hubspot, Op.UPSERT, [ADA])
    with pytest.raises(Throttled) as caught:
        await written(hubspot, Op.UPSERT, [ADA])
    assert caught.value.after == 10
    sandbox.burst.count, sandbox.daily.used = 100, sandbox.daily.count
    with pytest.raises(Throttled) as caught:
        await written(hubspot, Op.UPSERT, [ADA])
    assert caught.value.after == pytest.approx(86_400 - time.time() % 86_400, abs=5)


async def test_a_missing_scope_is_named(hubspot: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.missing_scopes = frozenset({"crm.objects.contacts.write"})
    with pytest.raises(Halt) as caught:
        await written(hubspot, Op.UPSERT, [ADA])
    assert "crm.objects.contacts.write" in str(caught.value.hint)


def connector() -> HubSpot:
    return HubSpot(HubSpotConfig(access_token="very-secret"), Door(Budget("crm", ()), 1.0))


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
