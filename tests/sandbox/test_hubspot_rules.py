"""What the simulated HubSpot takes, refuses and keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults, serve

V3, DATED = "/crm/v3/objects", "/crm/objects/2026-09"


class Account:
    """The simulation and a client of it."""

    def __init__(self, sandbox: HubSpotSandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox, self.session = sandbox, session

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        async with self.session.request(method, path, json=body, **options) as answer:
            text = await answer.read()
            return answer.status, (await answer.json()) if answer.content_type == "application/json" else text

    async def batch(
        self, action: str, *inputs: dict[str, Any], at: str = f"{V3}/contacts", **more: Any
    ) -> tuple[int, Any]:
        return await self.call("POST", f"{at}/batch/{action}", {"inputs": list(inputs), **more})

    async def upsert(self, email: str, **properties: Any) -> tuple[int, Any]:
        return await self.batch("upsert", {"idProperty": "email", "id": email, "properties": properties})

    async def made(self, email: str, **properties: Any) -> str:
        """A contact's id."""
        status, body = await self.upsert(email, **properties)
        assert status == 200, body
        return str(body["results"][0]["id"])

    async def held(self, email: str, *names: str) -> dict[str, Any]:
        _, body = await self.batch("read", {"id": email}, idProperty="email", properties=list(names))
        return {name: body["results"][0]["properties"][name] for name in names}


@pytest.fixture
async def account() -> AsyncIterator[Account]:
    sandbox = HubSpotSandbox(burst=1000)
    properties = sandbox.types["contacts"].properties
    for name, kind, field_type in (
        ("score", "number", "number"),
        ("born", "date", "date"),
        ("seen", "datetime", "date"),
        ("paying", "bool", "booleancheckbox"),
    ):
        properties[name] = Property(name, kind, field_type, own=False)
    properties["crm_id"] = Property("crm_id", unique=True, own=False)
    async with (
        serve(sandbox) as url,
        aiohttp.ClientSession(url, headers={"Authorization": "Bearer t"}) as session,
    ):
        yield Account(sandbox, session)


@pytest.mark.parametrize(
    ("name", "sent", "stored"),
    [
        ("score", "12.50", "12.50"),
        ("score", "-1000", "-1000"),
        ("score", 7, "7"),
        ("born", "2026-02-28", "2026-02-28"),
        ("born", "1772236800000", "2026-02-28"),
        ("born", "2026-02-28T00:00:00Z", "2026-02-28"),
        ("seen", "2026-02-28T01:00:00+01:00", "2026-02-28T00:00:00.000Z"),
        ("seen", "1772236800123", "2026-02-28T00:00:00.123Z"),
        ("paying", "true", "true"),
        ("paying", True, "true"),
        ("lifecyclestage", "lead", "lead"),
        ("hs_buying_role", "CHAMPION;BLOCKER", "CHAMPION;BLOCKER"),
        ("city", "x" * 65_536, "x" * 65_536),
        ("city", "", None),
    ],
)
async def test_values_that_are_taken(account: Account, name: str, sent: Any, stored: str | None) -> None:
    await account.made("a@example.com", **{name: sent})
    assert await account.held("a@example.com", name) == {name: stored}


