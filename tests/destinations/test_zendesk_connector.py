"""The Zendesk connector against the simulated account and against strange answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiohttp import web
from pydantic import ValidationError
from vendor_recordings import answering, at

from backhaul.destinations.kit import Answer, Http, Job
from backhaul.destinations.zendesk import Zendesk, ZendeskConfig
from backhaul.errors import Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.project import load
from backhaul.sandbox.kit import Faults, serve
from backhaul.sandbox.zendesk import ZendeskSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import (
    Delivered,
    Field,
    FieldType,
    Gone,
    Op,
    Outcome,
    Outcomes,
    RefusalClass,
    Rejected,
    Retry,
)


@asynccontextmanager
async def account(**config: Any) -> AsyncIterator[tuple[ZendeskSandbox, Zendesk]]:
    sandbox = ZendeskSandbox(minute=10_000)
    async with serve(sandbox) as url, at(url, lambda url, http: make(url, http, **config)) as desk:
        yield sandbox, desk


def make(url: str, http: Http, **config: Any) -> Zendesk:
    values = {"access_token": "t", "base_url": url, "poll_interval": "0.01s", **config}
    return Zendesk(ZendeskConfig(**values), http)


async def batch(
    desk: Zendesk, op: Op, *rows: Mapping[str, Any], by: str = "external_id", object: str = "users",
    known: list[str | None] | None = None,
) -> RecordBatch:  # fmt: skip
    names = dict.fromkeys([by, *(name for row in rows for name in row)])
    schema = await desk.describe(object)
    return RecordBatch(
        op, object, (by,), tuple(schema.fields[name] for name in names), rows, remote_ids=known
    )


async def write(desk: Zendesk, op: Op, *rows: Mapping[str, Any], **more: Any) -> dict[str, Outcome]:
    sent = await batch(desk, op, *rows, **more)
    said = await desk.write(sent)
    while isinstance(said, Job):
        said = await desk.collect(sent, said.id)
    return {item.key: item for item in said.items}


def people(*keys: str, **values: Any) -> list[dict[str, Any]]:
    return [{"external_id": key, "name": key.title(), **values} for key in keys]


async def test_a_completed_job_hides_failed_rows_and_each_finds_its_record() -> None:
    async with account() as (sandbox, desk):
        rows = people("ada", "bob", "cyd")
        rows[1] |= {"email": "not an address"}
        said = await write(desk, Op.UPSERT, *rows)
        assert isinstance(said["ada"], Delivered)
        assert said["bob"] == Rejected(
            "bob", "RecordInvalid", "Email: not an address is not properly formatted"
        )
        assert isinstance(said["cyd"], Delivered)
        own = {str(record.values["external_id"]): str(record.id) for record in sandbox.rooms["users"].live()}
        assert own == {key: said[key].remote_id for key in ("ada", "cyd")}  # type: ignore[union-attr]


async def test_i10_rows_in_another_order_and_missing_ones_are_told_apart() -> None:
    async with account() as (sandbox, desk):
        sandbox.faults = Faults(shuffle=True, omit=0.5)
        said = await write(desk, Op.UPSERT, *people(*(f"user{number}" for number in range(40))))
        held = {record.values["external_id"]: str(record.id) for record in sandbox.rooms["users"].live()}
        assert 5 < len(said) < 35
        assert all(item.remote_id == held[key] for key, item in said.items())  # type: ignore[union-attr]


async def test_a_job_of_a_part_of_the_batch_blames_nobody_by_place() -> None:
    async with account() as (_, desk):
        rows = people("ada", "bob", "cyd")
        rows[1] |= {"email": "not an address"}
        whole = await batch(desk, Op.UPSERT, *people("zoe"), *rows)
        handed = await desk.write(await batch(desk, Op.UPSERT, *rows))
        assert isinstance(handed, Job)
        said = await desk.collect(whole, handed.id)
        assert {item.key for item in said.items} == {"ada", "cyd"}  # type: ignore[union-attr]


async def test_a_working_job_is_asked_again_and_of_a_forgotten_one_the_records_tell() -> None:
    async with account() as (sandbox, desk):
        sandbox.job_seconds = 60.0
        sent = await batch(desk, Op.UPSERT, *people("ada", "bob"))
        handed = await desk.write(sent)
        assert isinstance(handed, Job)
        assert await desk.collect(sent, handed.id) == handed
        assert not sandbox.rooms["users"].live(), "what is taken in is not written yet"
        sandbox.work_on(everything=True)
        sandbox.jobs.clear()
        bob = sandbox.rooms["users"].held("external_id", "bob")
        ada = sandbox.rooms["users"].held("external_id", "ada")
        assert bob is not None
        assert ada is not None
        bob.values["name"] = "Not Bob"
        told = await desk.collect(sent, handed.id)
        assert told == Outcomes((Delivered("ada", str(ada.id)),)), "of the other nothing is known"


async def test_a_delete_of_a_forgotten_job_is_done_where_the_record_is_gone() -> None:
    async with account() as (sandbox, desk):
        await write(desk, Op.UPSERT, *people("ada", "bob", "cyd", "dan"))
        sent = await batch(desk, Op.DELETE, *({"external_id": key} for key in ("ada", "bob", "cyd", "dan")))
        handed = await desk.write(sent)
        assert isinstance(handed, Job)
        sandbox.jobs.clear()
        await write(desk, Op.UPSERT, *people("dan"))
        told = await desk.collect(sent, handed.id)
        assert told == Outcomes(tuple(map(Delivered, ("ada", "bob", "cyd"))))


async def test_nothing_is_asked_about_a_user_that_was_deleted_by_its_email() -> None:
    async with account() as (sandbox, desk):
        made = await write(desk, Op.UPSERT, {"email": "ada@x.com", "name": "Ada"}, by="email")
        own = made["ada@x.com"].remote_id  # type: ignore[union-attr]
        before = len(sandbox.requests)
        said = await write(desk, Op.DELETE, {"email": "ada@x.com"}, by="email", known=[own])
        assert said == {"ada@x.com": Delivered("ada@x.com", own)}
        assert [one.method for one in list(sandbox.requests)[before:] if "_fields" not in one.path] == [
            "DELETE"
        ]


async def test_tags_that_custom_fields_add_are_no_difference() -> None:
    async with account() as (_, desk):
        custom = {"user_fields.plan": "pro", "user_fields.trial": True}
        await desk.write(await batch(desk, Op.UPSERT, *people("ada", tags=["vip"], **custom)))
        held = (await desk.read("users", ("external_id",), ["ada"], ["tags"]))["ada"]["tags"]
        assert held == ["vip", "pro", "trial"]
        field = (await desk.describe("users")).fields["tags"]
        assert desk.same(field, ["vip"], held)
        assert not desk.same(field, ["vip", "new"], held)
        assert not desk.same(field, ["vip"], [*held, "by hand"])


async def test_an_account_that_may_not_use_bulk_gets_single_calls() -> None:
    async with account() as (sandbox, desk):
        sandbox.bulk_users = False
        rows = people("ada", "bob", "cyd", "dan")
        rows[2] |= {"email": "nowhere"}
        said = await write(desk, Op.UPSERT, *rows)
        assert [type(said[key]) for key in ("ada", "bob", "cyd", "dan")] == [
            Delivered,
            Delivered,
            Rejected,
            Delivered,
        ]
        limits = desk.batch_limits("users", Op.UPSERT, 5_000)
        assert limits is not None
        assert limits.records == 1
        refused = [item for item in sandbox.requests if item.status == 403]
        await write(desk, Op.UPSERT, *people("eve", "fay"))
        assert len(refused) == 1


async def test_updates_and_deletes_go_by_id_and_miss_what_is_gone() -> None:
    async with account() as (sandbox, desk):
        made = await write(desk, Op.UPSERT, *people("ada", "bob"))
        own = [item.remote_id for item in made.values() if isinstance(item, Delivered)]
        said = await write(desk, Op.UPDATE, *people("ada", "bob", "nobody", notes="new"), known=[*own, None])
        assert [type(item) for item in said.values()] == [Delivered, Delivered, Gone]
        moved = await write(desk, Op.UPDATE, *people("ada2", "bob"), known=[*own])
        assert moved["ada2"] == Delivered("ada2", own[0])
        gone = await write(desk, Op.DELETE, {"external_id": "ada2"}, {"external_id": "nobody"})
        assert all(isinstance(item, Delivered) for item in gone.values())
        assert [record.values["external_id"] for record in sandbox.rooms["users"].live()] == ["bob"]
        alone = await write(desk, Op.DELETE, {"external_id": "ada2"}, known=[own[0]])
        assert isinstance(alone["ada2"], Gone)


async def test_organizations_are_made_and_updated_in_two_jobs() -> None:
    async with account() as (sandbox, desk):
        orgs = {"object": "organizations"}
        first = await write(desk, Op.UPSERT, *people("acme", "blue"), **orgs)
        again = await write(desk, Op.UPSERT, *people("acme", "blue", "cyan", notes="x"), **orgs)
        assert [type(item) for item in again.values()] == [Delivered] * 3
        assert {key: again[key] for key in first} == first
        assert len(sandbox.rooms["organizations"].live()) == 3
        taken = await write(
            desk, Op.UPSERT, {"external_id": "d", "name": "Acme"}, {"external_id": "e", "name": "E"}, **orgs
        )
        assert isinstance(taken["d"], Rejected)
        assert isinstance(taken["e"], Delivered)


async def test_a_new_email_becomes_the_primary_one() -> None:
    async with account() as (sandbox, desk):
        await write(desk, Op.UPSERT, *people("ada", email="old@example.com"), *people("bob"))
        said = await write(desk, Op.UPSERT, *people("ada", email="new@example.com"), *people("bob"))
        assert isinstance(said["ada"], Delivered)
        (record,) = [item for item in sandbox.rooms["users"].live() if item.emails]
        assert list(record.emails.values()) == ["new@example.com", "old@example.com"]


async def test_i29_a_user_written_too_often_waits_alone() -> None:
    async with account() as (sandbox, desk):
        made = await write(desk, Op.UPSERT, *people("ada"))
        sandbox.per_user = 1
        known = [made["ada"].remote_id]  # type: ignore[union-attr]
        await write(desk, Op.UPDATE, *people("ada"), known=known)
        said = await write(desk, Op.UPDATE, *people("ada"), known=known)
        assert isinstance(said["ada"], Retry)
        assert said["ada"].after == 27.0


async def test_values_and_nulls_go_out_and_come_back() -> None:
    row = {
        "external_id": "Ada", "name": "Ada", "notes": "n", "tags": ["b", "a"], "user_fields.plan": "pro", "user_fields.mrr": 5.1,
        "user_fields.trial": True, "user_fields.renews_on": "2026-03-01", "user_fields.interests": ["api", "voice"],
    }  # fmt: skip
    cleared = {**dict.fromkeys(row), "external_id": "ada", "name": "Ada", "tags": []}
    async with account() as (_, desk):
        fields = (await desk.describe("users")).fields
        for sent in (row, cleared):
            await write(desk, Op.UPSERT, sent)
            (held,) = (await desk.read("users", ("external_id",), ["ada", "none"], list(row))).values()
            assert all(desk.same(fields[name], value, held[name]) for name, value in sent.items()), held
        assert not desk.same(fields["user_fields.interests"], ["api"], ["voice"])


async def test_a_comma_in_an_external_id_is_refused_before_anything_is_sent() -> None:
    async with account() as (sandbox, desk):
        said = await write(desk, Op.UPSERT, *people("a,b", "c"))
        assert [(item.key, type(item)) for item in said.values()] == [("a,b", Rejected)]
        assert not sandbox.rooms["users"].records


async def test_what_the_account_has_is_described() -> None:
    async with account() as (_, desk):
        fields = (await desk.describe("users")).fields
        assert fields["user_fields.plan"].choices == ("free", "pro", "enterprise")
        assert fields["user_fields.renews_on"].type is FieldType.DATE
        assert (fields["external_id"].unique, fields["external_id"].case_insensitive) == (True, True)
        with pytest.raises(Halt, match="no object 'tickets'"):
            await desk.describe("tickets")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(401, {}, b'{"error":"Couldn\'t authenticate you"}'), Halt),
        (Answer(429, {"retry-after": "27"}, b'{"error":"APIRateLimitExceeded"}'), Throttled),
        (Answer(429, {}, b'{"error":"TooManyJobs"}'), Throttled),
        (Answer(409, {}, b'{"error":"DatabaseConflict"}'), NotApplied),
        (
            Answer(422, {}, b'{"error":"RecordInvalid","details":{"name":[{"description":"too short"}]}}'),
            Refused,
        ),
        (Answer(500, {}, b"<html>"), Unsettled),
        (Answer(503, {"retry-after": "3"}, b""), Throttled),
    ],
)
async def test_whole_answers_are_classified(answer: Answer, kind: type[Exception]) -> None:
    async with account() as (_, desk):
        assert type(desk.classify(answer)) is kind


async def test_what_is_left_of_the_minute_is_told() -> None:
    async with account() as (_, desk):
        left = desk.left(Answer(200, {"ratelimit-remaining": "12", "ratelimit-reset": "7"}))
    assert [(per, said.requests, said.seconds) for per, said in left.items()] == [(60.0, 12, 7.0)]


@pytest.mark.parametrize(
    "given",
    [{}, {"email": "a@b.c"}, {"api_token": "t"}, {"email": "a@b.c", "api_token": "t", "access_token": "t"}],
)
def test_one_credential_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="api_token"):
        ZendeskConfig(base_url="http://127.0.0.1", **given)


def test_a_sync_from_start_to_end_with_an_api_token(tmp_path: Path) -> None:
    sandbox = ZendeskSandbox()
    sandbox.token, sandbox.job_seconds = "sandbox", 0.2
    with serving(sandbox.app()) as url, duckdb.connect(str(tmp_path / "w.duckdb")) as db:
        db.execute(
            "CREATE TABLE people AS SELECT i::VARCHAR AS id, concat('U', i) AS name, i * 1.5 AS mrr FROM range(250) t(i)"
        )
        db.close()
        desk = {
            "type": "zendesk",
            "base_url": url,
            "email": "ada@example.com",
            "api_token": "sandbox",
            "poll_interval": "0.1s",
        }
        project = {
            "project": "p",
            "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
            "destinations": {"desk": desk},
        }
        sync = {
            "name": "people", "model": {"table": "people", "primary_key": "id"}, "destination": "desk", "object": "users",
            "mode": "mirror", "identify": {"external_id": "id"}, "fields": {"name": "name", "user_fields.mrr": "mrr"},
        }  # fmt: skip
        (tmp_path / "backhaul.yml").write_text(json.dumps(project))
        (tmp_path / "syncs").mkdir()
        (tmp_path / "syncs" / "people.yml").write_text(json.dumps(sync))
        run = load(tmp_path).run("people")
    assert (run.status, run.delivered) == ("succeeded", 250), run.error
    assert not run.verified.mismatches
    posted = [item.records for item in sandbox.requests if item.method == "POST"]
    assert sorted(posted) == [50, 100, 100]


@pytest.mark.parametrize("body", [{}, {"organizations": None}, {"organizations": {"id": 1}}], ids=repr)
async def test_a_look_up_without_a_list_makes_no_organization(body: dict[str, Any]) -> None:
    """What is not there is made: an answer of another form is not taken for that."""
    asked = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.json_response(body)

    async with answering(answer, make) as desk:
        sent = RecordBatch(
            Op.UPSERT,
            "organizations",
            ("external_id",),
            (Field("external_id"), Field("name")),
            people("ada", "bob"),
        )
        with pytest.raises(Unsettled):
            await desk.write(sent)
    assert asked == ["/api/v2/organizations/show_many"]


async def test_a_failed_job_of_moves_says_of_nobody_that_it_is_gone() -> None:
    async with account() as (sandbox, desk):
        keys = ("ada", "bob", "cyd", "dan")
        made = await write(desk, Op.UPSERT, *people(*keys))
        sandbox.failing_jobs = 1
        moved = people(*(f"{key}2" for key in keys))
        assert await write(desk, Op.UPDATE, *moved, known=[made[key].remote_id for key in keys]) == {}  # type: ignore[union-attr]


def test_a_failed_job_of_moves_makes_no_twins(tmp_path: Path) -> None:
    sandbox = ZendeskSandbox(minute=10_000)
    (tmp_path / "syncs").mkdir()
    (tmp_path / "syncs" / "s.yml").write_text(json.dumps({
        "name": "s", "model": {"table": "people", "primary_key": "id"}, "destination": "desk", "object": "users",
        "mode": "upsert", "identify": {"external_id": "ext"}, "fields": {"name": "ext"},
    }))  # fmt: skip

    def model(suffix: str) -> None:
        with opened(tmp_path / "w.duckdb") as db:
            people = f"SELECT i AS id, concat('u', i, '{suffix}') AS ext FROM range(20) t(i)"
            db.execute(f"CREATE OR REPLACE TABLE people AS {people}")

    with serving(sandbox.app()) as url:
        desk = {"type": "zendesk", "base_url": url, "access_token": "sandbox", "poll_interval": "0.1s"}
        (tmp_path / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"desk": desk},
        }))  # fmt: skip
        model("")
        assert load(tmp_path).run("s").delivered == 20
        model("x")
        sandbox.failing_jobs = 1
        assert sum(load(tmp_path).run("s").delivered for _ in range(2)) == 20
    keys = sorted(str(record.values["external_id"]) for record in sandbox.rooms["users"].live())
    assert keys == sorted(f"u{number}x" for number in range(20))


@pytest.mark.parametrize(("object", "op"), [("organizations", Op.UPSERT), ("users", Op.UPDATE)])
async def test_one_that_was_deleted_there_is_gone_in_a_batch(object: str, op: Op) -> None:
    async with account() as (sandbox, desk):
        keys = ("a", "b", "c", "d")
        made = await write(desk, Op.UPSERT, *people(*keys), object=object)
        room = sandbox.rooms[object]
        lost = room.held("external_id", "b")
        assert lost is not None
        room.remove(lost)
        own = [made[key].remote_id for key in keys]  # type: ignore[union-attr]
        said = await write(desk, op, *people(*keys, notes="n"), known=own, object=object)
    assert {key: type(outcome) for key, outcome in said.items()} == {
        "a": Delivered, "b": Gone, "c": Delivered, "d": Delivered,
    }  # fmt: skip


async def test_an_address_that_could_not_be_made_primary_is_not_delivered() -> None:
    text = "You have exceeded the rate limit for updating a single unique user."
    identities = [
        {"id": 1, "type": "email", "value": "old@example.com", "primary": True},
        {"id": 2, "type": "email", "value": "new@example.com", "primary": False},
    ]

    def answer(request: web.Request) -> web.Response:
        if request.path.endswith("create_or_update"):
            return web.json_response({"user": {"id": 7, "external_id": "ada", "email": "old@example.com"}})
        if request.path.endswith("identities"):
            return web.json_response({"identities": identities})
        return web.Response(status=429, text=text, headers={"Retry-After": "27"})

    fields = (Field("external_id"), Field("name"), Field("email"))
    sent = RecordBatch(Op.UPSERT, "users", ("external_id",), fields, people("ada", email="new@example.com"))
    async with answering(answer, make) as desk:
        assert (await desk.write(sent)).items == (Retry("ada", text, 27.0),)


@pytest.mark.parametrize("shift", [0, 1])
async def test_failed_rows_with_their_place_as_id_are_believed_where_the_others_are_named(shift: int) -> None:
    """support.zendesk.com, create_or_update_many: results of a real job."""
    rows = people("ada", "bob", "cyd", "dan", "eve")
    rows[1]["email"] = rows[3]["email"] = "not an address"
    async with account() as (sandbox, desk):
        sent = await batch(desk, Op.UPSERT, *rows)
        job = await desk.write(sent)
        assert isinstance(job, Job)
        ((_, status),) = sandbox.jobs.values()
        for row in status["results"]:
            if "index" in row:
                row["id"] = row.pop("index") + shift
        found = await desk.collect(sent, job.id)
        assert not isinstance(found, Job)
        said = {item.key: type(item) for item in found.items}
    refused = {} if shift else {"bob": Rejected, "dan": Rejected}
    assert said == {"ada": Delivered, "cyd": Delivered, "eve": Delivered, **refused}


async def test_rows_of_a_bulk_create_have_an_id_and_a_place_alone() -> None:
    """developer.zendesk.com, job statuses, Bulk create."""
    async with account() as (sandbox, desk):
        sent = await batch(desk, Op.UPSERT, *people("ada", "bob", "cyd", "dan"), object="organizations")
        job = await desk.write(sent)
        assert isinstance(job, Job)
        ((_, status),) = sandbox.jobs.values()
        status["results"] = [{"id": row["id"], "index": place} for place, row in enumerate(status["results"])]
        said = await desk.collect(sent, job.id)
        assert not isinstance(said, Job)
    assert [type(item) for item in said.items] == [Delivered] * 4


async def test_a_record_that_a_failed_delete_does_not_name_has_no_reason_of_another() -> None:
    async with account() as (sandbox, desk):
        await write(desk, Op.UPSERT, *people("ada", "bob", "cyd"))
        rows = [{"external_id": key} for key in ("ada", "bob", "cyd", "nobody")]
        sent = await batch(desk, Op.DELETE, *rows)
        sandbox.failing_jobs = 1
        job = await desk.write(sent)
        assert isinstance(job, Job)
        _, status = sandbox.jobs[job.id]
        status |= {
            "status": "completed",
            "results": [{"error": "RecordNotFound", "details": "not there", "index": 3}],
        }
        said = await desk.collect(sent, job.id)
        assert not isinstance(said, Job)
    assert [item.key for item in said.items] == ["nobody"]


@pytest.mark.parametrize("status", [404, 422])
@pytest.mark.parametrize("count", [1, 5])
async def test_a_user_whose_organization_is_not_there_waits_for_it(status: int, count: int) -> None:
    """A 404 for a user who is to be made, and a 422 that names the attribute (reports of client libraries)."""
    async with account() as (sandbox, desk):
        sandbox.unknown_organization = status
        rows = [*people(*"abcd"[: count - 1]), *people("z", organization_id=12)]
        try:
            found = await write(desk, Op.UPSERT, *rows)
        except Refused as refused:  # of a request with one record
            assert (count, status, refused.kind) == (1, 422, RefusalClass.REFERENCE)
            return
        missing = found.pop("z")
        assert isinstance(missing, Rejected)
        assert (type(missing), missing.kind) == (Rejected, RefusalClass.REFERENCE)
        assert {type(item) for item in found.values()} <= {Delivered}
        made = await write(desk, Op.UPSERT, {"external_id": "o", "name": "O"}, object="organizations")
        number = int(made["o"].remote_id)  # type: ignore[union-attr]
        assert isinstance(
            (await write(desk, Op.UPSERT, *people("z", organization_id=number)))["z"], Delivered
        )
