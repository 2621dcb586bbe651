"""Iterable's own ways: who failed and why, fields left out, lists, events, deletes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import duckdb
import places
import pytest
from aiohttp import web
from vendor_recordings import answering, at, recordings

import backhaul
from backhaul.destinations.iterable import Iterable, IterableConfig
from backhaul.destinations.kit import Http
from backhaul.errors import Halt, Refused, Throttled, Unsettled
from backhaul.sandbox.iterable import IterableSandbox
from backhaul.sandbox.kit import Faults
from backhaul.testing.batches import RecordBatch
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Gone, Op, Outcome, Rejected


def make(url: str, http: Http) -> Iterable:
    return Iterable(IterableConfig(api_key="k", base_url=url), http)


@pytest.fixture
def sandbox() -> IterableSandbox:
    return IterableSandbox(bulk=1000, deletes=1000)


@pytest.fixture
async def iterable(sandbox: IterableSandbox) -> AsyncIterator[Iterable]:
    with serving(sandbox.app()) as url:
        async with at(url, make) as made:
            yield made


def batch(*rows: dict[str, Any], by: str = "email", op: Op = Op.UPSERT, object: str = "users") -> RecordBatch:
    names = dict.fromkeys([by, *(name for row in rows for name in row)])
    return RecordBatch(op, object, (by,), tuple(map(Field, names)), list(rows))


async def written(iterable: Iterable, sent: RecordBatch) -> dict[str, Outcome]:
    outcomes = await iterable.write(sent)
    assert not outcomes.everything
    return {item.key: item for item in outcomes.items}


async def test_who_failed_is_named_and_the_others_are_delivered(
    iterable: Iterable, sandbox: IterableSandbox
) -> None:
    sandbox.project.forgotten.add("gone@example.com")
    rows = [
        {"email": email, "plan": "pro"} for email in ("Ada@Example.com", "no address", "Gone@example.com")
    ]
    found = await written(iterable, batch(*rows))
    assert found["Ada@Example.com"] == Delivered("Ada@Example.com")
    assert {key: item.code for key, item in found.items() if isinstance(item, Rejected)} == {
        "no address": "invalid", "Gone@example.com": "forgotten",
    }  # fmt: skip


async def test_a_user_id_that_an_address_project_does_not_know_is_made(
    iterable: Iterable, sandbox: IterableSandbox
) -> None:
    assert await written(iterable, batch({"userId": "42", "plan": "pro"}, by="userId")) == {
        "42": Delivered("42")
    }
    assert sandbox.records()["users"]["42"]["plan"] == "pro"


async def test_a_count_that_is_not_theirs_delivers_nobody(
    iterable: Iterable, sandbox: IterableSandbox
) -> None:
    sandbox.faults.omit = 0.5
    rows = [{"email": f"p{number}@example.com", "plan": "x"} for number in range(20)]
    assert await written(iterable, batch(*rows)) == {}


async def test_a_value_of_another_type_refuses_the_request(iterable: Iterable) -> None:
    with pytest.raises(Refused, match=r"RequestFieldsTypesMismatched.*'seats'"):
        await iterable.write(batch({"email": "a@example.com", "seats": "many"}))


async def test_a_field_that_iterable_leaves_out_is_not_delivered(iterable: Iterable) -> None:
    rows = [
        {"email": "a@example.com", "plan": "x", "shoe": 43},
        {"email": "b@example.com", "plan": "y", "shoe": None},
    ]
    found = await written(iterable, batch(*rows))
    assert isinstance(found["a@example.com"], Rejected)
    assert found["a@example.com"].code == "filteredOutFields"
    assert found["b@example.com"] == Delivered("b@example.com")


async def test_nested_objects_are_merged_and_null_clears(
    iterable: Iterable, sandbox: IterableSandbox
) -> None:
    await iterable.write(
        batch({"email": "a@example.com", "plan": "x", "address": {"city": "Bern", "zip": "3000"}})
    )
    await iterable.write(batch({"email": "a@example.com", "plan": None, "address": {"city": "Basel"}}))
    held = await iterable.read(
        "users", ("email",), ["a@example.com"], ["plan", "address.city", "address.zip"]
    )
    assert held == {"a@example.com": {"plan": None, "address.city": "Basel", "address.zip": "3000"}}
    assert "plan" not in sandbox.records()["users"]["a@example.com"]


async def test_who_is_not_there_is_not_read(iterable: Iterable) -> None:
    assert await iterable.read("users", ("email",), ["a+b@example.com"], ["plan"]) == {}


async def test_a_delete_of_nobody_is_done(iterable: Iterable, sandbox: IterableSandbox) -> None:
    await iterable.write(batch({"email": "a+b@example.com", "plan": "x"}))
    sent = batch({"email": "a+b@example.com"}, op=Op.DELETE)
    assert await written(iterable, sent) == {"a+b@example.com": Delivered("a+b@example.com")}
    (again,) = (await written(iterable, sent)).values()
    assert isinstance(again, Gone)
    assert sandbox.records()["users"] == {}


async def test_members_of_a_static_list_come_and_go(iterable: Iterable, sandbox: IterableSandbox) -> None:
    rows = [{"email": "a@example.com"}, {"email": "nobody"}]
    found = await written(iterable, batch(*rows, object="lists/101"))
    assert {key: type(item) for key, item in found.items()} == {
        "a@example.com": Delivered,
        "nobody": Rejected,
    }
    assert set(sandbox.records()["Customers"]) == {"a@example.com"}
    await iterable.write(batch(rows[0], op=Op.DELETE, object="lists/101"))
    assert "Customers" not in sandbox.records()


@pytest.mark.parametrize(
    ("object", "said"), [("lists/102", "Dynamic"), ("lists/9", "no object"), ("people", "no object")]
)
async def test_what_cannot_be_written_is_said_before(iterable: Iterable, object: str, said: str) -> None:
    with pytest.raises(Halt, match=said):
        await iterable.describe(object)


async def test_events_are_told_apart_by_their_id(iterable: Iterable, sandbox: IterableSandbox) -> None:
    event = {"id": "e1", "email": "a@example.com", "createdAt": 1_700_000_000, "amount": 12}
    found = await written(
        iterable, batch(event, {**event, "id": "e2", "email": "nobody"}, by="id", object="events/paid")
    )
    assert {key: type(item) for key, item in found.items()} == {"e1": Delivered, "e2": Rejected}
    await iterable.write(batch({**event, "amount": 13}, by="id", object="events/paid"))
    (held,) = sandbox.records()["events"].values()
    assert (held["eventName"], held["createdAt"], held["dataFields"]) == (
        "paid",
        1_700_000_000,
        {"amount": 13},
    )


@pytest.mark.parametrize(
    ("switch", "error"),
    [({"throttle_silently": 1.0}, Throttled), ({"error": 1.0}, Unsettled), ({"html": 1.0}, Unsettled)],
)
async def test_answers_for_the_whole_request(
    iterable: Iterable, sandbox: IterableSandbox, switch: dict[str, float], error: type[Exception]
) -> None:
    for name, value in switch.items():
        setattr(sandbox.faults, name, value)
    with pytest.raises(error):
        await iterable.write(batch({"email": "a@example.com", "plan": "x"}))


async def test_a_key_that_is_refused_stops_the_run(iterable: Iterable, sandbox: IterableSandbox) -> None:
    sandbox.api_key = "another"
    with pytest.raises(Halt, match=r"BadApiKey|Invalid API key"):
        await iterable.describe("users")


async def test_items_of_a_catalog_come_change_and_go(iterable: Iterable, sandbox: IterableSandbox) -> None:
    held = sandbox.project.catalogs["Plans"]
    held["pro"] = {"name": "Pro", "color": "blue"}
    rows = [
        {"id": "pro", "price": 9.5, "details": {"seats": 5}},
        {"id": "free", "price": 0},
        {"id": "not so", "price": 1},
    ]
    found = await written(iterable, batch(*rows, by="id", object="catalogs/Plans"))
    assert [type(found[row["id"]]) for row in rows] == [Delivered, Delivered, Rejected]
    assert held == {
        "pro": {"name": "Pro", "color": "blue", "price": 9.5, "details": {"seats": 5}},
        "free": {"price": 0},
    }
    gone = [{"id": "free"}, {"id": "never"}]
    found = await written(iterable, batch(*gone, by="id", op=Op.DELETE, object="catalogs/Plans"))
    assert set(found.values()) == {Delivered("free"), Delivered("never")}
    assert list(held) == ["pro"]


async def test_a_catalog_tells_its_fields(iterable: Iterable, sandbox: IterableSandbox) -> None:
    sandbox.project.catalogs["Plans"]["pro"] = {"color": "blue"}
    fields = (await iterable.describe("catalogs/Plans")).fields
    assert {name: str(field.type) for name, field in fields.items()} == {
        "id": "any", "name": "string", "price": "number", "color": "any",
    }  # fmt: skip
    with pytest.raises(Halt, match="no object 'catalogs/Plan'") as caught:
        await iterable.describe("catalogs/Plan")
    assert "catalogs/Plans" in str(caught.value.hint)


async def test_an_item_that_iterable_refuses_refuses_the_request(
    iterable: Iterable, sandbox: IterableSandbox
) -> None:
    sandbox.faults = Faults(poison_key="bad")
    with pytest.raises(Refused, match="BadParams"):
        await iterable.write(
            batch({"id": "bad", "price": 1}, {"id": "good", "price": 2}, by="id", object="catalogs/Plans")
        )
    assert sandbox.project.catalogs["Plans"] == {}


def test_a_sync_in_its_limits(tmp_path: Path) -> None:
    """Ten requests a second, of a thousand each, and no answer 429."""
    sandbox = IterableSandbox()
    with serving(sandbox.app()) as url, duckdb.connect(str(tmp_path / "w.duckdb")) as db:
        db.execute("create table t as select i as id, 'p' || i || '@example.com' as email, i % 90 as seats, "
                   "date '2024-01-01' + i::int as signup from range(3000) x(i)")  # fmt: skip
        db.close()
        (tmp_path / "syncs").mkdir()
        project = {
            "project": "t", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
            "destinations": {"messages": {"type": "iterable", "api_key": "sandbox", "base_url": url}},
        }  # fmt: skip
        sync = {
            "name": "users", "model": {"table": "t", "primary_key": "id"}, "destination": "messages", "object": "users",
            "identify": {"email": "email"}, "fields": {"seats": "seats", "signupDate": "signup"},
        }  # fmt: skip
        (tmp_path / "backhaul.yml").write_text(json.dumps(project))
        (tmp_path / "syncs" / "users.yml").write_text(json.dumps(sync))
        with backhaul.load(tmp_path) as loaded:
            report = loaded.run("users").report
    assert (report.status, report.delivered) == ("succeeded", 3000), report.error
    assert report.verified is not None
    assert (report.verified.checked, report.verified.mismatches) == (10, ())
    assert not [path for path in sandbox.counts if path.endswith("429")]


def project(folder: Path, url: str, sync: dict[str, Any], table: str) -> Any:
    return places.project(folder, {"type": "iterable", "base_url": url, "api_key": "local-key"}, sync, table)


def test_moments_are_written_as_iterable_knows_them_and_are_the_same_when_read_back(
    tmp_path: Path, sandbox: IterableSandbox
) -> None:
    """Without three digits of a second Iterable takes one for a text (block/iterable-go, types/data_types_test.go)."""
    rows = (
        "SELECT 'a' AS id, TIMESTAMPTZ '2026-11-28 09:30:00+00' AS stamp UNION ALL "
        "SELECT 'b', '2026-11-28 09:30:00.123456+00' UNION ALL SELECT 'c', NULL"
    )
    sync = {
        "object": "users",
        "identify": {"email": "id || '@example.com'"},
        "fields": {"signupDate": "stamp"},
    }
    with serving(sandbox.app()) as url, project(tmp_path, url, sync, rows) as made:
        report = made.run("s").report
    held = {user.email: user.data.get("signupDate") for user in sandbox.project.users}
    assert held == {
        "a@example.com": "2026-11-28T09:30:00.000Z", "b@example.com": "2026-11-28T09:30:00.123Z", "c@example.com": None,
    }  # fmt: skip
    assert (report.status, report.verified.mismatches) == ("succeeded", ())


@pytest.mark.skipif(not recordings("iterable"), reason="no recorded answers of Iterable are there")
async def test_a_recorded_moment_is_the_one_that_was_sent(iterable: Iterable) -> None:
    (recorded,) = [item for item in recordings("iterable") if item["id"] == "iterable-grouparoo-eeb66899"]
    held = recorded["response"]["body"]["user"]["dataFields"]["signupDate"]
    field = Field("signupDate", FieldType.DATETIME)
    assert held == "2021-07-01 18:01:15 +00:00"
    assert iterable.same(field, "2021-07-01T18:01:15Z", held)
    assert iterable.same(field, "2021-07-01T18:01:15.6Z", held)
    assert not iterable.same(field, "2021-07-02T18:01:15Z", held)
    assert not iterable.same(field, None, held)
    assert iterable.same(field, None, None)


async def test_of_several_events_of_one_person_the_one_that_failed_is_found() -> None:
    """Iterable names the person as often as events of theirs failed (block/iterable-go, batch/utils.go)."""
    body = {"successCount": 2, "failCount": 1, "failedUpdates": {"invalidDataEmails": ["a@example.com"]}}
    rows = [{"id": f"e{number}", "email": "a@example.com", "createdAt": 1} for number in range(3)]
    sent = batch(*rows, by="id", object="events/paid")
    async with answering(lambda _: web.json_response(body), make) as iterable:
        with pytest.raises(Refused, match="1 of 3 records of one person failed"):
            await iterable.write(sent)
        body |= {
            "successCount": 0,
            "failCount": 3,
            "failedUpdates": {"invalidDataEmails": ["a@example.com"] * 3},
        }
        assert {type(item) for item in (await iterable.write(sent)).items} == {Rejected}


async def test_who_is_not_there_is_out_of_the_list() -> None:
    """block/iterable-go, batch/list_unsubscribe.go: they are named in notFoundEmails."""
    body = {"successCount": 1, "failCount": 1, "failedUpdates": {"notFoundEmails": ["b@example.com"]}}
    rows = [{"email": "a@example.com"}, {"email": "b@example.com"}]
    async with answering(lambda _: web.json_response(body), make) as iterable:
        found = await written(iterable, batch(*rows, op=Op.DELETE, object="lists/101"))
    assert found["a@example.com"] == Delivered("a@example.com")
    assert isinstance(found["b@example.com"], Gone)