@pytest.mark.parametrize(
    ("name", "sent", "code"),
    [
        ("score", "1,000", "INVALID_NUMBER"),
        ("score", "NaN", "INVALID_NUMBER"),
        ("born", "2026-02-30", "INVALID_DATE"),
        ("born", "1772236800001", "INVALID_DATE"),
        ("born", "28.02.2026", "INVALID_DATE"),
        ("born", "2026-02-28T00:00:00+01:00", "INVALID_DATE"),
        ("seen", "yesterday", "INVALID_DATETIME"),
        ("paying", "yes", "INVALID_BOOL"),
        ("lifecyclestage", "Lead", "INVALID_OPTION"),
        ("hs_buying_role", "CHAMPION;BOSS", "INVALID_OPTION"),
        ("city", "x" * 65_537, "TOO_LONG"),
        ("email", "b at c", "INVALID_EMAIL"),
    ],
)
async def test_values_that_refuse_their_record_alone(
    account: Account, name: str, sent: str, code: str
) -> None:
    bad = {
        "idProperty": "email",
        "id": "a@example.com",
        "objectWriteTraceId": "bad",
        "properties": {name: sent},
    }
    good = {"idProperty": "email", "id": "b@example.com", "objectWriteTraceId": "good", "properties": {}}
    status, body = await account.batch("upsert", bad, good)
    assert (status, body["numErrors"]) == (207, 1)
    assert [item["objectWriteTraceId"] for item in body["results"]] == ["good"]
    (error,) = body["errors"]
    assert error["category"] == "VALIDATION_ERROR"
    assert error["context"] == {"objectWriteTraceId": ["bad"]}
    assert error["errors"][0]["code"] == code
    assert len(account.sandbox.records()["contacts"]) == 1


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"nope": "x"}, "PROPERTY_DOESNT_EXIST"),
        ({"createdate": "1"}, "READ_ONLY_VALUE"),
        ({"num_associated_deals": "1"}, "READ_ONLY_VALUE"),
        ({"city": None}, "INVALID_TYPE"),
        ({"city": ["x"]}, "INVALID_TYPE"),
    ],
)
async def test_properties_that_refuse_the_request(
    account: Account, properties: dict[str, Any], code: str
) -> None:
    good = {"idProperty": "email", "id": "b@example.com", "properties": {}}
    status, body = await account.batch(
        "upsert", good, {"idProperty": "email", "id": "a@example.com", "properties": properties}
    )
    assert (status, body["category"], body["errors"][0]["code"]) == (400, "VALIDATION_ERROR", code)
    assert not account.sandbox.records()["contacts"]


async def test_an_email_is_kept_in_lower_case_and_found_in_any(account: Account) -> None:
    first = await account.made("Ada@Example.com", city="Oslo")
    assert await account.made(" aDA@example.COM", jobtitle="Countess") == first
    assert await account.held("ADA@example.com", "email", "city") == {
        "email": "ada@example.com",
        "city": "Oslo",
    }


async def test_a_written_blank_is_told_as_blank_and_read_as_null(account: Account) -> None:
    await account.made("a@example.com", city="Oslo")
    _, body = await account.upsert("a@example.com", city="")
    assert body["results"][0]["properties"]["city"] == ""
    assert await account.held("a@example.com", "city") == {"city": None}


async def test_keys_outside_properties_are_dropped_in_silence(account: Account) -> None:
    status, _ = await account.batch(
        "upsert", {"idProperty": "email", "id": "a@example.com", "city": "Oslo", "properties": {}}
    )
    assert status == 200
    assert await account.held("a@example.com", "city") == {"city": None}


async def test_a_dated_version_answers_200_with_the_same_errors(account: Account) -> None:
    inputs = [
        {"idProperty": "email", "id": "a@example.com", "properties": {}},
        {"idProperty": "email", "id": "bad", "properties": {}},
    ]
    status, body = await account.batch("upsert", *inputs, at=f"{DATED}/contacts")
    assert (status, len(body["results"]), body["numErrors"]) == (200, 1, 1)
    assert body["errors"][0]["context"] == {"ids": ["bad"]}
    assert (await account.call("GET", "/crm/properties/2026-09/contacts"))[0] == 200
    assert (await account.call("GET", "/crm/properties/2020-01/contacts"))[0] == 404


async def test_a_unique_value_has_one_owner_until_it_is_archived(account: Account) -> None:
    first = await account.made("a@example.com", crm_id="7")
    status, body = await account.upsert("b@example.com", crm_id="7")
    assert (status, body["errors"][0]["errors"][0]["code"]) == (207, "CONFLICTING_UNIQUE_VALUE")
    assert (await account.batch("archive", {"id": first}, {"id": "999999"}))[0] == 204
    assert await account.made("b@example.com", crm_id="7") != first
    assert await account.made("a@example.com") != first


async def test_a_unique_value_follows_its_record(account: Account) -> None:
    first = await account.made("a@example.com", crm_id="7")
    assert (await account.batch("update", {"id": first, "properties": {"crm_id": "8"}}))[0] == 200
    assert await account.made("b@example.com", crm_id="7") != first
    status, body = await account.batch(
        "update", {"idProperty": "crm_id", "id": "8", "properties": {"city": "Rome"}}
    )
    assert (status, body["results"][0]["id"]) == (200, first)


