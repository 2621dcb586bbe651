"""Items of Braze's catalogs: replaced whole, taken in whole or refused whole."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from places import project
from vendor_recordings import answering, at

import backhaul
from backhaul.destinations.braze import Braze, BrazeConfig
from backhaul.destinations.kit import Http, Unsupported, Wire
from backhaul.errors import Halt, Refused, Unsettled
from backhaul.sandbox.braze import BrazeSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Op, Rejected

NAME = "catalogs/restaurants"


def make(url: str, http: Http) -> Braze:
    return Braze(BrazeConfig(api_key="k", base_url=url), http)


@pytest.fixture
def sandbox() -> BrazeSandbox:
    return BrazeSandbox()


@pytest.fixture
async def braze(sandbox: BrazeSandbox) -> AsyncIterator[Braze]:
    with serving(sandbox.app()) as url:
        async with at(url, make) as made:
            yield made


def batch(op: Op, *rows: dict[str, Any], object: str = NAME, skip: bool = False) -> RecordBatch:
    names = dict.fromkeys(["id", *(name for row in rows for name in row)])
    fields = tuple(Field(name, skip_null=skip and name != "id") for name in names)
    return RecordBatch(op, object, ("id",), fields, list(rows))


async def test_a_catalog_says_its_fields(braze: Braze) -> None:
    fields = (await braze.describe(NAME)).fields
    assert (fields["Rating"].type, fields["Open_Time"].type) == (FieldType.NUMBER, FieldType.DATETIME)
    assert (fields["id"].unique, fields["Name"].max_length) == (True, 5000)
    with pytest.raises(Halt, match="no object 'catalogs/restaurant'") as raised:
        await braze.describe("catalogs/restaurant")
    assert NAME in str(raised.value.hint)


async def test_items_are_made_replaced_and_deleted(braze: Braze, sandbox: BrazeSandbox) -> None:
    rows = [{"id": f"r{number}", "Name": "A", "Rating": number} for number in range(3)]
    assert (await braze.write(batch(Op.UPSERT, *rows))).items == tuple(Delivered(row["id"]) for row in rows)
    await braze.write(batch(Op.UPSERT, {"id": "r1", "Name": None, "Rating": 9}))
    held = sandbox.records()[NAME]
    assert held["r1"] == {"id": "r1", "Rating": 9}
    assert (await braze.write(batch(Op.DELETE, {"id": "r0"}, {"id": "not-there"}))).items[0] == Delivered(
        "r0"
    )
    assert set(held) == {"r1", "r2"}


async def test_an_id_that_braze_does_not_take_is_rejected_by_itself(
    braze: Braze, sandbox: BrazeSandbox
) -> None:
    found = {
        item.key: item for item in (await braze.write(batch(Op.UPSERT, {"id": "a b"}, {"id": "ok"}))).items
    }
    assert found["ok"] == Delivered("ok")
    assert isinstance(found["a b"], Rejected)
    assert set(sandbox.records()[NAME]) == {"ok"}


async def test_what_an_item_cannot_say_stops_before_anything_leaves(
    braze: Braze, sandbox: BrazeSandbox
) -> None:
    with pytest.raises(Halt, match="cannot leave 'Name' alone"):
        await braze.write(batch(Op.UPSERT, {"id": "a", "Name": None}, skip=True))
    other = RecordBatch(Op.UPSERT, NAME, ("Name",), (Field("Name"),), [{"Name": "a"}])
    with pytest.raises(Halt, match="by their id"):
        await braze.write(other)
    assert not sandbox.records()[NAME]


async def test_one_wrong_item_refuses_its_request(braze: Braze, sandbox: BrazeSandbox) -> None:
    with pytest.raises(Refused, match="Some of the fields") as raised:
        await braze.write(batch(Op.UPSERT, {"id": "a", "Rating": 1}, {"id": "b", "Rating": "many"}))
    assert raised.value.code == "invalid-fields"
    assert not sandbox.records()[NAME]


async def test_items_are_not_read_back_nor_sent_in_parts(braze: Braze) -> None:
    with pytest.raises(Unsupported):
        await braze.read(NAME, ("id",), ["a"], ["Name"])
    assert not braze.takes_parts(NAME, Wire.JSON)
    assert braze.takes_parts("users", Wire.JSON)
    assert braze.batch_limits(NAME, Op.INSERT) is None
    assert braze.batch_limits(NAME, Op.UPSERT).records == 50


@pytest.mark.parametrize("body", [b'{"message": "hm"}', b"{}", b"<html>"])
async def test_a_2xx_in_other_words_settles_nothing(body: bytes) -> None:
    async with answering(lambda _: web.Response(body=body, status=202), make) as braze:
        with pytest.raises(Unsettled):
            await braze.write(batch(Op.UPSERT, {"id": "a"}))
        with pytest.raises(Unsettled):
            await braze.describe(NAME)


def test_a_mirror_of_a_catalog(sandbox: BrazeSandbox, tmp_path: Path) -> None:
    """Items are made, one that changed is replaced whole, a bad one is a dead letter, one that left the model is deleted."""
    (tmp_path / "syncs").mkdir()
    sync = {
        "name": "menu", "model": {"warehouse": "main", "table": "t", "primary_key": "id"}, "destination": "braze", "object": NAME,
        "mode": "mirror", "identify": {"id": "id"}, "fields": {"Name": "name", "Rating": "rating"},
        "guards": {"max_deletes": "off"},
    }  # fmt: skip
    (tmp_path / "syncs" / "menu.yml").write_text(json.dumps(sync))

    def rows(select: str) -> None:
        with opened(tmp_path / "w.duckdb") as db:
            db.execute(f"CREATE OR REPLACE TABLE t AS {select}")

    rows("SELECT 'r' || i AS id, 'name ' || i AS name, i::DOUBLE AS rating FROM range(120) AS t(i)")
    with serving(sandbox.app()) as url:
        (tmp_path / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}},
            "destinations": {"braze": {"type": "braze", "api_key": "sandbox", "base_url": url}},
        }))  # fmt: skip
        sandbox.faults.refuse_key = "r77"
        with backhaul.load(tmp_path) as project:
            first = project.run("menu").report
            assert (first.status, first.delivered, first.rejected) == ("partial", 119, 1), first.error
            rows(
                "SELECT 'r' || i AS id, 'name ' || i AS name, (i + (i = 3)::INT)::DOUBLE AS rating FROM range(110) AS t(i)"
            )
            second = project.run("menu").report
    assert second.changes == {"create": 0, "update": 1, "delete": 10}
    held = sandbox.records()[NAME]
    assert set(held) == {f"r{number}" for number in range(110) if number != 77}
    assert held["r3"] == {"id": "r3", "Name": "name 3", "Rating": 4}


def test_a_number_identifies_an_item_as_a_text(tmp_path: Path) -> None:
    sandbox = BrazeSandbox()
    sync = {"object": NAME, "identify": {"id": "id"}, "fields": {"Name": "name"}}
    with serving(sandbox.app()) as url:
        braze = {"type": "braze", "base_url": url, "api_key": "local-key"}
        report = project(tmp_path, braze, sync, "SELECT i AS id, 'x' AS name FROM range(3) t(i)").run("s")
    assert (report.delivered, report.rejected) == (3, 0)
    assert set(sandbox.records()[NAME]) == {"0", "1", "2"}
