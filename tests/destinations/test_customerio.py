"""Customer.io: what the connector makes of its answers, recorded ones among them, and what a run leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import customerio
import places
import pytest
from aiohttp import web
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.customerio import CustomerIo, CustomerIoConfig
from backhaul.destinations.kit import Http
from backhaul.errors import Halt, Refused, Throttled, Unsettled
from backhaul.project import load
from backhaul.sandbox.customerio import CustomerIoSandbox
from backhaul.sandbox.kit import Faults
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Op, Rejected

EVERY = recordings("customerio")
CAMPAIGNS = [item for item in EVERY if item["expected_request"]["url"].endswith("/campaigns")]
"""A list of campaigns: nothing that the connector asks for."""
READS = [item for item in EVERY if item["lookup"] and item not in CAMPAIGNS]
WRITES = [item for item in EVERY if not item["lookup"]]
there = pytest.mark.skipif(not EVERY, reason="no recorded answers of Customer.io are there")


def make(url: str, http: Http) -> CustomerIo:
    config = CustomerIoConfig(base_url=url, site_id="s", api_key="k", app_key="a")
    return CustomerIo(config, http)


def batch(count: int = 1, op: Op = Op.UPSERT, object: str = "people", **record: Any) -> RecordBatch:
    fields = (Field("id"), *(Field(name) for name in record))
    rows = [{"id": str(number), **record} for number in range(count)]
    frame = CustomerIo.frame(None, object, op, ("id",))  # type: ignore[arg-type]
    return RecordBatch(op, object, ("id",), fields, rows, frame=frame)


@there
def test_all_are_replayed_but_those_that_say_why_not() -> None:
    assert (len(EVERY), len(WRITES), len(READS), len(CAMPAIGNS)) == (12, 7, 4, 1)


@there
@pytest.mark.parametrize("recording", WRITES, ids=lambda item: item["id"])
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    """They are answers of single calls, which say what a batch that was taken whole says: 200 and an empty object."""
    async with answering(lambda _: recorded_answer(recording), make) as there:
        assert await meaning(there, batch(plan="pro")) in recording["acceptable"]


@there
@pytest.mark.parametrize("recording", READS, ids=lambda item: item["id"])
async def test_a_recorded_person_is_read(recording: Recording) -> None:
    body = recording["response"]["body"]
    async with answering(lambda _: recorded_answer(recording), make) as there:
        found = await there.read("people", ("id",), ["grouparoo"], ["name", "email", "In High Value"])
    if recording["response"]["status"] == 404:
        assert found == {}
    else:
        held = body["customer"]["attributes"]
        assert found == {"grouparoo": {name: held.get(name) for name in ("name", "email", "In High Value")}}
        assert found["grouparoo"]["email"] is None, "it was cleared with null before"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"meta": {"error": "unauthorized"}}, Halt),
        (400, {"meta": {"error": "malformed"}}, Refused),
        (413, {}, Refused),
        (429, {}, Throttled),
        (500, {}, Unsettled),
        (200, "<html>", Unsettled),
        (207, {}, Unsettled),
    ],
)
async def test_what_an_answer_means_as_a_whole(status: int, body: Any, expected: type[Exception]) -> None:
    def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body if isinstance(body, str) else json.dumps(body))

    async with answering(answer, make) as there:
        with pytest.raises(expected) as raised:
            await there.write(batch(2, plan="x"))
    assert type(raised.value) is expected


@pytest.mark.parametrize(
    ("errors", "refused", "taken"),
    [
        (
            [{"batch_index": 1, "reason": "invalid", "field": "email", "message": "is no address"}],
            ["1"],
            ["0", "2"],
        ),
        ([{"batch_index": 7, "reason": "invalid"}], [], []),
        ([{"reason": "invalid", "message": "of nobody knows whom"}], [], []),
    ],
)
async def test_errors_are_those_of_the_records_at_their_places(
    errors: list[Any], refused: list[str], taken: list[str]
) -> None:
    answer = web.json_response
    async with answering(lambda _: answer({"errors": errors}, status=207), make) as there:
        items = (await there.write(batch(3, plan="x"))).items
    assert [item.key for item in items if isinstance(item, Rejected)] == refused
    assert [item.key for item in items if isinstance(item, Delivered)] == taken
    assert all("is no address" in item.message for item in items if isinstance(item, Rejected))


async def test_what_is_sent() -> None:
    bodies: list[Any] = []

    async def keep(request: web.Request) -> web.Response:
        bodies.append((request.headers["Authorization"], await request.json()))
        return web.json_response({})

    app = web.Application()
    app.router.add_post("/api/v2/batch", keep)
    with serving(app) as url:
        from vendor_recordings import at

        async with at(url, make) as there:
            await there.write(batch(plan=None, seats=3))
            await there.write(batch(op=Op.UPDATE, plan="pro"))
            await there.write(batch(op=Op.DELETE))
            await there.write(
                batch(op=Op.INSERT, object="events/renewed", person="42", timestamp=1700000000, plan="pro")
            )
            with pytest.raises(Halt, match="of one person"):
                await there.write(batch(op=Op.INSERT, object="events/renewed", plan="pro"))
    assert {signed for signed, _ in bodies} == {"Basic czpr"}
    who = {"type": "person", "identifiers": {"id": "0"}}
    assert [body["batch"] for _, body in bodies] == [
        [{**who, "action": "identify", "attributes": {"plan": None, "seats": 3}}],
        [{**who, "action": "identify", "attributes": {"plan": "pro", "_update": True}}],
        [{**who, "action": "delete"}],
        [{"type": "person", "identifiers": {"id": "42"}, "action": "event", "name": "renewed", "timestamp": 1700000000,
          "attributes": {"plan": "pro"}}],
    ]  # fmt: skip


class Place:
    """A project with one sync into a simulated workspace."""

    key: tuple[str, ...] = ("id",)
    """The model's primary key."""

    def __init__(self, folder: Path, sandbox: CustomerIoSandbox, url: str) -> None:
        self.folder, self.sandbox, self.url = folder, sandbox, url
        (folder / "syncs").mkdir()
        (folder / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
            "destinations": {"cio": {
                "type": "customerio", "base_url": url, "site_id": "local-site", "api_key": "local-key", "app_key": "local-app",
            }},
        }))  # fmt: skip
        self.sync()

    def sync(
        self,
        object: str = "people",
        mode: str = "upsert",
        identify: dict[str, str] | None = None,
        **fields: str,
    ) -> None:
        (self.folder / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": list(self.key)}, "destination": "cio", "object": object, "mode": mode,
            "identify": identify or {"id": "id::varchar"}, "fields": fields or ({} if identify else {"plan": "plan"}),
        }))  # fmt: skip

    def rows(self, values: str) -> None:
        with opened(self.folder / "w.duckdb") as db:
            db.execute("CREATE OR REPLACE TABLE t (id BIGINT, plan VARCHAR)")
            db.execute(f"INSERT INTO t {values}")

    def run(self) -> Any:
        return load(self.folder).run("s")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sandbox = CustomerIoSandbox()
    with serving(sandbox.app()) as url:
        yield Place(tmp_path, sandbox, url)


