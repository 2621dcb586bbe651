"""The HubSpot connector against the simulated HubSpot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hubspot_calls import answering, batch, by_key, connected, person
from pydantic import ValidationError

from backhaul.destinations.hubspot import HubSpot, HubSpotConfig
from backhaul.destinations.kit import Answer, Wire
from backhaul.errors import Halt, Refused, Throttled, Unsettled
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.types import Delivered, Field, FieldType, Gone, Op, Rejected


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
    assert (type(outcomes["gone"]), outcomes["gone"].code) == (Gone, "OBJECT_NOT_FOUND")
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
    assert (type(outcomes["7"]), type(outcomes["8"])) == (Delivered, Gone)
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
    assert (outcomes[str(a)], type(outcomes["1"])) == (Delivered(str(a), a), Gone)
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
        (FieldType.ARRAY, "enumeration/checkbox", '["a","b"]', "b;a", True),
        (FieldType.ARRAY, "enumeration/checkbox", '["a"]', "b;a", False),
        (FieldType.ARRAY, "enumeration/checkbox", "[]", None, True),
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


async def test_several_choices_are_a_list_or_a_text(crm: HubSpot, sandbox: HubSpotSandbox) -> None:
    field = (await crm.describe("contacts")).fields["hs_buying_role"]
    rows = [person("a", hs_buying_role=["CHAMPION", "BLOCKER"]), person("b", hs_buying_role="CHAMPION;END_USER"),
            person("c", hs_buying_role=[]), person("d", hs_buying_role=["BOSS"])]  # fmt: skip
    sent = RecordBatch(Op.UPSERT, "contacts", ("email",), (Field("email"), field), rows, Wire.TEXT)
    outcomes = {item.key[0]: item for item in (await crm.write(sent)).items}
    assert [type(outcomes[name]) for name in "abcd"] == [Delivered, Delivered, Delivered, Rejected]
    roles = {name: record["hs_buying_role"] for name, record in held(sandbox).items()}
    assert roles == {"a": "CHAMPION;BLOCKER", "b": "CHAMPION;END_USER", "c": ""}


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        ({}, [(100, 10), (200_000, 86_400)]),
        ({"tier": "professional"}, [(190, 10), (520_000, 86_400)]),
        ({"tier": "enterprise", "share": "100%"}, [(190, 10), (1_000_000, 86_400)]),
        ({"tier": "enterprise", "rate_limits": ["250/10s"]}, [(250, 10)]),
    ],
)
async def test_the_plan_sets_the_limits(config: dict[str, Any], rates: list[tuple[int, float]]) -> None:
    async with connected("http://127.0.0.1:9", **config) as crm:
        assert [(rate.count, rate.per) for rate in crm.limits if not rate.endpoint] == rates


async def test_an_oauth_app_has_limits_of_its_own() -> None:
    app = {"access_token": None, "client_id": "i", "client_secret": "s", "refresh_token": "r"}
    async with connected("http://127.0.0.1:9", **app) as crm:
        assert [(rate.count, rate.per) for rate in crm.limits if not rate.endpoint] == [(110, 10)]


async def test_associations_have_a_limit_of_their_own_besides() -> None:
    """From memory, so that it can be set."""
    async with connected("http://127.0.0.1:9", endpoint_limits={"associations": ["5/1s"]}) as crm:
        assert [(rate.count, rate.per) for rate in crm.limits if rate.endpoint] == [(5, 1)]
        for version in ("v3", "2026-09"):
            crm = HubSpot(crm.config.model_copy(update={"api_version": version}), crm.http)
            path = crm.path("associations", "contacts", "companies", "batch", "create")
            assert crm.endpoints("POST", path) == ("associations", "")
            assert crm.endpoints("GET", crm.path("objects", "contacts")) == ("",)
