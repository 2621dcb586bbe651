"""Marketo's own ways: errors in HTTP 200, leads by their ids, custom objects, static lists, tokens, the daily quota."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from vendor_recordings import answering, at

import backhaul
from backhaul.destinations.kit import Answer, Http
from backhaul.destinations.marketo import Marketo, MarketoConfig
from backhaul.destinations.marketo.answers import classify
from backhaul.destinations.marketo.fields import same
from backhaul.errors import Expired, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import dated, serving
from backhaul.types import Delivered, Field, FieldType, Gone, Left, Op, Outcome, Rejected, Retry

EMAILS = ("ada@example.com", "bob@example.com", "cy@example.com")


def make(url: str, http: Http) -> Marketo:
    return Marketo(MarketoConfig(base_url=url, client_id="service", client_secret="hidden"), http)


@pytest.fixture
def sandbox() -> MarketoSandbox:
    return MarketoSandbox(calls=10_000)


@pytest.fixture
async def marketo(sandbox: MarketoSandbox) -> AsyncIterator[Marketo]:
    with serving(sandbox.app()) as url:
        async with at(url, make) as made:
            yield made


def batch(
    *rows: dict[str, Any],
    by: tuple[str, ...] = ("email",),
    op: Op = Op.UPSERT,
    object: str = "leads",
    remote_ids: list[str | None] | None = None,
) -> RecordBatch:
    names = dict.fromkeys([*by, *(name for row in rows for name in row)])
    moments = {"signedUpAt": FieldType.DATETIME}
    fields = tuple(Field(name, moments.get(name, FieldType.ANY)) for name in names)
    return RecordBatch(op, object, by, fields, list(rows), remote_ids=remote_ids)


async def written(marketo: Marketo, sent: RecordBatch) -> dict[str, Outcome]:
    outcomes = await marketo.write(sent)
    assert not outcomes.everything
    assert len({item.key for item in outcomes.items}) == len(outcomes.items)
    return {item.key: item for item in outcomes.items}


def kinds(found: dict[str, Outcome]) -> dict[str, type]:
    return {key: type(item) for key, item in found.items()}


async def test_upserts_create_then_update(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    first = await written(marketo, batch(*({"email": email, "plan": "pro"} for email in EMAILS[:2])))
    second = await written(marketo, batch(*({"email": email, "plan": "max"} for email in EMAILS[1:])))
    bob, cy = second[EMAILS[1]], second[EMAILS[2]]
    assert isinstance(bob, Delivered)
    assert isinstance(cy, Delivered)
    assert (bob.created, cy.created) == (False, True)
    assert first[EMAILS[1]] == Delivered(EMAILS[1], bob.remote_id, created=True)
    assert [lead["plan"] for lead in sandbox.records()["leads"].values()] == ["pro", "max", "max"]


async def test_each_record_has_its_own_outcome(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    """I11: HTTP 200 with `success: true` says nothing of a record that was skipped."""
    for own in ("1", "2"):
        sandbox.instance.leads.put(own, {"id": int(own), "email": EMAILS[2]})
    rows = [
        {"email": EMAILS[0], "seats": 3},
        {"email": EMAILS[1], "seats": "many"},
        {"email": EMAILS[2], "seats": 4},
    ]
    found = await written(marketo, batch(*rows))
    assert isinstance(found[EMAILS[0]], Delivered)
    assert found[EMAILS[1]] == Rejected(EMAILS[1], "1003", "Invalid value for field 'seats' and value 'many'")
    assert found[EMAILS[2]] == Rejected(EMAILS[2], "1007", "Multiple lead match lookup criteria")


async def test_a_count_that_is_not_theirs_delivers_nobody(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    """I10: results by place count only where there is one for each record."""
    sandbox.faults = Faults(omit=0.5)
    assert (
        await written(marketo, batch(*({"email": f"p{n}@example.com", "plan": "x"} for n in range(20)))) == {}
    )


async def test_a_result_with_another_id_is_nobodys() -> None:
    """I10"""

    def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/identity"):
            return web.json_response({"access_token": "t", "expires_in": 3600})
        results = [{"id": 2, "status": "updated"}, {"id": 1, "status": "updated"}]
        return web.json_response({"success": True, "result": results})

    rows = [{"email": email, "plan": "x"} for email in EMAILS[:2]]
    async with answering(answer, make) as marketo:
        assert await written(marketo, batch(*rows, op=Op.UPDATE, remote_ids=["1", "2"])) == {}


async def test_a_moved_identifier_updates_the_same_lead(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    """I21: the known id is written to, so that no twin appears."""
    (first,) = (await written(marketo, batch({"email": EMAILS[0], "plan": "pro"}))).values()
    assert isinstance(first, Delivered)
    row = {"email": "new@example.com", "plan": "max"}
    found = await written(marketo, batch(row, op=Op.UPDATE, remote_ids=[first.remote_id]))
    assert found == {"new@example.com": Delivered("new@example.com", first.remote_id)}
    assert [lead["email"] for lead in sandbox.records()["leads"].values()] == ["new@example.com"]


async def test_updates_find_leads_that_have_no_id_yet(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    await written(marketo, batch({"email": EMAILS[0], "plan": "pro"}))
    for own in ("1", "2"):
        sandbox.instance.leads.put(own, {"id": int(own), "email": EMAILS[1]})
    found = await written(
        marketo, batch(*({"email": email, "plan": "max"} for email in EMAILS), op=Op.UPDATE)
    )
    assert kinds(found) == {EMAILS[0]: Delivered, EMAILS[1]: Rejected, EMAILS[2]: Gone}
    assert sandbox.records()["leads"]["7149"]["plan"] == "max"


async def test_deletes_by_id_and_twice(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    await written(marketo, batch(*({"email": email} for email in EMAILS)))
    rows = [{"email": email} for email in EMAILS[:2]]
    sent = batch(*rows, op=Op.DELETE, remote_ids=["7149", None])
    assert kinds(await written(marketo, sent)) == {EMAILS[0]: Delivered, EMAILS[1]: Delivered}
    assert kinds(await written(marketo, sent)) == {EMAILS[0]: Gone, EMAILS[1]: Gone}
    assert [lead["email"] for lead in sandbox.records()["leads"].values()] == [EMAILS[2]]


async def test_null_clears_and_what_is_left_out_stays(marketo: Marketo) -> None:
    row = {
        "email": EMAILS[0],
        "plan": "pro",
        "seats": 3,
        "trial": True,
        "signedUpAt": "2026-01-02T03:04:05.123456Z",
    }
    await written(marketo, batch(row))
    await written(marketo, batch({"email": EMAILS[0], "plan": None, "trial": None}))
    held = await marketo.read(
        "leads", ("email",), [EMAILS[0].upper()], ["plan", "seats", "trial", "signedUpAt"]
    )
    assert held == {
        EMAILS[0].upper(): {
            "email": EMAILS[0], "plan": None, "seats": 3, "trial": False, "signedUpAt": "2026-01-02T03:04:05Z",
        }
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "sent", "held", "is_same"),
    [
        (FieldType.BOOLEAN, None, False, True),
        (FieldType.BOOLEAN, True, False, False),
        (FieldType.DATETIME, "2026-01-02T03:04:05.6Z", "2026-01-01T22:04:05-05:00", True),
        (FieldType.DATETIME, "2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z", False),
        (FieldType.NUMBER, 10.4, "10.40", True),
        (FieldType.STRING, "pro ", "pro", True),
        (FieldType.STRING, "pro", None, False),
    ],
)
def test_what_is_the_same_value(kind: FieldType, sent: Any, held: Any, is_same: bool) -> None:
    marks = Field("f", kind)
    assert same(marks, sent, held) is is_same


async def test_reads_go_page_by_page(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    sandbox.page_size = 2
    await written(marketo, batch(*({"email": email, "plan": "pro"} for email in EMAILS)))
    held = await marketo.read("leads", ("email",), [*EMAILS, "nobody@example.com"], ["plan"])
    assert set(held) == set(EMAILS)


async def test_a_comma_is_refused_before_it_is_misread(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    rows = [{"customerId": "a,b", "plan": "x"}, {"customerId": "c", "plan": "x"}]
    found = await written(marketo, batch(*rows, by=("customerId",)))
    assert kinds(found) == {"a,b": Rejected}
    assert not sandbox.records()["leads"]


async def test_an_id_makes_no_lead(marketo: Marketo) -> None:
    with pytest.raises(Halt, match="gives ids itself"):
        await marketo.write(batch({"id": "1", "plan": "x"}, by=("id",)))


async def test_members_of_a_static_list_come_and_go(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    await written(marketo, batch(*({"email": email} for email in EMAILS[:2])))
    rows = [{"email": email} for email in EMAILS]
    members = batch(*rows, object="lists/1001")
    assert kinds(await written(marketo, members)) == {
        EMAILS[0]: Delivered,
        EMAILS[1]: Delivered,
        EMAILS[2]: Gone,
    }
    held = await marketo.read("lists/1001", ("email",), list(EMAILS), [])
    assert held == {email: {"email": email} for email in EMAILS[:2]}
    leaves = batch(rows[0], object="lists/1001", op=Op.DELETE)
    assert kinds(await written(marketo, leaves)) == {EMAILS[0]: Delivered}
    assert kinds(await written(marketo, leaves)) == {EMAILS[0]: Gone}
    assert set(sandbox.records()["Customers"]) == {"7150"}


async def test_a_list_takes_the_lead_that_has_the_identifier_now(
    marketo: Marketo, sandbox: MarketoSandbox
) -> None:
    """I2: what an earlier answer named is not taken for the lead that is meant."""
    await written(marketo, batch(*({"email": email} for email in EMAILS[:2])))
    moved = batch({"email": EMAILS[1]}, object="lists/1001", op=Op.UPDATE, remote_ids=["7149"])
    assert await written(marketo, moved) == {EMAILS[1]: Delivered(EMAILS[1], "7150")}
    assert set(sandbox.records()["Customers"]) == {"7150"}


async def test_custom_objects_by_one_field(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    rows = [{"vin": "v1", "make": "BMW", "year": 2003}, {"vin": "v2", "make": None, "year": "x"}]
    found = await written(marketo, batch(*rows, by=("vin",), object="customobjects/car_c"))
    assert kinds(found) == {"v1": Delivered, "v2": Rejected}
    assert await marketo.read("customobjects/car_c", ("vin",), ["v1", "v2"], ["make", "year"]) == {
        "v1": {"vin": "v1", "make": "BMW", "year": 2003}
    }
    gone = batch({"vin": "v1"}, {"vin": "v2"}, by=("vin",), object="customobjects/car_c", op=Op.DELETE)
    assert kinds(await written(marketo, gone)) == {"v1": Delivered, "v2": Gone}
    assert not sandbox.records()["car_c"]


async def test_custom_objects_by_several_fields(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    by, kind = ("number", "account"), "customobjects/seat_c"
    rows = [{"number": number, "account": "acme, inc", "plan": "x"} for number in (1, 2)]
    found = await written(marketo, batch(*rows, by=by, object=kind))
    assert set(kinds(found).values()) == {Delivered}
    keys = list(found)
    held = await marketo.read(kind, by, [*keys, '["3","acme, inc"]'], ["plan"])
    assert {key: values["plan"] for key, values in held.items()} == dict.fromkeys(keys, "x")
    update = batch({**rows[0], "plan": "y"}, {**rows[0], "number": 9}, by=by, object=kind, op=Op.UPDATE)
    assert list(kinds(await written(marketo, update)).values()) == [Delivered, Gone]
    assert sorted(record["plan"] for record in sandbox.records()["seat_c"].values()) == ["x", "y"]


async def test_results_of_custom_objects_say_whose_they_are(
    marketo: Marketo, sandbox: MarketoSandbox
) -> None:
    """I10: `seq` names the record, so that an answer in another order is read as it is meant."""
    sandbox.faults = Faults(shuffle=True)
    rows = [{"vin": f"v{n}", "year": n if n % 3 else "x"} for n in range(30)]
    found = await written(marketo, batch(*rows, by=("vin",), object="customobjects/car_c"))
    assert {key for key, item in found.items() if isinstance(item, Rejected)} == {
        f"v{n}" for n in range(0, 30, 3)
    }


async def test_fields_are_described(marketo: Marketo) -> None:
    leads = (await marketo.describe("leads")).fields
    assert (leads["email"].unique, leads["email"].case_insensitive, leads["email"].max_length) == (
        True,
        True,
        255,
    )
    assert (leads["plan"].unique, leads["createdAt"].writable, leads["mrr"].type) == (
        False,
        False,
        FieldType.NUMBER,
    )
    assert leads["notes"].max_length == 30_000
    cars = (await marketo.describe("customobjects/car_c")).fields
    assert (cars["vin"].unique, cars["vin"].writable, cars["marketoGUID"].writable) == (True, True, False)
    seats = (await marketo.describe("customobjects/seat_c")).fields
    assert not [name for name, field in seats.items() if field.unique]
    members = (await marketo.describe("lists/1001")).fields
    assert {name: field.writable for name, field in members.items()} == dict.fromkeys(
        ("id", "email", "customerId"), False
    )


@pytest.mark.parametrize(
    ("object", "said"),
    [
        ("people", "no object"),
        ("customobjects/cars", "no object 'customobjects/cars'"),
        ("lists/9", "no static list 9"),
        ("lists/x", "no object"),
    ],
)
async def test_what_is_not_there_is_said_before(marketo: Marketo, object: str, said: str) -> None:
    with pytest.raises(Halt, match=said):
        await marketo.describe(object)


async def test_a_list_that_went_away_stops_the_run(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    """I13"""
    await written(marketo, batch({"email": EMAILS[0]}))
    with pytest.raises(Halt, match="1013"):
        await marketo.write(batch({"email": EMAILS[0]}, object="lists/9", remote_ids=["7149"]))


def said(code: str, message: str = "words", **headers: str) -> Answer:
    body = {"requestId": "e42b#1", "success": False, "errors": [{"code": code, "message": message}]}
    return Answer(200, headers, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        (("601", "602"), Expired),
        (("603", "610", "703", "1006", "1011"), Halt),
        (("606", "607", "615"), Throttled),
        (("608", "614"), NotApplied),
        (("604", "611", "713", "719", "502", "500", "699", "?"), Unsettled),
        (("609", "701", "709", "1001", "1003", "1035"), Refused),
    ],
)
def test_codes_of_the_whole_request(codes: tuple[str, ...], kind: type[Exception]) -> None:
    """I12: a code that is not listed is unknown, not permanent."""
    assert {type(classify(said(code))) for code in codes} == {kind}


def test_how_long_a_limit_lasts() -> None:
    window = classify(said("606", "Max rate limit '100' exceeded with in '20' secs"))
    assert isinstance(window, Throttled)
    assert window.after == 20.0
    quota = classify(said("607", date="Mon, 23 Nov 2026 23:30:00 GMT"))
    assert isinstance(quota, Throttled)
    assert quota.after == 6.5 * 3600
    for date, seconds in {
        "Tue, 24 Nov 2026 05:59:59 GMT": 1,
        "Tue, 24 Nov 2026 06:00:00 GMT": 86_400,
    }.items():
        later = classify(said("607", date=date))
        assert isinstance(later, Throttled)
        assert later.after == seconds
    undated = classify(said("607"))
    assert isinstance(undated, Throttled)
    assert 0 < (undated.after or 0) <= 86_400


@pytest.mark.parametrize(
    "body",
    ["{}", "[]", '{"success": true, "result": 1}', '{"success": "yes"}', "", "<html>", '{"result": []}'],
)
async def test_an_answer_of_another_form_is_no_success(body: str) -> None:
    """I11"""

    def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/identity"):
            return web.json_response({"access_token": "t", "expires_in": 3600})
        return web.Response(text=body)

    async with answering(answer, make) as marketo:
        with pytest.raises(Unsettled):
            await marketo.write(batch({"email": EMAILS[0]}))


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"status": "skipped", "reasons": [{"code": "1019", "message": "m"}]}, Retry(EMAILS[0], "1019: m")),
        ({"status": "skipped", "reasons": [{"code": "501", "message": "m"}]}, Retry(EMAILS[0], "501: m")),
        ({"status": "skipped"}, Rejected(EMAILS[0], "skipped", "skipped without a reason")),
        ({"status": "pending", "id": 1}, None),
        ({"id": 1}, None),
    ],
)
async def test_what_a_result_means(result: dict[str, Any], outcome: Outcome | None) -> None:
    """I11: a status that is not known is not success."""

    def answer(request: web.Request) -> web.Response:
        if request.path.startswith("/identity"):
            return web.json_response({"access_token": "t", "expires_in": 3600})
        return web.json_response({"success": True, "result": [result]})

    async with answering(answer, make) as marketo:
        found = await written(marketo, batch({"email": EMAILS[0]}))
    assert found == ({} if outcome is None else {EMAILS[0]: outcome})


async def test_a_token_that_ended_is_fetched_anew(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    await marketo.describe("leads")
    sandbox.end_tokens()
    assert kinds(await written(marketo, batch({"email": EMAILS[0]}))) == {EMAILS[0]: Delivered}


async def test_a_token_about_to_end_is_not_sent(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    """Marketo gives the same token until it ends: what would be sent with it waits for the next one."""
    sandbox.token_life = 1.5
    with pytest.raises(NotApplied, match="about to end"):
        await marketo.describe("leads")
    assert not [path for path in sandbox.counts if "/rest/" in path]


async def test_credentials_that_are_refused_stop_the_run(marketo: Marketo, sandbox: MarketoSandbox) -> None:
    """I13"""
    sandbox.client = ("service", "another")
    with pytest.raises(Halt, match="no access token"):
        await marketo.describe("leads")


def test_the_endpoint_may_be_given_as_marketo_shows_it() -> None:
    config = MarketoConfig(
        base_url="https://123-ABC-456.mktorest.com/rest/", client_id="c", client_secret="s"
    )
    assert Marketo(config, None).base_url == "https://123-ABC-456.mktorest.com"  # type: ignore[arg-type]


def project(folder: Path, url: str, rows: int, **more: Any) -> None:
    with opened(folder / "w.duckdb") as db:
        db.execute("create or replace table t as select i as id, 'p' || i || '@example.com' as email, i % 90 as seats, "
                   f"timestamp '2024-01-01 10:00:00.5' + to_days(i::int) as signup from range({rows}) x(i)")  # fmt: skip
    (folder / "syncs").mkdir()
    destination = {"type": "marketo", "client_id": "c", "client_secret": "sandbox", "base_url": url, **more}
    document = {
        "project": "t", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
        "destinations": {"marketing": destination},
    }  # fmt: skip
    sync = {
        "name": "leads", "model": {"table": "t", "primary_key": "id"}, "destination": "marketing", "object": "leads",
        "identify": {"email": "email"}, "fields": {"seats": "seats", "signedUpAt": "signup"},
    }  # fmt: skip
    members = {**sync, "name": "members", "object": "lists/1001", "mode": "mirror", "fields": {}}
    (folder / "backhaul.yml").write_text(json.dumps(document))
    for each in (sync, members):
        (folder / "syncs" / f"{each['name']}.yml").write_text(json.dumps(each))


def test_a_sync_in_its_limits(tmp_path: Path) -> None:
    """I28: a hundred calls in twenty seconds, here six in one, ten at a time, of three hundred each: no 606 and no 615."""
    sandbox = MarketoSandbox(calls=6, interval=1.0)
    sandbox.seconds, sandbox.at_once = 0.02, 5
    with serving(sandbox.app()) as url:
        project(tmp_path, url, 3000, rate_limits=["6/1s"])
        with backhaul.load(tmp_path) as loaded:
            report = loaded.run("leads").report
    assert (report.status, report.delivered) == ("succeeded", 3000), report.error
    assert report.verified is not None
    assert (report.verified.checked, report.verified.mismatches) == (10, ())
    assert report.retries == 0


def test_a_used_up_day_ends_the_run_until_midnight(tmp_path: Path) -> None:
    """I30: 607 is no failure; the rest waits for the next day."""
    sandbox = MarketoSandbox(daily=4)
    with serving(dated(sandbox.app(), "Sat, 28 Nov 2026 12:00:00 GMT")) as url:
        project(tmp_path, url, 3000)
        with backhaul.load(tmp_path) as loaded:
            report = loaded.run("leads").report
            again = loaded.run("leads").report
    assert (report.status, report.rejected) == ("deferred", 0), report.error
    assert 0 < report.delivered < 3000
    assert again.status == "deferred"
    assert sandbox.daily.remaining == 0


def test_what_others_have_used_today_is_not_sent(tmp_path: Path) -> None:
    """I30: the quota is the instance's, and Marketo says how much of it everybody has used."""
    sandbox = MarketoSandbox(daily=50)
    for _ in range(35):
        sandbox.daily.take()
    with serving(dated(sandbox.app(), "Sat, 28 Nov 2026 12:00:00 GMT")) as url:
        project(tmp_path, url, 3000, rate_limits=["1000/1s", "50/1d"])
        with backhaul.load(tmp_path) as loaded:
            report = loaded.run("leads").report
    assert (report.status, report.rejected) == ("deferred", 0), report.error
    assert 0 < report.delivered < 3000
    called = [request for request in sandbox.requests if request.path.startswith("/rest/")]
    assert len(called) <= 5  # none of them was refused


