"""HubSpot: what answers leave out, what moves from one record to another, and values in the form that it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import hubspot_calls
import pytest
from aiohttp import web
from test_hubspot_related import BY_NAME, Place, filled

from backhaul.destinations.hubspot.associations import Associations
from backhaul.destinations.hubspot.fields import choices
from backhaul.destinations.hubspot.lists import Members
from backhaul.destinations.kit import Wire
from backhaul.errors import Unsettled
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.answers import Refusal
from backhaul.sandbox.hubspot.lists import StaticList
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, Op, Rejected

NAMES = ("from.email", "to.crm_id")


def named(op: Op, *pairs: tuple[str, str], **more: Any) -> RecordBatch:
    rows = [dict(zip(NAMES, pair, strict=True)) for pair in pairs]
    return RecordBatch(
        op, "associations/contacts/companies", NAMES, tuple(map(Field, NAMES)), rows, Wire.TEXT, **more
    )


async def settled(write: Any) -> dict[str, Any]:
    try:
        return {item.key: item for item in (await write).items}
    except Unsettled:
        return {}


async def test_an_association_whose_end_was_not_answered_for_is_not_said_to_be_removed() -> None:
    sandbox = filled(1, 1)
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        await crm.write(named(Op.UPSERT, ("p0@example.com", "c0")))
        sandbox.faults = Faults(omit=1.0, reads=True)
        said = await settled(crm.write(named(Op.DELETE, ("p0@example.com", "c0"))))
    assert len(list(sandbox.between.pairs("contacts", "companies"))) == 1
    assert not any(isinstance(item, Delivered) for item in said.values())


async def test_an_association_whose_end_was_not_answered_for_is_not_rejected() -> None:
    sandbox = filled(1, 1)
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        sandbox.faults = Faults(omit=1.0, reads=True)
        said = await settled(crm.write(named(Op.UPSERT, ("p0@example.com", "c0"))))
    assert not any(isinstance(item, Rejected) for item in said.values())


@pytest.mark.parametrize("op", [Op.UPSERT, Op.DELETE])
async def test_a_member_that_was_not_answered_for_is_neither_rejected_nor_removed(op: Op) -> None:
    sandbox = filled(1, 0)
    found = StaticList("Customers", sandbox.types["contacts"])
    sandbox.lists[found.id] = found
    one = hubspot_calls.batch(op, {"email": "p0@example.com"}, object=f"lists/{found.id}")
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        await crm.write(
            hubspot_calls.batch(Op.UPSERT, {"email": "p0@example.com"}, object=f"lists/{found.id}")
        )
        sandbox.faults = Faults(omit=1.0, reads=True)
        said = await settled(crm.write(one))
    assert len(found.members) == 1
    assert said == {}


async def test_a_look_up_that_cannot_tell_raises() -> None:
    """Kit: 'A lookup that cannot tell raises: an empty answer means that nothing is there.'"""
    sandbox = HubSpotSandbox(burst=10_000)
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        await crm.write(hubspot_calls.batch(Op.UPSERT, {"email": "a@example.com"}))
        sandbox.faults = Faults(omit=1.0, reads=True)
        with pytest.raises(Unsettled):
            await crm.lookup("contacts", ("email",), ["a@example.com"])
        sandbox.faults = Faults()
        assert await crm.lookup("contacts", ("email",), ["nobody@example.com"]) == {}


async def test_a_move_does_not_take_away_what_another_row_has_just_been_given() -> None:
    """Row 1 goes from A to B, row 2 from B to C; C is not answered for, and row 2 is sent again, alone."""
    sandbox = filled(3, 1)
    a, b, c = ((f"p{number}@example.com", "c0") for number in range(3))
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        first = {item.key: item for item in (await crm.write(named(Op.UPSERT, a, b))).items}
        ids = [item.remote_id for item in first.values()]
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        moved = (await crm.write(named(Op.UPDATE, b, c, remote_ids=ids))).items
        assert all(isinstance(item, Delivered) for item in moved)
        await crm.write(named(Op.UPDATE, c, remote_ids=ids[1:]))
    people = {record.id: record.properties["email"] for record in sandbox.types["contacts"].records.values()}
    held = {people[one] for one, _ in sandbox.between.pairs("contacts", "companies")}
    assert held == {b[0], c[0]}


def shuffled(place: Place, count: int) -> None:
    """Everybody's association or membership goes to another person, all of whom had one."""
    for by in (1, 7919):  # a prime: whatever is no multiple of it is shuffled by it
        with opened(place.folder / "w.duckdb") as db:
            people = f"SELECT i AS id, 'p' || (i * {by} % {count}) || '@example.com' AS email, 'c0' AS company FROM range({count}) t(i)"
            db.execute(f"CREATE OR REPLACE TABLE t AS {people}")
        report = place.run()
        assert report.status == "succeeded"


