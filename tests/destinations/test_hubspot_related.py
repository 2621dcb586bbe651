"""Associations and members of lists: what runs make of them, and what the connector makes of HubSpot's answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hubspot_calls import answering, connected
from vendor_recordings import recorded_answer, recordings

from backhaul.destinations.hubspot import HubSpot
from backhaul.destinations.kit import Wire
from backhaul.errors import Halt, Refused
from backhaul.project import load
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.lists import StaticList
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, Op, Rejected

BY_NAME = {"from.email": "email", "to.crm_id": "company"}
BY_ID = ("from", "to")


def filled(people: int = 4, companies: int = 3) -> HubSpotSandbox:
    sandbox = HubSpotSandbox(burst=10_000)
    sandbox.types["companies"].properties["crm_id"] = Property("crm_id", unique=True, own=False)
    for number in range(people):
        sandbox.types["contacts"].create({"email": f"p{number}@example.com"})
    for number in range(companies):
        sandbox.types["companies"].create({"crm_id": f"c{number}"})
    return sandbox


class Place:
    """A project with one sync into a simulated account."""

    def __init__(self, folder: Path, sandbox: HubSpotSandbox, url: str) -> None:
        self.folder, self.sandbox = folder, sandbox
        (folder / "syncs").mkdir()
        crm = {
            "type": "hubspot",
            "base_url": url,
            "access_token": "local-sandbox",
            "rate_limits": ["10000/1s"],
        }
        (folder / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"crm": crm},
        }))  # fmt: skip

    def sync(self, object: str, identify: dict[str, str], mode: str = "mirror") -> None:
        (self.folder / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "crm", "object": object, "mode": mode,
            "identify": identify, "guards": {"max_deletes": "off", "max_drop": "off"},
        }))  # fmt: skip

    def rows(self, *values: tuple[int, str, str]) -> None:
        with opened(self.folder / "w.duckdb") as db:
            db.execute("CREATE OR REPLACE TABLE t (id BIGINT, email VARCHAR, company VARCHAR)")
            db.executemany("INSERT INTO t VALUES (?, ?, ?)", values)

    def run(self) -> Any:
        return load(self.folder).run("s")

    def pairs(self, one: str = "contacts", other: str = "companies") -> set[tuple[str, str]]:
        """Associations by name: (p1, c2)."""
        names = {
            record.id: (record.properties.get("email") or record.properties["crm_id"]).partition("@")[0]
            for kind in ("contacts", "companies")
            for record in self.sandbox.types[kind].records.values()
        }
        held = self.sandbox.between.pairs(one, other)
        return {(names[first], names[second]) for first, second in held}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    sandbox = filled()
    with serving(sandbox.app()) as url:
        yield Place(tmp_path, sandbox, url)


def test_associations_follow_the_model(place: Place) -> None:
    place.sync("associations/contacts/companies", BY_NAME)
    place.rows((1, "P0@example.com", "c0"), (2, "p1@example.com", "c0"), (3, "p1@example.com", "c1"))
    report = place.run()
    assert (report.delivered, report.status) == (3, "succeeded")
    assert report.verified.checked == 3
    assert place.pairs() == {("p0", "c0"), ("p1", "c0"), ("p1", "c1")}
    assert place.pairs("companies", "contacts") == {("c0", "p0"), ("c0", "p1"), ("c1", "p1")}
    assert place.run().delivered == 0
    place.rows((1, "p0@example.com", "c2"), (3, "p1@example.com", "c1"))
    place.run()
    assert place.pairs() == {("p0", "c2"), ("p1", "c1")}


def test_records_that_swap_their_ends_keep_both(place: Place) -> None:
    place.sync("associations/contacts/companies", BY_NAME)
    place.rows((1, "p0@example.com", "c0"), (2, "p1@example.com", "c1"))
    place.run()
    place.rows((1, "p1@example.com", "c1"), (2, "p0@example.com", "c0"))
    place.run()
    assert place.pairs() == {("p0", "c0"), ("p1", "c1")}


def test_an_association_waits_for_an_end_that_is_not_there(place: Place) -> None:
    place.sync("associations/contacts/companies", BY_NAME, "upsert")
    place.rows((1, "p0@example.com", "c0"), (2, "nobody@example.com", "c0"))
    report = place.run()
    assert (report.delivered, report.deferred) == (1, 1)
    (letter,) = load(place.folder).dead_letters("s")
    assert "no record at one end" in letter["error"]["message"]
    assert letter["status"] == "waiting"
    place.sandbox.types["contacts"].create({"email": "nobody@example.com"})
    place.run()
    assert place.pairs() == {("p0", "c0"), ("nobody", "c0")}


@pytest.mark.parametrize("fault", [{"reset_after": 0.5}, {"omit": 0.5}, {"error": 0.5}, {"throttle": 0.5}])
def test_associations_converge_over_faults(place: Place, fault: dict[str, Any]) -> None:
    place.sync("associations/contacts/companies", BY_NAME)
    place.rows(*((number, f"p{number % 4}@example.com", f"c{number // 4}") for number in range(12)))
    place.sandbox.faults = Faults(**fault)
    for _ in range(6):
        place.run()
    place.sandbox.faults = Faults()
    place.run()
    assert len(place.pairs()) == 12
    place.rows((0, "p0@example.com", "c0"))
    assert place.run().status == "succeeded"
    assert place.pairs() == {("p0", "c0")}


def test_members_of_a_list_follow_the_model(place: Place) -> None:
    found = StaticList("Customers", place.sandbox.types["contacts"])
    place.sandbox.lists[found.id] = found
    place.sync(f"lists/{found.id}", {"email": "email"})
    place.rows((1, "p0@example.com", ""), (2, "p1@example.com", ""), (3, "nobody@example.com", ""))
    report = place.run()
    assert (report.delivered, report.deferred) == (2, 1)
    assert report.verified.checked == 2
    assert report.verified.mismatches == ()
    place.rows((1, "p2@example.com", ""))
    place.run()
    (member,) = found.members
    assert place.sandbox.types["contacts"].records[member].properties["email"] == "p2@example.com"


@pytest.mark.parametrize(
    ("object", "said"),
    [
        ("associations/contacts", "names no two kinds"),
        ("associations/contacts/companies/Nope", "no such label"),
        ("associations/contacts/unicorns", "no such object"),
        ("lists/99", "has no list '99'"),
        ("lists/7", "list 7 is dynamic"),
    ],
)
def test_what_is_not_there_stops_the_run_before_anything_is_sent(
    place: Place, object: str, said: str
) -> None:
    place.sandbox.lists["7"] = StaticList("Smart", place.sandbox.types["contacts"], "DYNAMIC", "7")
    identify = {"email": "email"} if object.startswith("lists") else BY_NAME
    place.sync(object, identify)
    place.rows((1, "p0@example.com", "c0"))
    report = place.run()
    assert report.status == "failed"
    assert said in str(report.error)
    assert place.pairs() == set()


@pytest.fixture(params=["v3", "2026-09"])
async def crm(request: pytest.FixtureRequest) -> AsyncIterator[tuple[HubSpot, HubSpotSandbox]]:
    sandbox = filled(3, 3)
    async with serve(sandbox) as url, connected(url, api_version=request.param) as destination:
        yield destination, sandbox


def batch(
    op: Op, *pairs: tuple[str, str], object: str = "associations/contacts/companies", **more: Any
) -> RecordBatch:
    rows = [dict(zip(BY_ID, pair, strict=True)) for pair in pairs]
    return RecordBatch(op, object, BY_ID, tuple(map(Field, BY_ID)), rows, Wire.TEXT, **more)


def ids(sandbox: HubSpotSandbox, kind: str) -> list[str]:
    return list(sandbox.types[kind].records)


async def test_record_ids_need_no_look_up_and_a_wrong_one_is_named(
    crm: tuple[HubSpot, HubSpotSandbox],
) -> None:
    destination, sandbox = crm
    people, companies = ids(sandbox, "contacts"), ids(sandbox, "companies")
    before = len(sandbox.requests)
    outcomes = (
        await destination.write(
            batch(Op.UPSERT, (people[0], companies[0]), (people[1], "1"), ("2", companies[1]))
        )
    ).items
    assert len(sandbox.requests) == before + 1
    said = {item.key: item for item in outcomes}
    assert said[f'["{people[0]}","{companies[0]}"]'] == Delivered(
        f'["{people[0]}","{companies[0]}"]', f"{people[0]}:{companies[0]}"
    )
    refused = [item for item in outcomes if isinstance(item, Rejected)]
    assert sorted(item.message for item in refused) == ["COMPANY=1 is not valid", "CONTACT=2 is not valid"]


async def test_a_label_is_put_on_and_taken_off(crm: tuple[HubSpot, HubSpotSandbox]) -> None:
    destination, sandbox = crm
    one, other = ids(sandbox, "contacts")[0], ids(sandbox, "companies")[0]
    sandbox.between.labels["contacts", "companies"] = {"Decision maker": 1201}
    sandbox.between.labels["companies", "contacts"] = {"Decision maker": 1202}
    labelled = "associations/contacts/companies/Decision maker"
    key = f'["{one}","{other}"]'
    await destination.write(batch(Op.UPSERT, (one, other)))
    assert await destination.read(labelled, BY_ID, [key], ()) == {}
    await destination.write(batch(Op.UPSERT, (one, other), object=labelled))
    assert await destination.read(labelled, BY_ID, [key], ()) == {key: {"from": one, "to": other}}
    await destination.write(batch(Op.DELETE, (one, other), object=labelled))
    assert await destination.read(labelled, BY_ID, [key], ()) == {}
    assert list(sandbox.between.pairs("contacts", "companies")) == [(one, other)]


async def test_a_long_list_of_associations_is_read_to_its_end() -> None:
    sandbox = filled(1, 1_201)
    (one,) = ids(sandbox, "contacts")
    async with serve(sandbox) as url, connected(url) as destination:
        every = [(one, other) for other in ids(sandbox, "companies")]
        await destination.write(batch(Op.UPSERT, *every))
        keys = [f'["{one}","{other}"]' for _, other in every]
        assert len(await destination.read("associations/contacts/companies", BY_ID, keys, ())) == 1_201


async def test_ends_that_are_not_both_there_halt(crm: tuple[HubSpot, HubSpotSandbox]) -> None:
    destination, _ = crm
    strange = RecordBatch(
        Op.UPSERT, "associations/contacts/companies", ("from",), (Field("from"),), [{"from": "1"}], Wire.TEXT
    )
    with pytest.raises(Halt, match="two ends"):
        await destination.write(strange)


async def test_an_archive_that_says_errors_is_refused() -> None:
    errors = [{"status": "error", "category": "VALIDATION_ERROR", "message": "no"}]
    async with answering(
        lambda _: web.json_response({"results": [], "errors": errors}, status=207)
    ) as destination:
        with pytest.raises(Refused, match="no"):
            await destination.write(batch(Op.DELETE, ("1", "2")))


RECORDED = [
    item for item in recordings("hubspot")
    if "/crm/v4/associations/" in item["expected_request"]["url"] and item["expected_request"]["url"].endswith("/create")
]  # fmt: skip


@pytest.mark.skipif(not RECORDED, reason="no recorded answers of HubSpot are there")
@pytest.mark.parametrize("recording", RECORDED, ids=lambda item: item["id"])
async def test_a_recorded_answer_is_understood(recording: Any) -> None:
    pairs = [
        (str(item["from"]["id"]), str(item["to"]["id"]))
        for item in recording["expected_request"]["body"]["inputs"]
    ]
    async with answering(lambda _: recorded_answer(recording)) as destination:
        outcomes = (await destination.write(batch(Op.UPSERT, *pairs))).items
    wanted = Delivered if recording["meaning"] == "success" else Rejected
    assert [type(item) for item in outcomes] == [wanted]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_official_client_drives_the_simulation() -> None:
    import hubspot
    from hubspot.crm.associations.v4 import (
        BatchInputPublicAssociationMultiArchive,
        BatchInputPublicDefaultAssociationMultiPost,
        BatchInputPublicFetchAssociationsBatchRequest,
    )

    sandbox = filled(2, 2)
    people, companies = ids(sandbox, "contacts"), ids(sandbox, "companies")
    with serving(sandbox.app()) as url:
        batch_api = hubspot.Client.create(
            access_token="local-sandbox", host=url
        ).crm.associations.v4.batch_api
        pairs = [{"from": {"id": people[0]}, "to": {"id": companies[number]}} for number in range(2)]
        made = batch_api.create_default(
            "contacts", "companies", BatchInputPublicDefaultAssociationMultiPost(inputs=pairs)
        )
        assert len(made.results) == 4
        asked = BatchInputPublicFetchAssociationsBatchRequest(inputs=[{"id": people[0]}])
        (result,) = batch_api.get_page("contacts", "companies", asked).results
        assert [str(to.to_object_id) for to in result.to] == companies
        gone = {"from": {"id": people[0]}, "to": [{"id": companies[0]}]}
        batch_api.archive("contacts", "companies", BatchInputPublicAssociationMultiArchive(inputs=[gone]))
        (result,) = batch_api.get_page("contacts", "companies", asked).results
        assert [str(to.to_object_id) for to in result.to] == companies[1:]