async def test_only_the_usage_says_what_is_left(marketo: Marketo) -> None:
    usage = {
        "success": True,
        "result": [{"date": "2026-11-23", "total": 1120, "users": [{"userId": "a", "count": 1120}]}],
    }
    date = {"date": "Mon, 23 Nov 2026 23:30:00 GMT"}
    assert marketo.left(Answer(200, date, json.dumps(usage).encode())) == {86_400.0: Left(38_880, 6.5 * 3600)}
    for said_otherwise in ('{"success": true, "result": [{"users": "many", "total": 3}]}', '"users"'):
        assert marketo.left(Answer(200, {}, said_otherwise.encode())) == {}


def test_a_list_mirrors_the_model(tmp_path: Path) -> None:
    """Who left the model leaves the list, and stays a lead."""
    sandbox = MarketoSandbox()
    with serving(sandbox.app()) as url:
        project(tmp_path, url, 20)
        with backhaul.load(tmp_path) as loaded:
            loaded.run("leads")
            first = loaded.run("members").report
            with opened(tmp_path / "w.duckdb") as db:
                db.execute("delete from t where id = 7")
            second = loaded.run("members").report
    assert (first.status, first.delivered, first.verified and first.verified.mismatches) == (
        "succeeded",
        20,
        (),
    ), first.error
    assert (second.status, second.changes["delete"]) == ("succeeded", 1), second.error
    assert len(sandbox.records()["Customers"]) == 19
    assert len(sandbox.records()["leads"]) == 20
