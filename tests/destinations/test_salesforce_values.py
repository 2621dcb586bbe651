"""Salesforce: values in the form that it takes and gives back, keys in another case, and records that were deleted there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import places
import pytest
import salesforce_calls
from aiohttp import web
from tests.waiting import until

from backhaul.destinations.salesforce import fields as sf_fields
from backhaul.project import load
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.sandbox.salesforce.field import FieldDef
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Gone, Op


class SlowSandbox(SalesforceSandbox):
    """The first write takes `late` seconds; it is applied though the client is gone."""

    late = 0.0
    working = 0
    """How many requests it works on."""

    def app(self) -> web.Application:
        @web.middleware
        async def slow(request: web.Request, handler: Any) -> web.StreamResponse:
            await request.read()
            self.working += 1
            try:
                if self.writes(request) and self.late:
                    late, self.late = self.late, 0.0
                    await asyncio.sleep(late)
                return await handler(request)
            finally:
                self.working -= 1

        app = super().app()
        app.middlewares.insert(0, slow)
        return app


@pytest.fixture
def org() -> SlowSandbox:
    return SlowSandbox()


@pytest.fixture
def url(org: SalesforceSandbox) -> Iterator[str]:
    with serving(org.app()) as address:
        yield address


def test_blank_external_ids_are_rejected_and_padded_ones_find_their_record(
    org: SalesforceSandbox, url: str, tmp_path: Path
) -> None:
    destination = {"type": "salesforce", "base_url": url, "client_id": "app", "client_secret": "sandbox"}
    fields = {
        "object": "Customer__c",
        "mode": "upsert",
        "identify": {"External_Id__c": "ext"},
        "fields": {"Plan__c": "plan"},
    }
    table = "SELECT * FROM (VALUES (1, ' z9 ', 'a'), (2, '  ', 'b'), (3, 'z9', 'c')) AS v (id, ext, plan) WHERE id < 3"
    project = places.project(tmp_path, destination, fields, table)
    with project:
        first = project.run("s").report
        assert (first.delivered, first.rejected) == (1, 1)
        (letter,) = project.dead_letters("s")
        assert (letter["key"], letter["error"]["code"], letter["field"]) == (2, "null", "External_Id__c")
    with opened(tmp_path / "w.duckdb") as warehouse:
        warehouse.execute("UPDATE t SET plan = 'new' WHERE id = 1")
    with load(tmp_path) as project:
        assert project.run("s").report.delivered == 1
    (record,) = org.kinds["Customer__c"].records.values()
    assert (record.values["External_Id__c"], record.values["Plan__c"]) == ("z9", "new")


async def test_a_parent_whose_external_id_is_zero_is_set_and_not_cleared(
    org: SalesforceSandbox, url: str
) -> None:
    accounts = org.kinds["Account"]
    accounts.fields["Number__c"] = FieldDef("Number__c", "double", external_id=True)
    accounts.indexes["Number__c"] = {}
    zero = accounts.write({"Name": "Zero", "Number__c": 0}, None)
    row = {"External_Id__c": "a", "LastName": "L", "Account.Number__c": 0}
    async with salesforce_calls.connected(url, parents=("Account",)) as crm:
        await crm.describe("Contact")
        (item,) = (await crm.write(salesforce_calls.batch(Op.UPSERT, row, object="Contact"))).items
    assert isinstance(item, Delivered)
    (record,) = org.kinds["Contact"].records.values()
    assert record.values["AccountId"] == zero.id


async def test_an_auto_number_identifies_a_record_and_is_not_written(
    org: SalesforceSandbox, url: str
) -> None:
    kind = org.kinds["Customer__c"]
    kind.fields["Auto__c"] = FieldDef(
        "Auto__c", external_id=True, unique=True, createable=False, updateable=False
    )
    kind.indexes["Auto__c"] = {}
    record = kind.write({"Plan__c": "old"}, None)
    record.values["Auto__c"] = "A-0001"
    kind.indexes["Auto__c"]["a-0001"] = {record.id: None}
    async with salesforce_calls.connected(url) as crm:
        sent = salesforce_calls.batch(Op.UPDATE, {"Auto__c": "A-0001", "Plan__c": "new"}, by="Auto__c")
        (item,) = (await crm.write(sent)).items
    assert isinstance(item, Delivered), item
    assert record.values["Plan__c"] == "new"


@pytest.mark.parametrize(
    ("sent", "held", "same"),
    [
        ("10:00:00", "10:00:00.000Z", True), ("10:00", "10:00:00.000Z", True), ("10:00:00.5", "10:00:00.500Z", True),
        ("10:00:00", "10:00:01.000Z", False), (None, "10:00:01.000Z", False), ("10:00:00", None, False), ("odd", "10:00:00.000Z", False),
    ],
)  # fmt: skip
def test_a_time_of_day_comes_back_with_milliseconds_and_a_zone(sent: Any, held: Any, same: bool) -> None:
    field = sf_fields.field_of(
        {"name": "Opens__c", "type": "time", "length": 0, "createable": True, "updateable": True}
    )
    assert sf_fields.same(field, sent, held) is same


class Shop:
    """A project with one sync of contacts into a simulated org."""

    def __init__(self, folder: Path, url: str, **more: Any) -> None:
        self.folder = folder
        (folder / "syncs").mkdir()
        crm = {
            "type": "salesforce",
            "base_url": url,
            "client_id": "app",
            "client_secret": "sandbox",
            **more.pop("crm", {}),
        }
        (folder / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"crm": crm},
        }))  # fmt: skip
        (folder / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "crm", "object": "Contact",
            "mode": "upsert", "identify": {"External_Id__c": "id"}, **more,
        }))  # fmt: skip

    def rows(self, columns: str, *values: tuple[Any, ...]) -> None:
        with opened(self.folder / "w.duckdb") as db:
            db.execute(f"CREATE OR REPLACE TABLE t ({columns})")
            db.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(values[0]))})", values)

    def run(self) -> Any:
        return load(self.folder).run("s")


@pytest.mark.parametrize("above", [2000, 0])
def test_a_record_that_was_deleted_there_is_made_again_whole_though_it_needs_fields_that_did_not_change(
    org: SalesforceSandbox, url: str, tmp_path: Path, above: int
) -> None:
    shop = Shop(tmp_path, url, crm={"bulk_above": above}, fields={"LastName": "last", "FirstName": "first"})
    columns = "id VARCHAR, last VARCHAR, first VARCHAR"
    shop.rows(columns, ("a", "Lovelace", "Ada"), ("b", "Hopper", "Grace"))
    assert shop.run().delivered == 2
    (lost,) = org.kinds["Contact"].matching("External_Id__c", "a")
    org.kinds["Contact"].remove(lost)
    shop.rows(columns, ("a", "Lovelace", "Augusta"), ("b", "Hopper", "Grace"))
    report = shop.run()
    assert (report.status, report.rejected) == ("succeeded", 0), [
        letter["error"] for letter in load(tmp_path).dead_letters("s")
    ]
    (found,) = org.kinds["Contact"].matching("External_Id__c", "a")
    assert (found.values["LastName"], found.values["FirstName"]) == ("Lovelace", "Augusta")


@pytest.mark.parametrize("above", [2000, 0])
def test_a_list_of_choices_is_joined_by_semicolons(
    org: SalesforceSandbox, url: str, tmp_path: Path, above: int
) -> None:
    shop = Shop(tmp_path, url, crm={"bulk_above": above}, fields={"LastName": "last", "Tags__c": "tags"})
    shop.rows("id VARCHAR, last VARCHAR, tags VARCHAR[]", ("1", "L", ["a", "b"]), ("2", "L", []))
    report = shop.run()
    assert (report.status, report.verified.mismatches) == ("succeeded", ()), report.error
    held = {
        record.values["External_Id__c"]: record.values["Tags__c"]
        for record in org.kinds["Contact"].records.values()
    }
    assert held == {"1": "a;b", "2": None}


@pytest.mark.parametrize("above", [2000, 0])
def test_an_undo_puts_a_list_of_choices_back_as_it_was(
    org: SalesforceSandbox, url: str, tmp_path: Path, above: int
) -> None:
    """The plan of an undo knows the field's own type, by which Salesforce's texts and ours are the same value."""
    shop = Shop(tmp_path, url, crm={"bulk_above": above}, fields={"LastName": "last", "Tags__c": "tags"})
    columns = "id VARCHAR, last VARCHAR, tags VARCHAR[]"
    shop.rows(columns, ("1", "L", ["a", "b"]), ("2", "M", ["c"]))
    assert shop.run().status == "succeeded"
    shop.rows(columns, ("1", "L", ["c"]), ("2", "M", []))
    changed = shop.run()
    assert (changed.status, changed.delivered) == ("succeeded", 2)
    with load(tmp_path) as project:
        plan = project.undo(changed.id)
        done = project.run("s", plan=plan.id).report
        assert (done.status, done.delivered, done.rejected) == ("succeeded", 2, 0)
        assert done.verified is not None
        assert (done.verified.checked, done.verified.mismatches) == (2, ())
    held = {
        one.values["External_Id__c"]: one.values["Tags__c"] for one in org.kinds["Contact"].records.values()
    }
    assert held == {"1": "a;b", "2": "c"}


@pytest.mark.parametrize("mode", ["insert", "upsert"])
def test_a_create_that_salesforce_still_works_on_when_the_run_has_given_it_up_is_not_made_twice(
    org: SlowSandbox, url: str, tmp_path: Path, mode: str
) -> None:
    """Salesforce works on a request for up to ten minutes, whether or not anybody listens."""
    shop = Shop(
        tmp_path,
        url,
        crm={"timeout": "1s"},
        object="Customer__c",
        mode=mode,
        identify={"Loose_Id__c": "id"},
        fields={"Plan__c": "plan"},
    )
    shop.rows("id VARCHAR, plan VARCHAR", ("a", "pro"))
    org.late = 2.5
    shop.run()
    shop.run()
    until(lambda: not org.working)
    shop.run()
    assert [record.values["Loose_Id__c"] for record in org.kinds["Customer__c"].records.values()] == ["a"]


def test_a_number_of_more_digits_than_a_double_has_is_read_back_as_the_one_that_was_sent() -> None:
    """Every custom number is a double in the API (object reference: custom fields), 1.2345678901234568E17 in its JSON."""
    field = sf_fields.field_of(
        {"name": "N__c", "type": "double", "scale": 0, "createable": True, "updateable": True}
    )
    assert sf_fields.same(field, "123456789012345678", 1.2345678901234568e17)
    assert not sf_fields.same(field, "123456789012345678", 1.2345678901234568e16)
    assert not sf_fields.same(field, "12", 13.0)


def test_a_text_that_would_clear_is_not_said_to_be_delivered(
    org: SalesforceSandbox, url: str, tmp_path: Path
) -> None:
    shop = Shop(tmp_path, url, crm={"bulk_above": 0}, fields={"LastName": "last", "Description": "text"})
    texts = {"1": "#N/A", "2": "fine", "3": 'say "#N/A"', "4": 'a,"#N/A",b', "5": None, "6": "#N/A #N/A"}
    shop.rows("id VARCHAR, last VARCHAR, text VARCHAR", *((key, "L", text) for key, text in texts.items()))
    report = shop.run()
    held = {
        record.values["External_Id__c"]: record.values["Description"]
        for record in org.kinds["Contact"].records.values()
    }
    letters = {letter["key"]: letter["error"] for letter in load(tmp_path).dead_letters("s")}
    assert (report.delivered, report.rejected, len(letters)) == (5, 1, 1), report.error
    assert held == {key: text for key, text in texts.items() if key != "1"}


def test_an_email_comes_back_in_lower_case_and_is_not_sent_again(url: str, tmp_path: Path) -> None:
    """Addresses are stored as lower case in Salesforce (help.salesforce.com: 000384328)."""
    shop = Shop(tmp_path, url, fields={"LastName": "last", "Email": "email"})
    shop.rows("id VARCHAR, last VARCHAR, email VARCHAR", ("1", "L", "Ada.Lovelace@Example.com"))
    report = shop.run()
    assert report.delivered == 1
    assert report.verified.mismatches == ()
    assert shop.run().delivered == 0


def email_key(org: SalesforceSandbox) -> FieldDef:
    """A unique e-mail field describes itself as case-sensitive (salesforce.stackexchange.com/questions/246995)."""
    kind = org.kinds["Customer__c"]
    kind.fields["Mail__c"] = FieldDef(
        "Mail__c", "email", 80, external_id=True, unique=True, case_sensitive=True
    )
    kind.indexes["Mail__c"] = {}
    return kind.fields["Mail__c"]


async def test_a_record_is_found_by_an_email_whose_case_salesforce_changed(
    org: SalesforceSandbox, url: str
) -> None:
    email_key(org)
    row = {"Mail__c": "Ada@Example.com"}
    async with salesforce_calls.connected(url) as crm:
        assert (await crm.describe("Customer__c")).fields["Mail__c"].case_insensitive
        await crm.write(salesforce_calls.batch(Op.UPSERT, row, by="Mail__c"))
        assert len(await crm.lookup("Customer__c", ("Mail__c",), ["Ada@Example.com"])) == 1
        await crm.write(salesforce_calls.batch(Op.DELETE, row, by="Mail__c"))
    assert org.kinds["Customer__c"].records == {}, "a delete is not over while the record is there"


@pytest.mark.parametrize(
    ("unique", "sensitive", "folds"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_only_a_unique_external_id_is_matched_without_regard_to_case(
    unique: bool, sensitive: bool, folds: bool
) -> None:
    """Apex developer guide, Upserting Records: 'case-insensitive only if the custom field has the Unique and Treat "ABC" and
    "abc" as duplicate values (case insensitive) attributes selected'."""
    item = {
        "name": "K__c",
        "type": "string",
        "externalId": True,
        "unique": unique,
        "caseSensitive": sensitive,
    }
    assert sf_fields.field_of(item).case_insensitive is folds


async def test_a_record_whose_key_differs_in_case_is_another_one() -> None:
    """SOQL compares texts without regard to case, 'except for unique case-sensitive fields' (SOQL reference, comparison
    operators); an upsert by an external id that is not unique does not."""
    deleted: list[str] = []

    def answer(request: web.Request) -> web.Response:
        if request.method == "DELETE":
            deleted.append(request.query["ids"])
            return web.json_response([{"id": "a00000000000001AAA", "success": True, "errors": []}])
        return web.json_response(
            {"done": True, "records": [{"Id": "a00000000000001AAA", "External_Id__c": "abc"}]}
        )

    async with salesforce_calls.answering(answer) as crm:
        (item,) = (await crm.write(salesforce_calls.batch(Op.DELETE, salesforce_calls.row("ABC")))).items
    assert isinstance(item, Gone)
    assert deleted == [], "the record of another key is not deleted"