async def test_create_names_the_first_that_exists_and_creates_nothing(account: Account) -> None:
    first = await account.made("a@example.com")
    await account.made("b@example.com")
    status, body = await account.batch(
        "create", *({"properties": {"email": f"{name}@example.com"}} for name in "cab")
    )
    assert (status, body["category"], body["message"]) == (
        409,
        "CONFLICT",
        f"Contact already exists. Existing ID: {first}",
    )
    assert len(account.sandbox.records()["contacts"]) == 2
    status, body = await account.batch(
        "create", {"objectWriteTraceId": "0", "properties": {"email": "c@example.com"}}
    )
    assert (status, body["results"][0]["objectWriteTraceId"]) == (201, "0")


@pytest.mark.parametrize(
    ("action", "inputs", "said"),
    [
        ("upsert", [{"idProperty": "city", "id": "x", "properties": {}}], "non-unique 0-1 property city"),
        ("upsert", [{"idProperty": "hs_object_id", "id": "1", "properties": {}}], "non-unique"),
        (
            "update",
            [{"idProperty": "email", "id": "a@example.com", "properties": {}}],
            "non-unique 0-1 property email",
        ),
        ("upsert", [{"id": "1", "properties": {}}], "idProperty"),
        (
            "upsert",
            [
                {"idProperty": "email", "id": "a@b.cd", "properties": {}},
                {"idProperty": "crm_id", "id": "1", "properties": {}},
            ],
            "one idProperty",
        ),
        (
            "upsert",
            [{"idProperty": "email", "id": it, "properties": {}} for it in ("a@b.cd", " A@B.cd")],
            "Duplicate IDs found",
        ),
        ("create", [{"properties": {"email": it}} for it in ("a@b.cd", "A@b.cd")], "Duplicate IDs found"),
        ("update", [{"id": str(number), "properties": {}} for number in range(101)], "101 inputs"),
        ("update", [], "0 inputs"),
        ("update", ["x"], "Invalid input JSON"),
    ],
)
async def test_batches_that_are_refused_whole(
    account: Account, action: str, inputs: list[Any], said: str
) -> None:
    status, body = await account.batch(action, *inputs)
    assert (status, body["category"]) == (400, "VALIDATION_ERROR")
    assert said in body["message"]


async def test_an_update_of_a_record_that_is_not_there(account: Account) -> None:
    status, body = await account.batch("update", {"id": "424242", "properties": {"city": "x"}})
    assert (status, body["errors"][0]["category"]) == (207, "OBJECT_NOT_FOUND")
    status, body = await account.batch("update", {"id": "a@example.com", "properties": {"city": "x"}})
    assert (status, body["results"], "errors" in body) == (200, [], False), (
        "an e-mail for a record id changes nothing, silently"
    )


async def test_a_read_names_what_is_missing(account: Account) -> None:
    await account.made("a@example.com", city="Oslo")
    inputs = ({"id": "a@example.com"}, {"id": "gone@example.com"})
    status, body = await account.batch("read", *inputs, idProperty="email", properties=["city"])
    assert (status, len(body["results"])) == (207, 1)
    assert body["errors"][0]["context"]["ids"] == ["gone@example.com"]
    assert set(body["results"][0]["properties"]) == {
        "city",
        "email",
        "createdate",
        "hs_object_id",
        "lastmodifieddate",
    }
    account.sandbox.nothing_found = 404
    assert (await account.batch("read", {"id": "1"}, properties=[]))[0] == 404


async def test_single_records(account: Account) -> None:
    status, body = await account.call(
        "POST", f"{V3}/contacts", {"properties": {"email": "a@example.com", "city": "Oslo"}}
    )
    assert status == 201
    one = f"{V3}/contacts/{body['id']}"
    assert (await account.call("PATCH", one, {"properties": {"city": "Rome"}}))[0] == 200
    _, body = await account.call("GET", f"{V3}/contacts/A@example.com?idProperty=email&properties=city")
    assert body["properties"]["city"] == "Rome"
    assert (await account.call("PATCH", one, {"properties": {}}))[0] == 400
    assert (await account.call("DELETE", one))[0] == 204
    assert (await account.call("GET", one))[0] == 404
    assert (await account.call("PATCH", one, {"properties": {"city": "x"}}))[0] == 404
    assert (await account.call("DELETE", one))[0] == 204