def test_a_record_that_is_too_large_is_not_sent_and_keeps_nobody_back(place: Place) -> None:
    place.rows("VALUES (1, 'pro'), (2, repeat('x', 40000)), (3, repeat('x', 2000))")
    run = place.run()
    assert (run.delivered, run.rejected) == (1, 2)
    assert {letter["error"]["code"] for letter in run.dead_letters()} == {"too_large", "invalid"}


def test_large_plans_stay_below_the_size_of_a_batch(place: Place) -> None:
    place.rows("SELECT i, repeat('x', 900) FROM range(2500) t(i)")
    run = place.run()
    assert (run.delivered, run.rejected) == (2500, 0)
    assert not run.verified.mismatches


def test_events_are_sent_once(place: Place) -> None:
    place.sync("events/renewed", "insert", person="id::varchar", plan="plan")
    place.rows("VALUES (1, 'pro'), (2, 'team')")
    assert place.run().delivered == 2
    assert place.run().delivered == 0
    events = [event for person in place.sandbox.people.values() for event in person.events]
    assert [event["attributes"]["plan"] for event in events] == ["pro", "team"]


def test_an_event_whose_answer_was_lost_is_not_sent_again(place: Place) -> None:
    place.sync("events/renewed", "insert", person="id::varchar", plan="plan")
    place.rows("VALUES (1, 'pro')")
    place.sandbox.faults = Faults(reset_after=1.0)
    assert place.run().unknown == 1
    place.sandbox.faults = Faults()
    place.run()
    assert sum(len(person.events) for person in place.sandbox.people.values()) == 1


def test_a_failure_that_only_its_log_tells_of_is_found_by_reading_back(place: Place) -> None:
    """Two people cannot have one address: Customer.io says 200."""
    place.sync(email="plan")
    place.rows("VALUES (1, 'ada@example.com'), (2, 'ada@example.com')")
    run = place.run()
    assert run.delivered == 2
    assert len(run.verified.mismatches) == 1


def test_its_own_client_drives_the_simulation(place: Place) -> None:
    client = customerio.CustomerIO("site", "key")
    client.base_url = f"{place.url}/api/v1"
    client.identify(id="7", email="grace@example.com", plan="pro")
    client.track(customer_id="7", name="renewed", data={"plan": "pro"})
    (person,) = place.sandbox.people.values()
    assert person.attributes == {"id": "7", "email": "grace@example.com", "plan": "pro"}
    assert person.events[0]["name"] == "renewed"
    with pytest.raises(customerio.CustomerIOException, match="1000 bytes"):
        client.identify(id="7", plan="x" * 2000)
    client.delete(customer_id="7")
    assert not place.sandbox.people


def _related(place: Place) -> set[tuple[str, str, str]]:
    return {(name, *who) for (_, name), thing in place.sandbox.objects.items() for who in thing.people}


