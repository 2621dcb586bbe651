"""The HubSpot connector against the simulated HubSpot, and against answers made by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from backhaul.delivery.budget import Budget
from backhaul.delivery.door import Door
from backhaul.destinations.hubspot import HubSpot, HubSpotConfig
from backhaul.destinations.kit import Answer, Wire
from backhaul.errors import Halt, Refused, Throttled, Unsettled
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, FieldType, Op, Outcomes, Rejected, Retry


@asynccontextmanager
async def connected(url: str, **config: Any) -> AsyncIterator[HubSpot]:
    door = Door(Budget("crm", ()), 10.0)
    door.owner = destination = HubSpot(HubSpotConfig(access_token="t", base_url=url, **config), door)
    try:
        yield destination
    finally:
        await door.close()


@pytest.fixture(params=["v3", "2026-09"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def sandbox() -> HubSpotSandbox:
    sandbox = HubSpotSandbox(burst=10_000)
    sandbox.types["contacts"].properties["crm_id"] = Property("crm_id", unique=True, own=False)
    return sandbox


@pytest.fixture
async def crm(sandbox: HubSpotSandbox, version: str) -> AsyncIterator[HubSpot]:
    async with serve(sandbox) as url, connected(url, api_version=version) as destination:
        yield destination


def batch(
    op: Op,
    *rows: dict[str, Any],
    by: str = "email",
    remote_ids: list[str | None] | None = None,
    object: str = "contacts",
) -> RecordBatch:
    names = dict.fromkeys([by, *(name for row in rows for name in row)])
    return RecordBatch(op, object, (by,), tuple(map(Field, names)), list(rows), Wire.TEXT, remote_ids)


def person(name: str, **fields: Any) -> dict[str, Any]:
    return {"email": f"{name}@Example.com", **fields}


def by_key(outcomes: Outcomes) -> dict[str, Any]:
    assert not outcomes.everything
    assert len({item.key for item in outcomes.items}) == len(outcomes.items)
    return {item.key.partition("@")[0]: item for item in outcomes.items}


def held(sandbox: HubSpotSandbox) -> dict[str, dict[str, Any]]:
    return {
        record["email"].partition("@")[0]: dict(record) for record in sandbox.records()["contacts"].values()
    }


async def ids_of(crm: HubSpot, *names: str) -> list[str | None]:
    outcomes = by_key(await crm.write(batch(Op.UPSERT, *map(person, names))))
    return [outcomes[name].remote_id for name in names]


async def test_upsert_by_email_and_again(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    first = by_key(await crm.write(batch(Op.UPSERT, *(person(name, city="Oslo") for name in "abc"))))
    assert {type(item) for item in first.values()} == {Delivered}
    again = by_key(await crm.write(batch(Op.UPSERT, person("b", city=None), person("d", city="Rome"))))
    assert again["b"] == first["b"]
    assert {name: record["city"] for name, record in held(sandbox).items()} == {
        "a": "Oslo",
        "b": "",
        "c": "Oslo",
        "d": "Rome",
    }


async def test_a_bad_record_is_refused_beside_the_good_ones(crm: HubSpot) -> None:
    rows = [person("a"), {"email": "not an address"}, person("c", lifecyclestage="nope"), person("d")]
    outcomes = (await crm.write(batch(Op.UPSERT, *rows))).items
    assert {item.key: type(item) for item in outcomes} == {
        "a@Example.com": Delivered,
        "not an address": Rejected,
        "c@Example.com": Rejected,
        "d@Example.com": Delivered,
    }
    refused = {item.key: item for item in outcomes if isinstance(item, Rejected)}
    assert refused["not an address"].code == "VALIDATION_ERROR"
    assert "email" in refused["not an address"].message
    assert "nope was not one of the allowed options" in refused["c@Example.com"].message


async def test_what_the_answer_leaves_out_is_not_named(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.faults = Faults(omit=0.5, shuffle=True)
    names = [f"n{number}" for number in range(100)]
    outcomes = by_key(await crm.write(batch(Op.UPSERT, *map(person, names))))
    assert 20 < len(outcomes) < 80
    ids = {record["email"]: key for key, record in sandbox.records()["contacts"].items()}
    assert all(item == Delivered(item.key, ids[item.key.lower()]) for item in outcomes.values())


async def test_insert_and_its_conflict(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    made = by_key(await crm.write(batch(Op.INSERT, person("a", city="Oslo"), person("b"))))
    assert made["a"].remote_id != made["b"].remote_id
    assert held(sandbox)["a"]["city"] == "Oslo"
    with pytest.raises(Refused, match="already exists") as caught:
        await crm.write(batch(Op.INSERT, person("c"), person("a")))
    assert caught.value.code == "CONFLICT"
    assert set(held(sandbox)) == {"a", "b"}


async def test_update_by_email_goes_by_record_id(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    (a,) = await ids_of(crm, "a")
    outcomes = by_key(
        await crm.write(batch(Op.UPDATE, person("a", city="Rome"), person("gone", city="Rome")))
    )
    assert outcomes["a"] == Delivered("a@Example.com", a)
    assert (type(outcomes["gone"]), outcomes["gone"].code) == (Rejected, "OBJECT_NOT_FOUND")
    assert {name: record.get("city") for name, record in held(sandbox).items()} == {"a": "Rome"}
    assert by_key(await crm.write(batch(Op.UPDATE, person("gone", city="x")))).keys() == {"gone"}


async def test_update_by_a_unique_property_costs_one_request(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    await crm.write(batch(Op.UPSERT, {"crm_id": "7", "email": "a@example.com"}, by="crm_id"))
    before = len(sandbox.requests)
    outcomes = by_key(
        await crm.write(
            batch(Op.UPDATE, {"crm_id": "7", "city": "Rome"}, {"crm_id": "8", "city": "x"}, by="crm_id")
        )
    )
    assert len(sandbox.requests) == before + 1
    assert (type(outcomes["7"]), type(outcomes["8"])) == (Delivered, Rejected)
    assert held(sandbox)["a"]["city"] == "Rome"


async def test_a_known_record_changes_its_identifier(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    a, b = await ids_of(crm, "a", "b")
    before = len(sandbox.requests)
    outcomes = by_key(
        await crm.write(batch(Op.UPDATE, person("new", city="Rome"), person("b"), remote_ids=[a, b]))
    )
    assert outcomes["new"] == Delivered("new@Example.com", a)
    assert len(sandbox.requests) == before + 1
    assert set(held(sandbox)) == {"new", "b"}


async def test_update_by_record_id(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    (a,) = await ids_of(crm, "a")
    outcomes = by_key(
        await crm.write(
            batch(
                Op.UPDATE,
                {"hs_object_id": a, "city": "Rome"},
                {"hs_object_id": "1", "city": "x"},
                by="hs_object_id",
            )
        )
    )
    assert (outcomes[str(a)], type(outcomes["1"])) == (Delivered(str(a), a), Rejected)
    assert (await crm.read("contacts", ("hs_object_id",), [str(a), "1"], ["city"]))[str(a)]["city"] == "Rome"
    with pytest.raises(Halt, match="record ids itself"):
        await crm.write(batch(Op.UPSERT, {"hs_object_id": "1"}, by="hs_object_id"))


async def test_delete_known_unknown_and_absent(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    a, b, _ = await ids_of(crm, "a", "b", "c")
    rows = [person("a"), person("b"), person("gone")]
    outcomes = by_key(await crm.write(batch(Op.DELETE, *rows, remote_ids=[a, None, None])))
    assert outcomes == {
        "a": Delivered("a@Example.com", a),
        "b": Delivered("b@Example.com", b),
        "gone": Delivered("gone@Example.com"),
    }
    assert set(held(sandbox)) == {"c"}
    before = len(sandbox.requests)
    assert by_key(await crm.write(batch(Op.DELETE, *rows, remote_ids=[a, b, "1"]))).keys() == {
        "a",
        "b",
        "gone",
    }
    assert len(sandbox.requests) == before + 1


async def test_a_delete_that_could_not_be_looked_up_is_not_acknowledged(
    crm: HubSpot, sandbox: HubSpotSandbox
) -> None:
    await ids_of(crm, "a", "b")
    sandbox.faults = Faults(omit=1.0, reads=True)
    assert by_key(await crm.write(batch(Op.DELETE, person("a"), person("gone")))).keys() == {"gone"}
    assert set(held(sandbox)) == {"a", "b"}


@pytest.mark.parametrize("status", [207, 404])
async def test_nothing_found(crm: HubSpot, sandbox: HubSpotSandbox, status: int) -> None:
    sandbox.nothing_found = status
    assert await crm.read("contacts", ("email",), ["a@example.com"], ["city"]) == {}
    assert by_key(await crm.write(batch(Op.DELETE, person("a")))).keys() == {"a"}


async def test_read_gives_the_keys_as_they_were_asked(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    await crm.write(batch(Op.UPSERT, person("A", city="Oslo"), person("b")))
    found = await crm.read(
        "contacts", ("email",), ["A@Example.com", "b@example.com", "gone@example.com"], ["email", "city"]
    )
    assert set(found) == {"A@Example.com", "b@example.com"}
    assert found["A@Example.com"]["city"] == "Oslo"
    assert not found["b@example.com"]["city"]


async def test_describe(crm: HubSpot) -> None:
    schema = await crm.describe("contacts")
    email, stage = schema.fields["email"], schema.fields["lifecyclestage"]
    assert (email.unique, email.case_insensitive, email.writable, email.max_length) == (
        True,
        True,
        True,
        65_536,
    )
    assert stage.choices is not None
    assert "lead" in stage.choices
    assert (schema.fields["hs_buying_role"].choices, schema.fields["hubspot_owner_id"].choices) == (
        None,
        None,
    )
    assert not schema.fields["createdate"].writable
    assert not schema.fields["num_associated_deals"].writable
    assert (schema.fields["hs_object_id"].unique, schema.fields["hs_object_id"].writable) == (True, False)
    assert schema.fields["crm_id"].unique
    deals = (await crm.describe("deals")).fields
    assert (deals["amount"].type, deals["closedate"].type, deals["dealname"].unique) == (
        FieldType.NUMBER,
        FieldType.DATETIME,
        False,
    )
    assert "external_id" in (await crm.describe("p62515_assets")).fields


async def test_options_that_live_elsewhere_are_no_choices() -> None:
    owner = {"name": "owner", "type": "enumeration", "fieldType": "select", "options": [{"value": "1"}]}
    archived = {"name": "old", "type": "string", "fieldType": "text", "archived": True}
    odd = {"name": "odd", "type": "of_next_year", "modificationMetadata": None, "options": None}
    results = [owner, {**owner, "name": "elsewhere", "externalOptions": True}, archived, odd]
    async with answering(lambda _: web.json_response({"results": results})) as crm:
        fields = (await crm.describe("contacts")).fields
    assert (fields["owner"].choices, fields["elsewhere"].choices) == (("1",), None)
    assert set(fields) == {"owner", "elsewhere", "odd", "hs_object_id"}
    assert (fields["odd"].type, fields["odd"].writable) == (FieldType.STRING, True)


async def test_an_object_that_is_not_there(crm: HubSpot) -> None:
    with pytest.raises(Halt, match="nope"):
        await crm.describe("nope")
    with pytest.raises(Halt, match="nope"):
        await crm.write(batch(Op.UPSERT, person("a"), object="nope"))


async def test_an_unknown_property_refuses_the_request(crm: HubSpot) -> None:
    with pytest.raises(Refused, match="does not exist") as caught:
        await crm.write(batch(Op.UPSERT, person("a", nope="x")))
    assert caught.value.code == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Faults(throttle=1.0, retry_after=2.5), Throttled),
        (Faults(error=1.0), Unsettled),
        (Faults(reset_before=1.0), Unsettled),
        (Faults(reset_after=1.0), Unsettled),
        (Faults(html=1.0), Unsettled),
        (Faults(truncate=1.0), Unsettled),
        (Faults(expire_after=1), Halt),
        (Faults(poison_key="a@Example.com"), Refused),
        (Faults(refuse_all="X"), Refused),
    ],
)
async def test_what_is_raised_for_a_fault(
    crm: HubSpot, sandbox: HubSpotSandbox, fault: Faults, error: type[Exception]
) -> None:
    await crm.describe("contacts")
    sandbox.faults = fault
    await crm.describe("contacts")
    with pytest.raises(error) as caught:
        await crm.write(batch(Op.UPSERT, person("a")))
    if isinstance(caught.value, Throttled):
        assert caught.value.after == 2.5


async def test_limits_of_the_account(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.burst.count, sandbox.burst.per = 1, 4.0
    await crm.describe("contacts")
    with pytest.raises(Throttled) as caught:
        await crm.describe("contacts")
    assert (caught.value.code, caught.value.after) == ("TEN_SECONDLY_ROLLING", 4.0)
    sandbox.daily.used = sandbox.daily.count
    with pytest.raises(Throttled) as caught:
        await crm.describe("contacts")
    assert caught.value.code == "DAILY"
    assert caught.value.after is not None
    assert 0 < caught.value.after <= 86_400


async def test_a_missing_scope_is_named(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    sandbox.missing_scopes = frozenset({"crm.objects.contacts.write"})
    with pytest.raises(Halt) as caught:
        await crm.write(batch(Op.UPSERT, person("a")))
    assert "crm.objects.contacts.write" in str(caught.value.hint)
    sandbox.token = "another"
    with pytest.raises(Halt, match="access token"):
        await crm.describe("contacts")


def test_configuration() -> None:
    with pytest.raises(ValidationError):
        HubSpotConfig(access_token="t", api_version="v4")
    assert "secret-token" not in repr(HubSpotConfig(access_token="secret-token"))


Handler = Callable[[dict[str, Any]], web.Response]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[HubSpot]:
    """A HubSpot whose every answer is what the handler makes of the body."""

    async def answer(request: web.Request) -> web.Response:
        return handler(await request.json() if request.method == "POST" else {})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with connected(f"http://127.0.0.1:{runner.addresses[0][1]}") as destination:
            yield destination
    finally:
        await runner.cleanup()


async def written(
    body: Any, *rows: dict[str, Any], op: Op = Op.UPSERT, status: int = 200, **options: Any
) -> dict[str, Any]:
    async with answering(lambda _: web.Response(body=orjson.dumps(body), status=status)) as crm:
        return by_key(await crm.write(batch(op, *rows, **options)))


def failed(message: str = "no", category: str = "VALIDATION_ERROR", **context: list[str]) -> dict[str, Any]:
    return {
        "status": "error",
        "category": category,
        "message": message,
        "context": context,
        "errors": [],
        "links": {},
    }


async def test_results_without_traces_are_found_by_their_identifier() -> None:
    results = [
        {"id": "2", "properties": {"email": "b@example.com", "city": "a@example.com"}},
        {"id": "1", "properties": {"email": "a@example.com"}},
    ]
    outcomes = await written({"results": results}, person("a"), person("b"), person("c"))
    assert {name: item.remote_id for name, item in outcomes.items()} == {"a": "1", "b": "2"}


async def test_a_record_id_is_never_taken_for_an_identifier() -> None:
    results = [{"id": "7", "properties": {"crm_id": "8"}}]
    outcomes = await written({"results": results}, {"crm_id": "7"}, {"crm_id": "8"}, by="crm_id")
    assert outcomes == {"8": Delivered("8", "7")}


async def test_a_trace_that_is_none_of_ours_names_nobody() -> None:
    results = [
        {"id": "1", "objectWriteTraceId": trace, "properties": {"email": "a@example.com"}}
        for trace in ("9", "x", "-1")
    ]
    assert await written({"results": results}, person("a"), person("b")) == {}


async def test_a_record_in_both_lists_is_not_delivered() -> None:
    body = {
        "results": [{"id": "1", "objectWriteTraceId": "0", "properties": {}}],
        "errors": [failed(objectWriteTraceId=["0"])],
    }
    assert type((await written(body, person("a")))["a"]) is Rejected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"results": [], "errors": []},
        {"results": None},
        {"results": "x", "errors": {}},
        {"results": ["x"]},
    ],
)
async def test_an_answer_that_says_nothing_delivers_nothing(body: Any) -> None:
    assert await written(body, person("a"), person("b"), status=207) == {}


@pytest.mark.parametrize("body", [[], "x", None, 1])
async def test_an_answer_that_is_no_object_settles_nothing(body: Any) -> None:
    with pytest.raises(Unsettled):
        await written(body, person("a"))


async def test_a_200_that_is_an_error_is_a_refusal() -> None:
    with pytest.raises(Refused, match="boo") as caught:
        await written({"status": "error", "message": "boo", "category": "VALIDATION_ERROR"}, person("a"))
    assert caught.value.code == "VALIDATION_ERROR"


async def test_an_error_that_names_nobody_is_of_the_one_that_is_left() -> None:
    body = {"results": [{"id": "1", "objectWriteTraceId": "0", "properties": {}}], "errors": [failed("bad")]}
    assert (await written(body, person("a"), person("b")))["b"] == Rejected(
        "b@Example.com", "VALIDATION_ERROR", "bad"
    )
    assert set(await written(body, person("a"), person("b"), person("c"))) == {"a"}, (
        "two are left, one was refused"
    )


async def test_errors_are_found_by_the_ids_they_name() -> None:
    outcomes = await written(
        {"results": [], "errors": [failed(ids=["B@example.com"])]}, person("a"), person("b")
    )
    assert set(outcomes) == {"b"}


async def test_an_error_of_the_moment_rejects_nobody() -> None:
    body = {
        "results": [],
        "errors": [
            failed("busy", "RATE_LIMITS", objectWriteTraceId=["0"]),
            failed("oops", "INTERNAL_ERROR", objectWriteTraceId=["1"]),
        ],
    }
    assert await written(body, person("a"), person("b")) == {"a": Retry("a@Example.com", "busy")}


async def test_an_archive_with_errors_is_read() -> None:
    body = {"errors": [failed("locked", ids=["2"])]}
    outcomes = await written(body, person("a"), person("b"), op=Op.DELETE, status=207, remote_ids=["1", "2"])
    assert outcomes == {"b": Rejected("b@Example.com", "VALIDATION_ERROR", "locked")}


async def test_a_contact_is_found_by_its_other_emails() -> None:
    found = {
        "id": "5",
        "properties": {
            "email": "main@example.com",
            "hs_additional_emails": "old@example.com;a@example.com",
            "city": "Oslo",
        },
    }
    async with answering(lambda _: web.json_response({"results": [found]})) as crm:
        held = await crm.read("contacts", ("email",), ["a@Example.com"], ["city"])
    assert held["a@Example.com"]["city"] == "Oslo"


async def test_a_read_that_failed_in_part_says_so() -> None:
    async with answering(
        lambda _: web.json_response(
            {"results": [], "errors": [failed("busy", "RATE_LIMITS", ids=["a@example.com"])]}
        )
    ) as crm:
        with pytest.raises(Unsettled, match="busy"):
            await crm.read("contacts", ("email",), ["a@example.com"], ["city"])


@pytest.mark.parametrize(
    ("status", "headers", "after"),
    [
        (423, {}, 2.0),
        (423, {"retry-after": "7"}, 7.0),
        (477, {}, 10.0),
        (477, {"retry-after": "30"}, 30.0),
        (429, {}, 10.0),
        (429, {"x-hubspot-ratelimit-interval-milliseconds": "1000"}, 1.0),
        (429, {"retry-after": "0"}, 0.0),
    ],
)
def test_how_long_it_waits(status: int, headers: dict[str, str], after: float) -> None:
    error = HubSpot(HubSpotConfig(access_token="t"), None).classify(Answer(status, headers, b""))  # type: ignore[arg-type]
    assert isinstance(error, Throttled)
    assert error.after == after


@pytest.mark.parametrize(
    ("kind", "native", "sent", "held", "same"),
    [
        (FieldType.NUMBER, "number/number", "12.50", "12.5", True),
        (FieldType.NUMBER, "number/number", "12.5", "12.6", False),
        (FieldType.DATE, "date/date", "2026-02-28", "1772236800000", True),
        (FieldType.DATE, "date/date", "2026-02-28", "2026-03-01", False),
        (
            FieldType.DATETIME,
            "datetime/date",
            "2026-02-28T00:00:00.123456Z",
            "2026-02-28T00:00:00.123Z",
            True,
        ),
        (FieldType.DATETIME, "datetime/date", "2026-02-28T00:00:00Z", "2026-02-28T00:00:01Z", False),
        (FieldType.DATETIME, "datetime/date", "2026-02-28T00:00:00Z", "rubbish", False),
        (FieldType.STRING, "enumeration/checkbox", "a;b", "b;a", True),
        (FieldType.STRING, "enumeration/select", "a;b", "b;a", False),
        (FieldType.BOOLEAN, "bool/booleancheckbox", True, "true", True),
        (FieldType.BOOLEAN, "bool/booleancheckbox", "false", "true", False),
        (FieldType.STRING, "string/text", None, "", True),
        (FieldType.STRING, "string/text", "", None, True),
        (FieldType.STRING, "string/text", "x", None, False),
        (FieldType.STRING, "string/text", "1.0", "1", False),
    ],
)
def test_the_same_value(kind: FieldType, native: str, sent: Any, held: Any, same: bool) -> None:
    destination = HubSpot(HubSpotConfig(access_token="t"), None)  # type: ignore[arg-type]
    assert destination.same(Field("f", kind, native_type=native), sent, held) is same


def test_an_email_is_the_same_in_any_case() -> None:
    destination = HubSpot(HubSpotConfig(access_token="t"), None)  # type: ignore[arg-type]
    assert destination.same(
        Field("email", FieldType.STRING, case_insensitive=True), "Ada@Example.com", "ada@example.com"
    )