async def test_pages_of_records(account: Account) -> None:
    for number in range(5):
        await account.made(f"n{number}@example.com")
    seen: list[str] = []
    after = ""
    while True:
        _, body = await account.call("GET", f"{V3}/contacts?limit=2&after={after}")
        seen += [item["properties"]["email"] for item in body["results"]]
        if "paging" not in body:
            break
        after = body["paging"]["next"]["after"]
    assert seen == [f"n{number}@example.com" for number in range(5)]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([("score", "GT", "9")], "cd"),
        ([("score", "LTE", "9")], "ab"),
        ([("city", "EQ", "oslo")], "ab"),
        ([("city", "NEQ", "Oslo")], "cd"),
        ([("city", "HAS_PROPERTY", "")], "abc"),
        ([("city", "NOT_HAS_PROPERTY", "")], "d"),
        ([("email", "CONTAINS_TOKEN", "c@*")], "c"),
        ([("city", "EQ", "Oslo"), ("score", "GTE", "9")], "b"),
    ],
)
async def test_search(account: Account, filters: list[tuple[str, str, str]], found: str) -> None:
    for name, city, score in (("a", "Oslo", "8"), ("b", "Oslo", "9"), ("c", "Rome", "10"), ("d", "", "11")):
        await account.made(f"{name}@example.com", city=city, score=score)
    group = [
        {"propertyName": name, "operator": operator, "value": value} for name, operator, value in filters
    ]
    body = {
        "filterGroups": [{"filters": group}],
        "sorts": [{"propertyName": "score", "direction": "ASCENDING"}],
        "properties": ["email"],
    }
    status, said = await account.call("POST", f"{V3}/contacts/search", body)
    assert status == 200
    assert "".join(item["properties"]["email"][0] for item in said["results"]) == found
    assert said["total"] == len(found)


async def test_search_lags_and_has_a_limit_of_its_own(account: Account) -> None:
    account.sandbox.faults = Faults(lag=60.0)
    await account.made("a@example.com")
    assert (await account.call("POST", f"{V3}/contacts/search", {}))[1]["total"] == 0
    account.sandbox.faults = Faults()
    used = account.sandbox.burst.remaining
    statuses = [(await account.call("POST", f"{V3}/contacts/search", {}))[0] for _ in range(5)]
    assert statuses == [200, 200, 200, 200, 429]
    assert account.sandbox.burst.remaining == used
    async with account.session.post(f"{V3}/contacts/search", json={}) as answer:
        assert (await answer.json())["message"] == "You have reached your secondly limit."
        limits = {name for name in answer.headers if name.startswith("X-HubSpot-RateLimit")}
        assert limits == {"X-HubSpot-RateLimit-Daily", "X-HubSpot-RateLimit-Daily-Remaining"}
        assert "Retry-After" not in answer.headers


async def test_a_day_has_an_end(account: Account) -> None:
    account.sandbox.daily.used = account.sandbox.daily.count - 1
    assert (await account.upsert("a@example.com"))[0] == 200
    status, body = await account.upsert("a@example.com")
    assert (status, body["policyName"], body["errorType"]) == (429, "DAILY", "RATE_LIMIT")


async def test_every_limit_header_is_there(account: Account) -> None:
    async with account.session.get("/crm/v3/properties/contacts") as answer:
        names = {name.removeprefix("X-HubSpot-RateLimit-") for name in answer.headers if "RateLimit" in name}
    assert names == {
        "Daily",
        "Daily-Remaining",
        "Interval-Milliseconds",
        "Max",
        "Remaining",
        "Secondly",
        "Secondly-Remaining",
    }


async def test_token_and_scopes(account: Account) -> None:
    account.sandbox.token = "right"
    status, body = await account.upsert("a@example.com")
    assert (status, body["category"]) == (401, "INVALID_AUTHENTICATION")
    account.sandbox.token, account.sandbox.missing_scopes = None, frozenset({"crm.objects.contacts.write"})
    status, body = await account.upsert("a@example.com")
    assert (status, body["category"]) == (403, "MISSING_SCOPES")
    assert body["errors"][0]["context"]["requiredGranularScopes"] == ["crm.objects.contacts.write"]
    assert (await account.batch("read", {"id": "1"}, properties=[]))[0] == 207


@pytest.mark.parametrize("name", ["2-1001", "p62515_assets", "p_assets", "ASSET"])
async def test_a_custom_object_has_several_names(account: Account, name: str) -> None:
    one = {"idProperty": "external_id", "id": "x/1?y=é", "properties": {"name": "n"}}
    status, body = await account.batch("upsert", one, at=f"{V3}/{name}")
    assert (status, body["results"][0]["new"]) == (200, True)
    status, body = await account.batch("upsert", one, at=f"{V3}/nope")
    assert (status, body["message"]) == (400, "Unable to infer object type from: nope")


