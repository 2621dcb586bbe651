"""The Salesforce connector against the simulated org."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from salesforce_calls import APP, answering, batch, by_key, connected, row

from backhaul.destinations.salesforce.answers import full_id
from backhaul.destinations.salesforce.login import SalesforceConfig
from backhaul.errors import Forbidden, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Gone, Op, Rejected, Retry


@pytest.fixture
def org() -> SalesforceSandbox:
    return SalesforceSandbox()


@pytest.fixture
def url(org: SalesforceSandbox) -> Iterator[str]:
    with serving(org.app()) as address:
        yield address


def held(org: SalesforceSandbox, key: str, object: str = "Customer__c") -> dict[str, Any]:
    (record,) = org.kinds[object].matching("External_Id__c", key)
    return record.values


async def test_upserts_by_external_id_create_then_update(org: SalesforceSandbox, url: str) -> None:
    async with connected(url) as crm:
        first = by_key(await crm.write(batch(Op.UPSERT, row("a", Plan__c="pro"), row("b", Plan__c="free"))))
        second = by_key(await crm.write(batch(Op.UPSERT, row("a", Plan__c="max"), row("c"))))
    assert all(isinstance(item, Delivered) and item.created for item in first.values())
    assert (second["a"].created, second["c"].created) == (False, True)
    assert second["a"].remote_id == first["a"].remote_id
    assert held(org, "a")["Plan__c"] == "max"
    writes = [request.path for request in org.requests if request.method == "PATCH"]
    assert writes == ["/services/data/v67.0/composite/sobjects/Customer__c/External_Id__c"] * 2


async def test_null_clears_and_what_is_left_out_stays(org: SalesforceSandbox, url: str) -> None:
    async with connected(url) as crm:
        await crm.write(batch(Op.UPSERT, row("a", Plan__c="pro", Score__c=4.5)))
        await crm.write(batch(Op.UPSERT, row("a", Plan__c=None)))
        read = await crm.read("Customer__c", ("External_Id__c",), ["a"], ["Plan__c", "Score__c"])
    assert (read["a"]["Plan__c"], read["a"]["Score__c"]) == (None, 4.5)
    (record,) = org.kinds["Customer__c"].matching("External_Id__c", "a")
    assert record.written == ("External_Id__c", "Plan__c")


async def test_each_record_gets_its_own_answer(org: SalesforceSandbox, url: str) -> None:
    rule = "A VIP pays:\nask the sales team first"
    org.kinds["Contact"].rules.append(lambda values: rule if values["FirstName"] == "vip" else None)
    org.kinds["Contact"].duplicate_field = "Email"
    good = {"LastName": "L", "Email": "a@example.com"}
    async with connected(url) as crm:
        rows = (
            row("ok", **good), row("rule", LastName="L", FirstName="vip"), row("dup", **good), row("none"),
            row("mail", LastName="L", Email="nobody"), row("long", LastName="L" * 81), row("also", LastName="M"),
        )  # fmt: skip
        found = by_key(await crm.write(batch(Op.UPSERT, *rows, object="Contact")))
    assert {key for key, item in found.items() if isinstance(item, Delivered)} == {"ok", "also"}
    assert found["rule"] == Rejected("rule", "FIELD_CUSTOM_VALIDATION_EXCEPTION", rule)
    codes = {key: item.code for key, item in found.items() if isinstance(item, Rejected)}
    assert codes["dup"] == "DUPLICATES_DETECTED"
    assert codes["none"] == "REQUIRED_FIELD_MISSING"
    assert codes["mail"] == "INVALID_EMAIL_ADDRESS"
    assert codes["long"] == "STRING_TOO_LONG"


async def test_duplicate_rules_that_warn_may_be_passed(org: SalesforceSandbox, url: str) -> None:
    org.kinds["Contact"].duplicate_field = "Email"
    rows = [row(key, LastName="L", Email="a@example.com") for key in "ab"]
    async with connected(url, save_duplicates=True, assignment_rules=False) as crm:
        found = by_key(await crm.write(batch(Op.UPSERT, *rows, object="Contact")))
    assert all(isinstance(item, Delivered) for item in found.values())


async def test_a_locked_row_is_sent_again(org: SalesforceSandbox, url: str) -> None:
    org.kinds["Customer__c"].locked["a"] = 1
    async with connected(url) as crm:
        first = by_key(await crm.write(batch(Op.UPSERT, row("a"), row("b"))))
        second = by_key(await crm.write(batch(Op.UPSERT, row("a"))))
    assert isinstance(first["a"], Retry)
    assert isinstance(first["b"], Delivered)
    assert isinstance(second["a"], Delivered)


async def test_several_records_with_one_external_id_are_a_rejection(org: SalesforceSandbox, url: str) -> None:
    for _ in range(2):
        org.kinds["Customer__c"].write({"Loose_Id__c": "a"}, None)
    async with connected(url) as crm:
        sent = batch(Op.UPSERT, {"Loose_Id__c": "a"}, {"Loose_Id__c": "b"}, by="Loose_Id__c")
        upserted = by_key(await crm.write(sent))
        deleted = by_key(await crm.write(batch(Op.DELETE, {"Loose_Id__c": "a"}, by="Loose_Id__c")))
        looked = await crm.lookup("Customer__c", ("Loose_Id__c",), ["a", "b", "c"])
    assert upserted["a"].code == deleted["a"].code == "DUPLICATE_EXTERNAL_ID"
    assert isinstance(upserted["b"], Delivered)
    assert {key: len(ids) for key, ids in looked.items()} == {"a": 2, "b": 1}


async def test_a_record_is_one_whether_its_id_has_fifteen_or_eighteen_characters(
    org: SalesforceSandbox, url: str
) -> None:
    async with connected(url) as crm:
        long = by_key(await crm.write(batch(Op.INSERT, row("a", Plan__c="x"))))["a"].remote_id
        short = long[:15]
        assert full_id(short) == full_id(long) == long
        read = await crm.read("Customer__c", ("Id",), [short, long], ["Plan__c"])
        assert {key: values["Plan__c"] for key, values in read.items()} == {short: "x", long: "x"}
        written = by_key(await crm.write(batch(Op.UPDATE, {"Id": short, "Plan__c": "y"}, by="Id")))
        assert written[short].remote_id == long
        schema = await crm.describe("Customer__c")
        assert (schema.fields["Id"].compared_length, schema.fields["Name"].compared_length) == (15, None)


async def test_updates_touch_existing_records_only(org: SalesforceSandbox, url: str) -> None:
    async with connected(url) as crm:
        made = by_key(await crm.write(batch(Op.INSERT, row("a"), row("b"))))
        ids = [made["a"].remote_id, None, None]
        sent = batch(
            Op.UPDATE, row("a2", Plan__c="1"), row("b", Plan__c="2"), row("c", Plan__c="3"), remote_ids=ids
        )
        found = by_key(await crm.write(sent))
        by_id = batch(Op.UPDATE, {"Id": made["b"].remote_id, "Plan__c": "by id"}, by="Id")
        assert isinstance(by_key(await crm.write(by_id))[made["b"].remote_id], Delivered)
        with pytest.raises(Halt, match="gives ids itself"):
            await crm.write(batch(Op.UPSERT, {"Id": made["b"].remote_id}, by="Id"))
    assert isinstance(found["a2"], Delivered)
    assert isinstance(found["c"], Gone)
    assert held(org, "a2")["Plan__c"] == "1"
    assert held(org, "b")["Plan__c"] == "by id"
    assert len(org.kinds["Customer__c"].records) == 2


async def test_deletes_find_records_by_their_external_id(org: SalesforceSandbox, url: str) -> None:
    async with connected(url) as crm:
        made = by_key(await crm.write(batch(Op.UPSERT, row("a"), row("b"), row("keep"))))
        rows, ids = (row("a"), row("b"), row("never")), [None, made["b"].remote_id, None]
        found = by_key(await crm.write(batch(Op.DELETE, *rows, remote_ids=ids)))
        again = by_key(await crm.write(batch(Op.DELETE, row("b"), remote_ids=[made["b"].remote_id])))
    assert isinstance(found["a"], Delivered)
    assert isinstance(found["b"], Delivered)
    assert isinstance(found["never"], Gone)
    assert isinstance(again["b"], Gone)
    assert [record.values["External_Id__c"] for record in org.kinds["Customer__c"].records.values()] == [
        "keep"
    ]


async def test_awkward_keys_and_numbers_are_read_back(org: SalesforceSandbox, url: str) -> None:
    keys = [
        "o'hara",
        "back\\slash",
        "two\nlines",
        "Ключ",
        "a" * 80,
        *(f"{number:0>70}" for number in range(150)),
    ]
    async with connected(url) as crm:
        await crm.write(batch(Op.UPSERT, *(row(key, Plan__c=key[:9]) for key in keys)))
        assert set(await crm.read("Customer__c", ("External_Id__c",), [*keys, "no"], ())) == set(keys)
        org.page_size = 20
        assert set(await crm.read("Customer__c", ("External_Id__c",), keys, ["Plan__c"])) == set(keys)
        numbered = [{"Number__c": number} for number in (1, 20)]
        assert set(by_key(await crm.write(batch(Op.UPSERT, *numbered, by="Number__c")))) == {"1", "20"}
        assert set(await crm.read("Customer__c", ("Number__c",), ["1", "20", "3"], ())) == {"1", "20"}


async def test_describe_says_what_may_be_written(url: str) -> None:
    async with connected(url) as crm:
        fields = (await crm.describe("Account")).fields
        with pytest.raises(Halt, match=r"no object 'Nothing__c'"):
            await crm.describe("Nothing__c")
    assert not fields["Health__c"].writable
    assert not fields["Id"].writable
    assert (fields["External_Id__c"].unique, fields["External_Id__c"].case_insensitive) == (True, True)
    assert (fields["Name"].required, fields["Name"].max_length, fields["Name"].unique) == (True, 255, False)
    assert fields["Rating"].choices == ("Hot", "Warm", "Cold")
    assert fields["Industry"].choices is None, "an unrestricted picklist takes any value"
    assert (fields["AnnualRevenue"].type, fields["NumberOfEmployees"].type) == (
        FieldType.NUMBER,
        FieldType.INTEGER,
    )
    assert not fields["Active__c"].required


@pytest.mark.parametrize(
    ("field", "sent", "back", "same"),
    [
        (Field("d", FieldType.NUMBER, native_type="double(2)"), 1.005, 1.01, True),
        (Field("d", FieldType.NUMBER, native_type="double(2)"), 1.2, 1.3, False),
        (Field("t", FieldType.STRING, native_type="string"), " a ", "a", True),
        (Field("t", FieldType.STRING, native_type="string"), "", None, True),
        (Field("m", FieldType.STRING, native_type="multipicklist"), "b;a", "a;b", True),
        (
            Field("r", FieldType.STRING, native_type="reference"),
            "001Sb0000000001",
            "001Sb0000000001AAA",
            True,
        ),
        (
            Field("r", FieldType.STRING, native_type="reference"),
            "001Sb0000000001",
            "001Sb0000000002AAA",
            False,
        ),
        (
            Field("s", FieldType.DATETIME, native_type="datetime"),
            "2026-01-02T03:04:05.7Z",
            "2026-01-02T03:04:05.000+0000",
            True,
        ),
        (
            Field("s", FieldType.DATETIME, native_type="datetime"),
            "2026-01-02T03:04:05Z",
            "2026-01-02T03:04:06.000+0000",
            False,
        ),
        (Field("b", FieldType.BOOLEAN, native_type="boolean"), True, True, True),
    ],
)
async def test_values_are_compared_as_salesforce_keeps_them(
    field: Field, sent: Any, back: Any, same: bool, url: str
) -> None:
    async with connected(url) as crm:
        assert crm.same(field, sent, back) is same


async def test_a_session_that_ended_is_renewed(org: SalesforceSandbox, url: str) -> None:
    async with connected(url) as crm:
        await crm.write(batch(Op.UPSERT, row("a")))
        first = crm.token
        org.end_tokens()
        found = by_key(await crm.write(batch(Op.UPSERT, row("b"))))
        assert isinstance(found["b"], Delivered)
        assert crm.token != first


async def test_a_refresh_token_is_exchanged(org: SalesforceSandbox, url: str) -> None:
    org.connected_app = {"client_id": "app", "refresh_token": "granted"}
    async with connected(url, client_secret=None, refresh_token="granted") as crm:
        assert await crm.describe("Account")
    async with connected(url, client_secret=None, refresh_token="withdrawn") as crm:
        with pytest.raises(Halt, match="authentication failure") as halted:
            await crm.describe("Account")
        assert "withdrawn" not in str(halted.value)


async def test_an_assertion_is_signed_with_the_private_key(org: SalesforceSandbox, url: str) -> None:
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import rsa

    def private(key: rsa.RSAPrivateKey) -> str:
        return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption()).decode()

    key, other = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    org.connected_app = {"client_id": "app", "public_key": public.decode()}
    signed = {"client_secret": None, "username": "ada@example.com"}
    async with connected(url, **signed, private_key=private(key)) as crm:
        assert await crm.describe("Account")
    for wrong, said in ((private(other), "authentication failure"), ("no key", "not an RSA key")):
        async with connected(url, **signed, private_key=wrong) as crm:
            with pytest.raises(Halt, match=said):
                await crm.describe("Account")


@pytest.mark.parametrize(
    "given",
    [{}, {"username": "ada"}, {"username": "ada", "private_key": "k", "client_secret": "s"}],
)
def test_one_way_to_sign_in_is_needed(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        SalesforceConfig(base_url="https://x", client_id="app", **given)


async def test_the_quota_is_read_from_every_answer(org: SalesforceSandbox, url: str) -> None:
    from backhaul.destinations.kit import Answer

    async with connected(url) as crm:
        said = "api-usage=18/250, per-app-api-usage=17/20(appName=x)"
        (left,) = crm.left(Answer(200, {"sforce-limit-info": said})).values()
        assert left.requests == 3
        assert crm.left(Answer(200)) == {}
        for usage, ours in (("100/250", 100), ("200/250", 0), ("249/250", 0)):
            (left,) = crm.left(Answer(200, {"sforce-limit-info": f"api-usage={usage}"})).values()
            assert left.requests == ours  # a fifth stays for others
    async with connected(url, share="100%") as crm:
        (left,) = crm.left(Answer(200, {"sforce-limit-info": "api-usage=249/250"})).values()
        assert left.requests == 1


@pytest.mark.parametrize(
    ("status", "code", "message", "kind"),
    [
        (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", Throttled),
        (403, "API_DISABLED_FOR_ORG", "The REST API is not enabled for this Organization.", Halt),
        (403, "INSUFFICIENT_ACCESS", "insufficient access rights", Forbidden),
        (401, "INVALID_AUTH_HEADER", "INVALID_HEADER_TYPE", Halt),
        (401, "INVALID_SESSION_ID", "Session expired or invalid", Halt),
        (400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record", NotApplied),
        (
            400,
            "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY",
            "t: unable to obtain exclusive access to this record",
            NotApplied,
        ),
        (400, "JSON_PARSER_ERROR", "Unexpected character", Refused),
        (404, "NOT_FOUND", "Provided external ID field does not exist", Refused),
        (503, "SERVER_UNAVAILABLE", "busy", NotApplied),
        (500, "UNKNOWN", "An unexpected error occurred", Unsettled),
    ],
)
async def test_errors_of_a_request_are_told_apart(
    status: int, code: str, message: str, kind: type[Exception]
) -> None:
    def handler(_: web.Request) -> web.Response:
        return web.json_response([{"message": message, "errorCode": code}], status=status)

    async with answering(handler) as crm:
        with pytest.raises(kind) as raised:
            await crm.write(batch(Op.UPSERT, row("a")))
    assert type(raised.value) is kind
    assert message in str(raised.value) or code == "INVALID_SESSION_ID"


async def test_a_300_is_a_refusal_that_names_the_records() -> None:
    def handler(_: web.Request) -> web.Response:
        return web.json_response(
            ["/services/data/v67.0/sobjects/A/001x", "/services/data/v67.0/sobjects/A/001y"], status=300
        )

    async with answering(handler) as crm:
        with pytest.raises(Refused, match=r"001x.*001y"):
            await crm.write(batch(Op.UPSERT, row("a")))


@pytest.mark.parametrize("body", [[], [{"id": "001", "success": True, "errors": []}], [{}, {}]])
async def test_an_answer_that_names_not_every_record_names_nobody_by_place(body: list[Any]) -> None:
    async with answering(lambda _: web.json_response(body)) as crm:
        assert (await crm.write(batch(Op.UPSERT, row("a"), row("b")))).items == ()


async def test_the_errors_of_a_record_reach_its_rejection_whole() -> None:
    errors = [
        {"statusCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "x" * 2000, "fields": ["Plan__c"]},
        {"statusCode": "STRING_TOO_LONG", "message": "Name: data value too large", "fields": ["Name"]},
    ]
    async with answering(lambda _: web.json_response([{"success": False, "errors": errors}])) as crm:
        (item,) = (await crm.write(batch(Op.UPSERT, row("a")))).items
    said = "x" * 2000 + "; Name: data value too large (Plan__c)"
    assert item == Rejected("a", "FIELD_CUSTOM_VALIDATION_EXCEPTION", said)


async def test_throttling_is_a_403(org: SalesforceSandbox, url: str) -> None:
    async with connected(url) as crm:
        await crm.describe("Customer__c")
        org.faults = Faults(throttle=1.0)
        with pytest.raises(Throttled) as throttled:
            await crm.write(batch(Op.UPSERT, row("a")))
        assert throttled.value.after is None, "requests at once: a short wait will do"
        org.faults = Faults()
        org.daily.count = 0
        with pytest.raises(Throttled) as throttled:
            await crm.write(batch(Op.UPSERT, row("a")))
        assert throttled.value.after
    assert APP["client_secret"] not in str(throttled.value)


async def test_parents_are_named_by_their_external_id(org: SalesforceSandbox, url: str) -> None:
    org.kinds["Account"].write({"Name": "Acme", "External_Id__c": "acme"}, None)

    def person(key: str, parent: str | None) -> dict[str, Any]:
        return row(key, **{"LastName": "L", "Account.External_Id__c": parent})

    async with connected(url, parents=("Account",)) as crm:
        fields = (await crm.describe("Contact")).fields
        assert {name for name, field in fields.items() if field.parent} == {
            "AccountId",
            "Account.External_Id__c",
        }
        assert (fields["Account.External_Id__c"].max_length, fields["Account.External_Id__c"].unique) == (
            80,
            False,
        )
        assert "Account.Name" not in fields
        names = ["LastName", "Account.External_Id__c"]
        for parent, held in (("acme", "acme"), (None, None)):
            found = by_key(
                await crm.write(batch(Op.UPSERT, person("a", parent), person("b", "no"), object="Contact"))
            )
            assert isinstance(found["a"], Delivered)
            assert (
                found["b"].message
                == "Foreign key external ID: no not found for field External_Id__c in entity Account"
            )
            read = await crm.read("Contact", ("External_Id__c",), ["a"], names)
            assert read == {"a": {"External_Id__c": "a", "LastName": "L", "Account.External_Id__c": held}}
    (record,) = org.kinds["Contact"].records.values()
    assert record.values["AccountId"] is None
    async with connected(url) as crm:
        assert "Account.External_Id__c" not in (await crm.describe("Contact")).fields