def test_associations_that_move_in_several_batches_are_all_kept(tmp_path: Path) -> None:
    count = Associations.batch.records + 100
    sandbox = filled(count, 1)
    with serving(sandbox.app()) as url:
        place = Place(tmp_path, sandbox, url)
        place.sync("associations/contacts/companies", BY_NAME)
        shuffled(place, count)
        assert place.pairs() == {(f"p{number}", "c0") for number in range(count)}


def test_members_that_move_in_several_batches_are_all_kept(tmp_path: Path) -> None:
    count = Members.batch.records + 100
    sandbox = filled(count, 0)
    found = StaticList("Customers", sandbox.types["contacts"])
    sandbox.lists[found.id] = found
    with serving(sandbox.app()) as url:
        place = Place(tmp_path, sandbox, url)
        place.sync(f"lists/{found.id}", {"email": "email"})
        shuffled(place, count)
    emails = {sandbox.types["contacts"].records[one].properties["email"] for one in found.members}
    assert emails == {f"p{number}@example.com" for number in range(count)}


def test_a_move_that_waited_does_not_take_away_what_another_row_was_given(tmp_path: Path) -> None:
    sandbox = filled(2, 1)
    with serving(sandbox.app()) as url:
        place = Place(tmp_path, sandbox, url)
        place.sync("associations/contacts/companies", BY_NAME)
        place.rows((1, "p0@example.com", "c0"), (2, "p1@example.com", "c0"))
        place.run()
        place.rows((1, "p1@example.com", "c0"), (2, "p2@example.com", "c0"))
        assert place.run().deferred == 1
        sandbox.types["contacts"].create({"email": "p2@example.com"})
        assert place.run().status == "succeeded"
        assert place.pairs() == {("p1", "c0"), ("p2", "c0")}


async def test_errors_that_name_nobody_are_not_given_out_by_their_place() -> None:
    errors = [
        {"status": "error", "category": "VALIDATION_ERROR", "message": "no"},
        {"status": "error", "category": "RATE_LIMITS", "message": "later"},
    ]
    rows = [{"from": "1", "to": "2"}, {"from": "3", "to": "4"}]
    sent = RecordBatch(
        Op.UPSERT,
        "associations/contacts/companies",
        ("from", "to"),
        (Field("from"), Field("to")),
        rows,
        Wire.TEXT,
    )
    async with hubspot_calls.answering(
        lambda _: web.json_response(
            {"status": "COMPLETE", "results": [], "numErrors": 2, "errors": errors}, status=207
        )
    ) as crm:
        said = (await crm.write(sent)).items
    assert not any(isinstance(item, Rejected) for item in said), "nobody knows which of the two was refused"


def test_an_empty_choice_does_not_make_hubspot_append() -> None:
    assert choices('["","a"]') == "a"
    assert choices('[null,"a","","b"]') == "a;b"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.4210854715202004e-14, "0.000000000000014210854715202004"),
        (2e-5, "0.00002"),
        (1e16, "10000000000000000"),
        (-3e-7, "-0.0000003"),
    ],
)
def test_a_number_is_written_in_digits(tmp_path: Path, value: float, text: str) -> None:
    """HubSpot: '1.4210854715202004e-14 was not a valid number.' (Atlas-Authority/marketing-automation#206)"""
    sandbox = HubSpotSandbox(burst=10_000)
    sandbox.types["contacts"].properties["score"] = Property("score", "number", "number", own=False)
    with serving(sandbox.app()) as url:
        place = Place(tmp_path, sandbox, url)
        (tmp_path / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "email"}, "destination": "crm", "object": "contacts",
            "identify": {"email": "email"}, "fields": {"score": "score"},
        }))  # fmt: skip
        with opened(tmp_path / "w.duckdb") as db:
            db.execute("CREATE TABLE t (email VARCHAR, score DOUBLE)")
            db.execute("INSERT INTO t VALUES ('a@example.com', ?)", [value])
        report = place.run()
    (record,) = sandbox.types["contacts"].records.values()
    assert (report.status, record.properties["score"]) == ("succeeded", text)
    assert not report.verified.mismatches


def test_the_simulated_hubspot_takes_no_exponent() -> None:
    with pytest.raises(Refusal):
        Property("score", "number", "number").accept("2e-05")
    assert Property("score", "number", "number").accept("-0.5") == "-0.5"


async def test_a_record_in_many_lists_is_read_to_the_last_page() -> None:
    """The answer has paging.next.after (developers.hubspot.com: latest, get-lists-per-record)."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/memberships"):
            asked.append(request.query.get("after", ""))
            last = request.query.get("after") == "2"
            paging = {} if last else {"paging": {"next": {"after": "2", "link": ""}}}
            return web.json_response({"results": [{"listId": "42" if last else "7"}], **paging})
        return web.json_response({"list": {"objectTypeId": "0-1", "processingType": "MANUAL"}})

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with serving(app) as address:
        async with hubspot_calls.connected(address) as crm:
            held = await crm.read("lists/42", ("hs_object_id",), ["1"], ())
    assert held == {"1": {"hs_object_id": "1"}}
    assert asked == ["", "2"]