async def test_schemas_and_required_properties(account: Account) -> None:
    made = {
        "name": "car",
        "labels": {"singular": "Car"},
        "requiredProperties": ["vin"],
        "properties": [
            {"name": "vin", "label": "VIN", "type": "string", "fieldType": "text", "hasUniqueValue": True}
        ],
    }
    status, schema = await account.call("POST", "/crm/v3/schemas", made)
    assert (status, schema["fullyQualifiedName"]) == (201, "p62515_car")
    _, body = await account.call("GET", "/crm/v3/schemas")
    assert [item["objectTypeId"] for item in body["results"]] == ["2-1001", schema["objectTypeId"]]
    status, body = await account.batch("create", {"properties": {}}, at=f"{V3}/p62515_car")
    assert (status, "vin" in body["errors"][0]["message"]) == (207, True)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 201),
        ({"label": ""}, 400),
        ({"name": "Tier"}, 400),
        ({"type": "money"}, 400),
        ({"type": "number"}, 400),
        ({"name": "email"}, 409),
    ],
)
async def test_a_property_is_defined_whole(account: Account, change: dict[str, str], status: int) -> None:
    tier = {
        "name": "tier",
        "label": "Tier",
        "type": "string",
        "fieldType": "text",
        "groupName": "g",
        **change,
    }
    assert (await account.call("POST", "/crm/v3/properties/contacts", tier))[0] == status
    assert (await account.call("GET", "/crm/v3/properties/contacts/tier"))[0] == (
        200 if status == 201 else 404
    )


async def test_a_record_is_found_without_a_walk_through_the_store(account: Account) -> None:
    kind = account.sandbox.types["contacts"]
    for number in range(3000):
        kind.create({"email": f"n{number}@example.com"})

    class Watched(dict[str, Any]):
        def _no(self, *_: Any) -> Any:
            raise AssertionError("the store was walked through")

        __iter__ = items = values = keys = _no

    kind.records = Watched(kind.records)
    inputs = [
        {"idProperty": "email", "id": f"n{number}@example.com", "properties": {"city": "x"}}
        for number in range(2950, 3050)
    ]
    status, body = await account.batch("upsert", *inputs)
    assert (status, sum(item["new"] for item in body["results"])) == (200, 50)
    status, body = await account.batch(
        "read", *({"id": item["id"]} for item in inputs), idProperty="email", properties=["city"]
    )
    assert (status, len(body["results"])) == (200, 100)


async def test_a_lifecycle_stage_moves_forward_only_unless_it_is_cleared(account: Account) -> None:
    stages = []
    for stage in ("customer", "lead", "", "lead"):
        status, _ = await account.upsert("ada@example.com", lifecyclestage=stage)
        assert status == 200, "it is not said that a stage was not taken"
        stages.append((await account.held("ada@example.com", "lifecyclestage"))["lifecyclestage"])
    assert stages == ["customer", "customer", None, "lead"]


async def test_a_merged_contact_answers_under_the_other_s_id_without_a_trace(account: Account) -> None:
    one, other = await account.made("ada@example.com"), await account.made("bob@example.com")
    status, _ = await account.call(
        "POST", f"{V3}/contacts/merge", {"primaryObjectId": one, "objectIdToMerge": other}
    )
    assert status == 200
    assert await account.made("bob@example.com") == one
    update = {"id": other, "objectWriteTraceId": "7", "properties": {"firstname": "Bob"}}
    _, body = await account.batch("update", update)
    assert (body["results"][0]["id"], body["results"][0].get("objectWriteTraceId")) == (one, None)


async def test_a_privacy_delete_leaves_nothing_and_blocks_an_e_mail_that_nobody_has(account: Account) -> None:
    one = await account.made("ada@example.com")
    for body in ({"objectId": one}, {"objectId": "no@example.com", "idProperty": "email"}):
        status, _ = await account.call("POST", f"{V3}/contacts/gdpr-delete", body)
        assert status == 204
    contacts = account.sandbox.types["contacts"]
    assert not contacts.records
    assert not contacts.archive
    assert account.sandbox.blocked == {"no@example.com"}
