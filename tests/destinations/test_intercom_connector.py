"""The Intercom connector against the simulated workspace and against strange answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from vendor_recordings import answering, at

from backhaul.destinations.intercom import Intercom, IntercomConfig
from backhaul.destinations.intercom.fields import standard_fields
from backhaul.destinations.kit import Answer, Http
from backhaul.errors import Halt, Throttled, Unsettled
from backhaul.project import load
from backhaul.sandbox.intercom import IntercomSandbox
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Gone, Op, Outcome, Rejected


@asynccontextmanager
async def workspace(**config: Any) -> AsyncIterator[tuple[IntercomSandbox, Intercom]]:
    sandbox = IntercomSandbox()
    async with serve(sandbox) as url, at(url, lambda url, http: make(url, http, **config)) as crm:
        yield sandbox, crm


def make(url: str, http: Http, **config: Any) -> Intercom:
    return Intercom(IntercomConfig(**{"access_token": "t", "base_url": url, **config}), http)


async def write(
    crm: Intercom, op: Op, row: Mapping[str, Any], *, by: str = "external_id", object: str = "contacts",
    known: str | None = None,
) -> Outcome | None:  # fmt: skip
    schema = await crm.describe(object)
    fields = tuple(schema.fields[name] for name in dict.fromkeys([by, *row]))
    outcomes = await crm.write(RecordBatch(op, object, (by,), fields, [row], remote_ids=[known]))
    assert len(outcomes.items) < 2
    return outcomes.items[0] if outcomes.items else None


async def test_upsert_creates_then_adopts_what_a_lost_state_does_not_know() -> None:
    async with workspace() as (sandbox, crm):
        first = await write(crm, Op.UPSERT, {"external_id": "7", "email": "a@example.com", "name": "Ada"})
        again = await write(crm, Op.UPSERT, {"external_id": "7", "email": "a@example.com", "name": "Ada L"})
        assert isinstance(first, Delivered)
        assert first.created
        assert again == Delivered("7", first.remote_id)
        (held,) = sandbox.contacts.live.values()
        assert held.values["name"] == "Ada L"


async def test_a_contact_without_an_external_id_is_adopted_by_its_email() -> None:
    async with workspace() as (sandbox, crm):
        made = await write(crm, Op.UPSERT, {"email": "a@example.com"}, by="email")
        adopted = await write(crm, Op.UPSERT, {"external_id": "7", "email": "a@example.com"})
        assert isinstance(made, Delivered)
        assert adopted == Delivered("7", made.remote_id)
        assert [item.values["external_id"] for item in sandbox.contacts.live.values()] == ["7"]


@pytest.mark.parametrize("archived", [False, True])
async def test_another_ones_contact_is_not_taken_over(archived: bool) -> None:
    """I21."""
    async with workspace() as (sandbox, crm):
        other = await write(crm, Op.UPSERT, {"external_id": "1", "email": "a@example.com"})
        assert isinstance(other, Delivered)
        if archived:
            await write(crm, Op.DELETE, {"external_id": "1"})
        refused = await write(crm, Op.UPSERT, {"external_id": "2", "email": "a@example.com"})
        assert isinstance(refused, Rejected)
        assert refused.code == "conflict"
        assert other.remote_id in refused.message
        assert len(sandbox.contacts.archived) == archived


async def test_an_archived_contact_comes_back() -> None:
    async with workspace() as (sandbox, crm):
        first = await write(crm, Op.UPSERT, {"external_id": "7", "name": "Ada"})
        assert await write(crm, Op.DELETE, {"external_id": "7"}) == Delivered("7", first.remote_id)
        assert not sandbox.contacts.live
        back = await write(crm, Op.UPSERT, {"external_id": "7", "name": "Back"})
        assert back == Delivered("7", first.remote_id)
        assert sandbox.contacts.live[first.remote_id].values["name"] == "Back"


async def test_erase_deletes_for_good() -> None:
    async with workspace(deletes="erase") as (sandbox, crm):
        first = await write(crm, Op.UPSERT, {"external_id": "7"})
        await write(crm, Op.DELETE, {"external_id": "7"}, known=first.remote_id)
        assert sandbox.contacts.erased == {first.remote_id}
        assert isinstance(await write(crm, Op.DELETE, {"external_id": "7"}, known=first.remote_id), Gone)


async def test_a_known_contact_that_is_no_more_is_gone() -> None:
    async with workspace() as (_, crm):
        gone = await write(crm, Op.UPDATE, {"external_id": "7", "name": "x"}, known="64aa")
        assert gone == Gone("7", "not_found", "User Not Found")
        assert isinstance(await write(crm, Op.UPDATE, {"external_id": "7"}), Gone)


async def test_a_known_contact_changes_its_identifier() -> None:
    async with workspace() as (sandbox, crm):
        first = await write(crm, Op.UPSERT, {"external_id": "old"})
        moved = await write(crm, Op.UPDATE, {"external_id": "new"}, known=first.remote_id)
        assert moved == Delivered("new", first.remote_id)
        assert [item.values["external_id"] for item in sandbox.contacts.live.values()] == ["new"]


async def test_by_email_several_contacts_are_ambiguous_and_leads_are_not_made() -> None:
    async with workspace() as (sandbox, crm):
        sandbox.unique_emails = False
        for number in range(2):
            await write(crm, Op.UPSERT, {"external_id": str(number), "email": "a@example.com"})
        twice = await write(crm, Op.UPSERT, {"email": "A@example.com", "name": "x"}, by="email")
        assert isinstance(twice, Rejected)
        assert twice.code == "ambiguous"
        lead = await write(crm, Op.UPSERT, {"email": "l@example.com", "role": "lead"}, by="email")
        assert isinstance(lead, Rejected)
        with pytest.raises(Halt, match="inserted by e-mail"):
            await write(crm, Op.INSERT, {"email": "n@example.com"}, by="email")


async def test_values_nulls_and_moments_go_out_and_come_back() -> None:
    row = {"external_id": "7", "name": "Ada", "custom_attributes.renews_at": "2026-03-01T12:00:00Z",
           "custom_attributes.trial": True, "signed_up_at": None}  # fmt: skip
    async with workspace() as (sandbox, crm):
        await write(crm, Op.UPSERT, row)
        (item,) = sandbox.contacts.live.values()
        assert item.custom == {"renews_at": 1772366400, "trial": True}
        (held,) = (await crm.read("contacts", ("external_id",), ["7"], list(row))).values()
        fields = (await crm.describe("contacts")).fields
        assert all(crm.same(fields[name], value, held[name]) for name, value in row.items())
        await write(crm, Op.UPSERT, {**dict.fromkeys(row), "external_id": "7"})
        (held,) = (await crm.read("contacts", ("external_id",), ["7", "none"], list(row))).values()
        assert set(held.values()) == {"7", None}


@pytest.mark.parametrize("single", [False, True])
async def test_companies_are_upserted_and_keep_their_company_id(single: bool) -> None:
    async with workspace() as (sandbox, crm):
        sandbox.single_company = single
        row = {"company_id": "c/1", "name": "Acme", "plan": "Pro", "size": 10, "custom_attributes.seats": 3}
        first = await write(crm, Op.UPSERT, row, by="company_id", object="companies")
        assert isinstance(first, Delivered)
        assert (
            await write(crm, Op.UPSERT, {**row, "size": 11}, by="company_id", object="companies")
        ).remote_id == first.remote_id
        held = await crm.read(
            "companies", ("company_id",), ["c/1"], ["plan", "size", "custom_attributes.seats"]
        )
        assert held == {"c/1": {"plan": "Pro", "size": 11, "custom_attributes.seats": 3}}
        moved = await write(
            crm, Op.UPDATE, {"company_id": "c2"}, by="company_id", object="companies", known=first.remote_id
        )
        assert isinstance(moved, Rejected)
        assert moved.code == "company_id"
        await write(crm, Op.DELETE, {"company_id": "c/1"}, by="company_id", object="companies")
        assert not sandbox.companies.live
        assert crm.batch_limits("companies", Op.INSERT) is None


async def test_what_the_workspace_has_is_described() -> None:
    async with workspace() as (_, crm):
        fields = (await crm.describe("contacts")).fields
        assert fields["custom_attributes.renews_at"].type is FieldType.DATETIME
        assert fields["custom_attributes.plan_tier"].max_length == 255
        assert (fields["role"].choices, fields["email"].case_insensitive) == (("user", "lead"), True)
        assert not fields["id"].writable
        with pytest.raises(Halt, match="no object 'contact'"):
            await crm.describe("contact")


def body(code: str, message: str = "") -> bytes:
    return json.dumps(
        {"type": "error.list", "request_id": "r", "errors": [{"code": code, "message": message}]}
    ).encode()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(401, {}, body("unauthorized", "Access Token Invalid")), Halt),
        (Answer(403, {}, body("api_plan_restricted")), Halt),
        (Answer(406, {}, body("media_type_not_acceptable")), Halt),
        (Answer(400, {}, body("intercom_version_invalid")), Halt),
        (Answer(404, {}, b"<html></html>"), None),
        (Answer(500, {}, body("server_error")), Unsettled),
        (Answer(503, {}, body("service_unavailable")), Unsettled),
        (Answer(409, {}, body("conflict")), None),
    ],
)
async def test_whole_answers_are_classified(answer: Answer, kind: type[Exception] | None) -> None:
    async with workspace() as (_, crm):
        found = crm.classify(answer)
    if answer.body.startswith(b"<"):
        assert found is not None  # a page says nothing of a record
    else:
        assert type(found) is (kind or type(None))


async def test_a_429_waits_for_the_end_of_its_window() -> None:
    """I29."""
    headers = {
        "x-ratelimit-reset": "1617223189",
        "x-ratelimit-remaining": "0",
        "date": "Wed, 31 Mar 2021 20:39:42 GMT",
    }
    async with workspace() as (_, crm):
        error = crm.classify(Answer(429, headers, body("rate_limit_exceeded")))
        left = crm.left(Answer(200, headers | {"x-ratelimit-remaining": "12"}))
    assert isinstance(error, Throttled)
    assert error.after == 7.0
    assert [(per, said.requests, said.seconds) for per, said in left.items()] == [(10.0, 12, 7.0)]


@pytest.mark.parametrize("text", ["{}", '{"type": "contact"}', "[]", "", "<html>"])
async def test_a_200_that_names_no_contact_is_not_success(text: str) -> None:
    """I11."""

    def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    async with answering(handler, make) as crm:
        batch = RecordBatch(
            Op.UPSERT, "contacts", ("external_id",), (Field("external_id"),), [{"external_id": "7"}]
        )
        if text in ("{}", '{"type": "contact"}'):
            assert (await crm.write(batch)).items == ()
        else:
            with pytest.raises(Unsettled):
                await crm.write(batch)


@pytest.mark.parametrize(
    ("by", "text"),
    [("external_id", "{}"), ("external_id", '{"type": "contact"}'), ("email", '{"type": "list"}'),
     ("email", '{"type": "list", "data": {}}'), ("email", '{"type": "list", "data": [{}]}')],
)  # fmt: skip
async def test_a_look_up_that_names_no_contact_does_not_say_that_it_is_gone(by: str, text: str) -> None:
    """I11."""

    def handler(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="application/json")

    async with answering(handler, make) as crm:
        with pytest.raises(Unsettled):
            await crm.write(RecordBatch(Op.DELETE, "contacts", (by,), (Field(by),), [{by: "7"}]))
        with pytest.raises(Unsettled):
            await crm.lookup("contacts", (by,), ["7"])


def project(folder: Path, url: str, count: int) -> None:
    (folder / "syncs").mkdir()
    with opened(folder / "w.duckdb") as db:
        db.execute(
            "CREATE TABLE people AS SELECT i::VARCHAR AS id, concat('u', i, '@example.com') AS email, "
            f"DATE '2026-01-01' + i::INTEGER AS renews FROM range({count}) t(i)"
        )
    crm = {"type": "intercom", "base_url": url, "access_token": "sandbox", "concurrency": 4}
    (folder / "backhaul.yml").write_text(
        json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"crm": crm},
        })
    )  # fmt: skip
    sync = {
        "name": "people", "model": {"table": "people", "primary_key": "id"}, "destination": "crm", "object": "contacts",
        "mode": "mirror", "identify": {"external_id": "id"}, "fields": {"email": "email", "custom_attributes.renews_at": "renews"},
    }  # fmt: skip
    (folder / "syncs" / "people.yml").write_text(json.dumps(sync))


def test_a_workspace_with_a_tenth_of_the_usual_rate_is_never_overrun(tmp_path: Path) -> None:
    """I28: Its headers say so; nothing in backhaul.yml does."""
    sandbox = IntercomSandbox(window=40, interval=2.0)
    with serving(sandbox.app()) as url:
        project(tmp_path, url, 70)
        run = load(tmp_path).run("people")
    assert (run.status, run.delivered) == ("succeeded", 70), run.error
    assert run.verified.checked > 0
    assert not run.verified.mismatches
    assert not [item for item in sandbox.requests if item.status == 429]


CONTACT = {
    "type": "contact", "id": "64aa", "external_id": "7", "role": "user", "email": "a@example.com", "custom_attributes": {},
    "avatar": {"type": "avatar", "image_url": "https://example.org/128Wash.jpg"},
}  # fmt: skip


async def test_an_avatar_and_email_verified_are_read_back_as_the_document_has_them() -> None:
    sent = {"avatar": "https://example.org/128Wash.jpg", "email_verified": "true"}
    async with answering(lambda _: web.json_response(CONTACT), make) as crm:
        fields = standard_fields("contacts")
        held = (await crm.read("contacts", ("external_id",), ["7"], list(sent)))["7"]
        assert [name for name, value in sent.items() if not crm.same(fields[name], value, held[name])] == []
        assert not crm.same(fields["avatar"], "https://example.org/other.jpg", held["avatar"])


async def test_a_lead_is_found_by_its_external_id() -> None:
    """find_by_external_id "only supports users and not leads" (OpenAPI): leads are searched for."""
    async with workspace() as (sandbox, crm):
        assert isinstance(
            await write(crm, Op.UPSERT, {"external_id": "7", "role": "lead", "name": "Ada"}), Delivered
        )
        assert set(await crm.read("contacts", ("external_id",), ["7"], ["name"])) == {"7"}
        assert set(await crm.lookup("contacts", ("external_id",), ["7"])) == {"7"}
        assert isinstance(await write(crm, Op.DELETE, {"external_id": "7"}), Delivered)
        assert not sandbox.contacts.live


async def test_a_lead_that_keeps_another_external_id_is_not_delivered() -> None:
    """As recorded: 200, and the lead has the external_id that Intercom made."""
    held = {**CONTACT, "role": "lead", "external_id": "e0e5636e-3b9a-43a4-81c7-72f2daca1acb"}
    row = {"external_id": "7", "email": "a@example.com"}
    sent = RecordBatch(
        Op.UPSERT, "contacts", ("external_id",), tuple(map(Field, row)), [row], remote_ids=["64aa"]
    )
    async with answering(lambda _: web.json_response(held), make) as crm:
        (said,) = (await crm.write(sent)).items
    assert isinstance(said, Rejected)
    assert "e0e5636e" in said.message


async def test_by_e_mail_values_are_read_by_id_and_new_contacts_are_found_late() -> None:
    async with workspace() as (sandbox, desk):
        await write(desk, Op.UPSERT, {"email": "ada@x.com", "name": "Ada"}, by="email")
        known = next(iter(sandbox.contacts.live))
        sandbox.faults = Faults(lag=60.0)
        await write(desk, Op.UPSERT, {"email": "ada@x.com", "name": "Ada L."}, by="email", known=known)
        await write(desk, Op.UPSERT, {"email": "bob@x.com", "name": "Bob"}, by="email")
        held = await desk.read("contacts", ("email",), ["ada@x.com", "bob@x.com"], ["name"])
        assert held == {"ada@x.com": {"name": "Ada L."}}
        assert desk.read_lag_of("contacts", ("email",)) == 60.0
        assert desk.read_lag_of("contacts", ("external_id",)) == 0.0