def test_objects_come_change_and_go(place: Place) -> None:
    place.rows("VALUES (1, 'pro'), (2, 'free'), (3, NULL)")
    place.sync("objects/1", "mirror", identify={"object_id": "id::varchar"}, plan="plan")
    run = place.run()
    assert (run.status, run.delivered) == ("succeeded", 3), run.error
    assert {name: thing.attributes for (_, name), thing in place.sandbox.objects.items()} == {
        "1": {"plan": "pro"}, "2": {"plan": "free"}, "3": {},
    }  # fmt: skip
    place.rows("VALUES (1, 'team'), (2, NULL)")
    assert place.run().delivered == 3
    assert {name: thing.attributes for (_, name), thing in place.sandbox.objects.items()} == {
        "1": {"plan": "team"}, "2": {},
    }  # fmt: skip


def test_relationships_come_and_go(place: Place) -> None:
    """Both ends are the model's key: a row whose end changes is another relationship."""
    place.rows("VALUES (1, 'a'), (2, 'a'), (3, 'b')")
    place.key = ("id", "plan")
    place.sync("relationships/1", "mirror", identify={"object_id": "plan", "person.id": "id::varchar"})
    run = place.run()
    assert (run.status, run.delivered) == ("succeeded", 3), run.error
    assert _related(place) == {("a", "id", "1"), ("a", "id", "2"), ("b", "id", "3")}
    place.rows("VALUES (1, 'b'), (3, 'b')")
    assert place.run().status == "succeeded"
    assert _related(place) == {("b", "id", "1"), ("b", "id", "3")}


@pytest.mark.parametrize(
    ("object", "identify", "said"),
    [
        ("objects/9", {"object_id": "id::varchar"}, "object type does not exist"),
        ("relationships/1", {"object_id": "plan"}, "a relationship is identified by its two ends"),
        ("things", {"id": "id::varchar"}, "no object 'things'"),
    ],
)
def test_what_is_no_object_is_said(place: Place, object: str, identify: dict[str, str], said: str) -> None:
    place.rows("VALUES (1, 'a'), (2, 'b')")
    place.sync(object, identify=identify)
    run = place.run()
    assert said in f"{run.error} {[letter['error'] for letter in run.dead_letters()]}"
    assert not place.sandbox.objects


def project(folder: Path, url: str, sync: dict[str, Any], table: str) -> Any:
    keys = {"site_id": "local-site", "api_key": "local-key", "app_key": "local-app"}
    return places.project(folder, {"type": "customerio", "base_url": url, **keys}, sync, table)


def test_an_event_of_nobody_keeps_no_other_back(tmp_path: Path) -> None:
    sync = {
        "object": "events/paid",
        "mode": "insert",
        "identify": {"id": "id"},
        "fields": {"email": "email"},
    }
    table = "SELECT i::varchar AS id, if(i = 2, NULL, 'p' || i || '@example.com') AS email FROM range(5) t(i)"
    with serving(CustomerIoSandbox().app()) as url, project(tmp_path, url, sync, table) as made:
        report = made.run("s").report
        (letter,) = made.dead_letters("s")
    assert (report.status, report.delivered, report.rejected) == ("partial", 4, 1)
    assert "one of `person`, `email` and `cio_id` has a value" in letter["error"]["message"]


def test_a_nested_attribute_is_read_back(tmp_path: Path) -> None:
    sync = {
        "object": "people",
        "identify": {"id": "id"},
        "fields": {"address.city": "city", "address.geo.lat": "lat"},
    }
    table = "SELECT i::varchar AS id, 'Bern' AS city, 46.9 AS lat FROM range(3) t(i)"
    with serving(CustomerIoSandbox().app()) as url, project(tmp_path, url, sync, table) as made:
        report = made.run("s").report
    assert (report.status, report.delivered) == ("succeeded", 3)
    assert (report.verified.checked, report.verified.mismatches) == (3, ())


def test_batches_of_events_are_not_larger_than_customerio_takes(tmp_path: Path) -> None:
    sandbox = CustomerIoSandbox(track=10_000)
    sync = {
        "object": "events/a_name_of_some_length",
        "mode": "insert",
        "identify": {"id": "id"},
        "fields": {"email": "email", "note": "note"},
    }
    table = "SELECT i::varchar AS id, 'p' || i || '@example.com' AS email, repeat('x', 430) AS note FROM range(3000) t(i)"
    with serving(sandbox.app()) as url, project(tmp_path, url, sync, table) as made:
        assert made.run("s").report.delivered == 3000
    assert not [one for one in sandbox.requests if one.status == 413]


def test_a_text_in_another_case_is_another_text() -> None:
    there = make("https://track.customer.io", None)  # type: ignore[arg-type]
    assert not there.same(Field("name", FieldType.STRING), "ada", "ADA")
    assert there.same(Field("ok", FieldType.BOOLEAN), "true", "True")
    assert there.same(Field("n", FieldType.NUMBER), "3.0", "3")
    assert there.same(Field("j", FieldType.JSON), '{"a": 1}', '{"a":1}')
