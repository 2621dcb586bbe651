"""The Braze connector against the simulated workspace and against strange answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import ValidationError
from vendor_recordings import answering, at

from backhaul.destinations.braze import Braze, BrazeConfig
from backhaul.destinations.kit import Answer, Http
from backhaul.errors import Forbidden, Halt, Refused, Throttled, Unsettled
from backhaul.project import load
from backhaul.sandbox.braze import BrazeSandbox
from backhaul.sandbox.kit import Faults, serve
from backhaul.testing.batches import RecordBatch
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, FieldType, Gone, Left, Op, Outcome, Rejected

ALIAS = ("user_alias.alias_name", "user_alias.alias_label")


@asynccontextmanager
async def workspace(**config: Any) -> AsyncIterator[tuple[BrazeSandbox, Braze]]:
    sandbox = BrazeSandbox()
    async with serve(sandbox) as url, at(url, lambda url, http: make(url, http, **config)) as braze:
        yield sandbox, braze


def make(url: str, http: Http, **config: Any) -> Braze:
    return Braze(BrazeConfig(api_key="k", base_url=url, **config), http)


async def batch(
    braze: Braze,
    op: Op,
    *rows: Mapping[str, Any],
    by: tuple[str, ...] = ("external_id",),
    object: str = "users",
) -> RecordBatch:
    names = dict.fromkeys([*by, *(name for row in rows for name in row)])
    known = (await braze.describe(object)).fields
    return RecordBatch(op, object, by, tuple(known.get(name, Field(name)) for name in names), rows)


async def write(braze: Braze, op: Op, *rows: Mapping[str, Any], **more: Any) -> dict[str, Outcome]:
    sent = await batch(braze, op, *rows, **more)
    return {item.key: item for item in (await braze.write(sent)).of(sent.keys)}


def people(*keys: str, **values: Any) -> list[dict[str, Any]]:
    return [{"external_id": key, **values} for key in keys]


def sent_to(sandbox: BrazeSandbox, path: str) -> int:
    return sum(item.path == path for item in sandbox.requests)


async def test_values_are_set_cleared_and_read_back() -> None:
    row = {
        "external_id": "a", "first_name": "Ada", "dob": "1980-12-21", "plan_tier": "gold", "health_score": 1.5, "trial": False,
        "groups": ["x", "y", "x"], "renews_at": "2027-01-02T03:04:05Z", "address.city": "Bonn", "address.zip": None,
    }  # fmt: skip
    async with workspace() as (sandbox, braze):
        assert await write(braze, Op.UPSERT, row) == {"a": Delivered("a")}
        fields = (await batch(braze, Op.UPSERT, row)).fields
        names = [field.name for field in fields]
        held = (await braze.read("users", ("external_id",), ["a", "b"], names))["a"]
        texts = {**row, "groups": json.dumps(row["groups"]), "trial": "false"}
        assert [f.name for f in fields if not braze.same(f, texts[f.name], held[f.name])] == []
        cleared = {"external_id": "a", "plan_tier": None, "first_name": None, "address.city": None}
        assert await write(braze, Op.UPSERT, cleared) == {"a": Delivered("a")}
        user = sandbox.store.external["a"]
        assert (user.custom.keys() & {"plan_tier", "address"}, user.standard["first_name"]) == (set(), None)


def test_two_values_are_not_one() -> None:
    braze = make("http://127.0.0.1", None)  # type: ignore[arg-type] - nothing is sent
    moment, array = Field("at", FieldType.DATETIME), Field("groups", FieldType.ARRAY)
    assert braze.same(moment, "2027-01-02T03:04:05Z", "2027-01-02T03:04:05.000+00:00")
    assert not braze.same(moment, "2027-01-02T03:04:05Z", "2027-01-02T03:04:06.000Z")
    assert not braze.same(moment, "2027-01-02T03:04:05Z", None)
    assert braze.same(array, '["b","a","b"]', ["a", "b"])
    assert not braze.same(array, '["b"]', ["a", "b"])
    assert not braze.same(Field("plan_tier", FieldType.STRING), "gold", None)
    assert braze.same(Field("plan_tier", FieldType.STRING), "", None)
    assert braze.same(Field("logins", FieldType.INTEGER), "0", 0)
    assert not braze.same(Field("logins", FieldType.INTEGER), "0", None)
    assert not braze.same(Field("pets", FieldType.JSON), '[{"id":1}]', [{"id": 2}])


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("groups", [f"g{number}" for number in range(26)], "array-too-long"),
        ("groups", ["x", None], "array-elements"),
        ("groups", [["x"]], "array-elements"),
        ("pets", [{"id": number, "name": "x" * 200} for number in range(500)], "object-too-large"),
        ("address", {"street": "x" * 256}, "text-too-long"),
        ("address", {"a.b": 1}, "member-name"),
        ("address", {"post code": 1}, "member-name"),
        ("unheard_of", {"inc": 1}, "operator"),
        ("groups", {"add": ["x"]}, "operator"),
    ],
)
async def test_what_braze_would_cut_or_drop_is_refused_unsent(name: str, value: Any, code: str) -> None:
    """Braze answers with success, and does something else."""
    async with workspace() as (sandbox, braze):
        found = await write(
            braze, Op.UPSERT, {"external_id": "a", name: value}, {"external_id": "b", name: None}
        )
    refused = found.pop("a")
    assert isinstance(refused, Rejected)
    assert refused.code == code
    assert name in refused.message
    assert found == {"b": Delivered("b")}
    assert set(sandbox.store.external) == {"b"}


async def test_an_array_may_be_as_long_as_braze_says_of_it() -> None:
    async with workspace() as (sandbox, braze):
        sandbox.store.attributes["groups"].length = 30
        row = {"external_id": "a", "groups": [f"g{number}" for number in range(30)]}
        assert await write(braze, Op.UPSERT, row) == {"a": Delivered("a")}
        assert len(sandbox.store.external["a"].custom["groups"]) == 30


async def test_a_nested_attribute_is_replaced_or_merged() -> None:
    """Merged, a member that is not mapped stays, and one that is null is refused: Braze would drop the whole update."""
    whole, part = (
        {"external_id": "a", "address": {"city": "Bonn", "zip": "1"}},
        {"external_id": "a", "address.city": "Köln"},
    )
    async with workspace() as (sandbox, braze):
        await write(braze, Op.UPSERT, whole)
        await write(braze, Op.UPSERT, {**part, "address.zip": None})
        assert sandbox.store.external["a"].custom["address"] == {"city": "Köln"}
    async with workspace(merge_nested=True) as (sandbox, braze):
        await write(braze, Op.UPSERT, whole)
        await write(braze, Op.UPSERT, part)
        assert sandbox.store.external["a"].custom["address"] == {"city": "Köln", "zip": "1"}
        found = await write(braze, Op.UPSERT, {**part, "address.zip": None})
        assert found["a"] == Rejected("a", "null-in-object", found["a"].message)  # type: ignore[union-attr]


async def test_moments_within_objects_are_written_as_braze_wants_them() -> None:
    field = Field("address.since", FieldType.DATETIME)
    row = {"external_id": "a", "address.since": "2027-01-02T03:04:05Z"}
    async with workspace() as (sandbox, braze):
        await braze.write(
            RecordBatch(Op.UPSERT, "users", ("external_id",), (Field("external_id"), field), [row])
        )
        assert sandbox.store.external["a"].custom["address"] == {"since": {"$time": "2027-01-02T03:04:05Z"}}
        held = await braze.read("users", ("external_id",), ["a"], ["address.since"])
        assert braze.same(field, row["address.since"], held["a"]["address.since"])


async def test_errors_within_a_success_are_those_of_their_records() -> None:
    async with workspace(check_existing=False) as (_, braze):
        rows = [*people("a", "b"), {"external_id": "bad", "email": "nobody"}, *people("c")]
        found = await write(braze, Op.UPSERT, *({"first_name": "x", **row} for row in rows))
    assert found.pop("bad") == Rejected("bad", "'email' is invalid", "'email' is invalid")
    assert found == {key: Delivered(key) for key in "abc"}


@pytest.mark.parametrize(
    ("status", "body", "named"),
    [
        (201, {"message": "success", "attributes_processed": 2}, "ab"),
        (202, {"message": "queued"}, "ab"),
        (201, {"message": "success", "attributes_processed": 1}, ""),
        (201, {"message": "success"}, ""),
        (201, {"message": "success", "attributes_processed": 2, "errors": [{"type": "no", "input_array": "attributes", "index": 1}]}, "b"),
        (201, {"message": "success", "attributes_processed": 1, "errors": [{"type": "no", "input_array": "events", "index": 1}]}, ""),
        (201, {"message": "success", "attributes_processed": 1, "errors": [{"type": "no", "input_array": "attributes", "index": 7}]}, ""),
        (201, {"message": "success", "attributes_processed": 1, "errors": [{"type": "no"}]}, ""),
    ],
)  # fmt: skip
async def test_only_what_an_answer_accounts_for_is_settled(status: int, body: Any, named: str) -> None:
    """I10, I11: counts have to be right, or nobody knows."""
    rows = people("a", "b")
    sent = RecordBatch(Op.UPSERT, "users", ("external_id",), (Field("external_id"),), rows)
    async with answering(lambda _: web.json_response(body, status=status), make) as braze:
        assert {item.key for item in (await braze.write(sent)).of(sent.keys)} == set(named)


@pytest.mark.parametrize("body", [{}, [], {"message": "error"}, {"attributes_processed": 1}])
async def test_a_success_without_its_message_is_none(body: Any) -> None:
    sent = RecordBatch(Op.UPSERT, "users", ("external_id",), (Field("external_id"),), people("a"))
    async with answering(lambda _: web.json_response(body, status=201), make) as braze:
        with pytest.raises(Unsettled):
            await braze.write(sent)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"message": "bad", "errors": [{"type": "worse"}]}, Refused), (413, {"message": "too large"}, Refused),
        (401, {"message": "Invalid API key"}, Halt), (403, {}, Forbidden), (404, {"message": "Invalid URL"}, Halt),
        (500, {}, Unsettled), (502, {}, Unsettled),
    ],
)  # fmt: skip
def test_whole_answers_are_classified(status: int, body: Any, kind: type[Exception]) -> None:
    error = make("http://127.0.0.1", None).classify(Answer(status, {}, json.dumps(body).encode()))  # type: ignore[arg-type]
    assert type(error) is kind
    if status == 400:
        assert str(error) == "bad; worse"


def test_a_throttled_window_ends_when_the_answer_says() -> None:
    headers = {"x-ratelimit-reset": "1637707203", "date": "Tue, 23 Nov 2021 22:40:01 GMT"}
    error = make("http://127.0.0.1", None).classify(Answer(429, headers, b"{}"))  # type: ignore[arg-type]
    assert isinstance(error, Throttled)
    assert error.after == 2.0


def test_only_headers_of_a_limit_that_is_kept_count() -> None:
    """Each endpoint has a limit of its own: what is left of an export's says nothing of /users/track."""
    braze = make("http://127.0.0.1", None)  # type: ignore[arg-type] - nothing is sent
    headers = {
        "x-ratelimit-limit": "3000", "x-ratelimit-remaining": "7", "x-ratelimit-reset": "1637707203",
        "date": "Tue, 23 Nov 2021 22:40:01 GMT",
    }  # fmt: skip
    assert braze.left(Answer(201, headers)) == {3: Left(7, 2.0)}
    assert braze.left(Answer(201, {**headers, "x-ratelimit-limit": "2400"})) == {}
    assert braze.left(Answer(401, dict.fromkeys(headers, ""))) == {}


async def test_users_by_alias() -> None:
    """Without being told so, Braze makes no user of an alias, and says success."""
    row = {ALIAS[0]: "7", ALIAS[1]: 'c"rm', "first_name": "Ada"}
    key = '["7","c\\"rm"]'
    async with workspace() as (sandbox, braze):
        assert await write(braze, Op.UPSERT, row, by=ALIAS) == {key: Delivered(key)}
        held = await braze.read("users", ALIAS, [key, '["8","c"]'], ["first_name", *ALIAS])
        assert held[key]["first_name"] == "Ada"
        assert list(held) == [key]
        assert await write(braze, Op.DELETE, {name: row[name] for name in ALIAS}, by=ALIAS) == {
            key: Delivered(key)
        }
        assert not sandbox.store.users


async def test_users_by_braze_id_are_updated_never_made() -> None:
    async with workspace() as (sandbox, braze):
        await write(braze, Op.UPSERT, *people("a", first_name="Ada"))
        (known,) = sandbox.store.users
        rows = [{"braze_id": known, "first_name": "Bea"}, {"braze_id": "nobody", "first_name": "x"}]
        found = await write(braze, Op.UPDATE, *rows, by=("braze_id",))
        assert found[known] == Delivered(known)
        assert isinstance(found["nobody"], Gone)
        assert sandbox.store.external["a"].standard["first_name"] == "Bea"
        with pytest.raises(Halt, match="braze_ids itself"):
            await write(braze, Op.UPSERT, *rows, by=("braze_id",))


@pytest.mark.parametrize("by", [("email",), (ALIAS[0],), ("external_id", "braze_id")])
async def test_other_identifiers_stop_the_run(by: tuple[str, ...]) -> None:
    async with workspace() as (_, braze):
        with pytest.raises(Halt, match="finds no user by"):
            await write(braze, Op.UPSERT, dict.fromkeys(by, "x"), by=by)


async def test_an_update_makes_no_user() -> None:
    async with workspace() as (sandbox, braze):
        await write(braze, Op.UPSERT, *people("a", first_name="Ada"))
        found = await write(braze, Op.UPDATE, *people("a", "b", first_name="Bea"))
        assert found["a"] == Delivered("a")
        assert isinstance(found["b"], Gone)
        assert set(sandbox.store.external) == {"a"}


async def test_a_part_of_a_user_who_is_gone_is_not_sent() -> None:
    """The engine then makes the whole record again."""
    fields = (Field("external_id"), Field("first_name"), Field("plan_tier"))
    rows = [*people("here", "gone", plan_tier="x"), *people("whole", plan_tier="x", first_name="Ada")]
    async with workspace() as (sandbox, braze):
        await write(braze, Op.UPSERT, *people("here", first_name="Ada"))
        parts = ("here", "gone")
        said = await braze.write(RecordBatch(Op.UPSERT, "users", ("external_id",), fields, rows, parts=parts))
        assert {item.key: item for item in said.items} == {
            "here": Delivered("here"), "gone": Gone("gone", "no-such-user", "Braze has no such user"),
            "whole": Delivered("whole"),
        }  # fmt: skip
        assert set(sandbox.store.external) == {"here", "whole"}
        assert sent_to(sandbox, "/users/export/ids") == 1


async def test_a_record_without_skipped_nulls_is_whole() -> None:
    """A first sync asks for nobody."""
    fields = (Field("external_id"), Field("first_name"), Field("plan_tier", skip_null=True))
    async with workspace() as (sandbox, braze):
        await braze.write(
            RecordBatch(Op.UPSERT, "users", ("external_id",), fields, people("a", first_name="x"))
        )
        assert sent_to(sandbox, "/users/export/ids") == 0


async def test_deletes_are_counted_and_where_the_count_is_another_one_looked_for() -> None:
    async with workspace() as (sandbox, braze):
        await write(braze, Op.UPSERT, *people("a", "b", first_name="x"))
        found = await write(braze, Op.DELETE, *people("a", "never"))
        assert found == {"a": Delivered("a"), "never": Delivered("never")}
        assert sent_to(sandbox, "/users/export/ids") == 0
        sandbox.faults = Faults(omit=1.0)
        assert await write(braze, Op.DELETE, *people("b")) == {"b": Delivered("b")}
        assert sent_to(sandbox, "/users/export/ids") == 1


async def test_an_export_that_leaves_a_user_out_is_no_evidence() -> None:
    said = {"message": "success", "users": [], "invalid_user_ids": ["b"]}
    async with answering(lambda _: web.json_response(said, status=201), make) as braze:
        with pytest.raises(Unsettled):
            await braze.read("users", ("external_id",), ["a", "b"], ["email"])


async def test_more_users_than_an_export_takes_are_read_in_several() -> None:
    keys = [f"u{number}" for number in range(75)]
    async with workspace() as (sandbox, braze):
        await write(braze, Op.UPSERT, *people(*keys, first_name="x"))
        assert set(await braze.read("users", ("external_id",), keys, ["first_name"])) == set(keys)
        assert sent_to(sandbox, "/users/export/ids") == 2


async def test_every_page_of_attributes_is_read() -> None:
    async with workspace() as (sandbox, braze):
        for number in range(120):
            await write(braze, Op.UPSERT, {"external_id": "a", f"extra_{number:03}": number})
        sandbox.store.attributes["extra_000"].status = "Blocklisted"
        schema = await braze.describe("users")
        assert schema.fields["extra_119"].type is FieldType.NUMBER
        assert not schema.fields["extra_000"].writable
        assert schema.fields["groups"].native_type == "Array 25"
        assert not schema.open
    async with workspace(create_attributes=True) as (sandbox, braze):
        assert (await braze.describe("users")).open
        assert sent_to(sandbox, "/custom_attributes") == 0


async def test_a_key_without_the_permission_stops_the_run_and_says_which_setting_helps() -> None:
    async with workspace() as (sandbox, braze):
        sandbox.permissions = frozenset({"users.track"})
        with pytest.raises(Halt, match=r"custom_attributes\.get"):
            await braze.describe("users")
        with pytest.raises(Halt, match="no object 'user'"):
            await braze.describe("user")


@pytest.mark.parametrize("config", [{"batch_size": 76}, {"base_url": "rest.iad-01.braze.com"}])
def test_settings_that_braze_cannot_take_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BrazeConfig(**{"api_key": "k", "base_url": "https://rest.iad-01.braze.com", **config})


async def test_events_and_purchases() -> None:
    event = {
        "id": "1",
        "external_id": "a",
        "name": "rented",
        "time": "2027-01-02T03:04:05Z",
        "properties.film": "Solea",
    }
    bought = {
        "id": "2", "external_id": "a", "product_id": "p", "currency": "EUR", "price": 1.5, "time": "2027-01-02T03:04:05Z",
    }  # fmt: skip
    async with workspace() as (sandbox, braze):
        found = await write(
            braze, Op.INSERT, event, {**event, "id": "3", "name": ""}, by=("id",), object="events"
        )
        assert found["1"] == Delivered("1")
        assert found["3"] == Rejected("3", "'name' is required", "'name' is required")
        assert await write(braze, Op.INSERT, bought, by=("id",), object="purchases") == {"2": Delivered("2")}
        kinds = [(one["kind"], "id" in one) for one in sandbox.store.external["a"].happened]
        assert kinds == [("events", False), ("purchases", False)]
        with pytest.raises(Halt, match="no 'film'"):
            await write(braze, Op.INSERT, {**event, "film": "x"}, by=("id",), object="events")
    assert braze.batch_limits("events", Op.UPSERT) is None
    assert braze.batch_limits("users", Op.INSERT) is None


class Site:
    """A project with one sync to a simulated workspace."""

    def __init__(self, folder: Path, url: str, **sync: Any) -> None:
        self.folder = folder
        document = {
            "project": "acme", "warehouses": {"main": {"type": "duckdb", "path": "warehouse.duckdb"}},
            "destinations": {"braze": {"type": "braze", "base_url": url, "api_key": "sandbox"}},
        }  # fmt: skip
        (folder / "backhaul.yml").write_text(json.dumps(document))
        (folder / "syncs").mkdir()
        model = {"table": "people", "primary_key": "id"}
        (folder / "syncs" / "it.yml").write_text(
            json.dumps({"name": "it", "model": model, "destination": "braze", **sync})
        )

    def run(self, select: str) -> Any:
        with opened(self.folder / "warehouse.duckdb") as db:
            db.execute(f"CREATE OR REPLACE TABLE people AS {select}")
        return load(self.folder).run("it")


def test_an_update_sends_what_changed_and_a_user_who_is_gone_is_made_whole(tmp_path: Path) -> None:
    """Attributes are billed by data point."""
    sandbox = BrazeSandbox()
    with serving(sandbox.app()) as url:
        fields = {"plan_tier": "plan", "health_score": "score", "groups": "groups", "renews_at": "renews"}
        site = Site(
            tmp_path,
            url,
            object="users",
            identify={"external_id": "id"},
            fields=fields,
            freshness={"sample": 0},
        )
        rest = "['a', 'b'] AS groups, TIMESTAMPTZ '2027-01-02 03:04:05Z' AS renews FROM range(3) t(i)"
        assert site.run(f"SELECT 'u' || i AS id, 'gold' AS plan, i AS score, {rest}").status == "succeeded"
        sandbox.store.external["u0"].custom["plan_tier"] = "by hand"
        sandbox.store.remove(sandbox.store.external["u1"])
        run = site.run(f"SELECT 'u' || i AS id, 'gold' AS plan, i + 10 AS score, {rest}")
        run = site.run(f"SELECT 'u' || i AS id, 'gold' AS plan, i + 10 AS score, {rest}")
        assert run.status == "succeeded", run.error
    held = {key: user.custom for key, user in sandbox.store.external.items()}
    assert (held["u0"]["plan_tier"], held["u0"]["health_score"]) == ("by hand", 10)
    assert held["u1"].keys() == {"plan_tier", "health_score", "groups", "renews_at"}


def test_events_of_unknown_end_are_not_sent_again(tmp_path: Path) -> None:
    """I16: Braze adds an event as often as it is sent."""
    sandbox = BrazeSandbox()
    with serving(sandbox.app()) as url:
        fields = {"external_id": "who", "name": "'rented'", "time": "happened", "properties.film": "film"}
        site = Site(tmp_path, url, object="events", mode="insert", identify={"id": "id"}, fields=fields)
        select = "SELECT i AS id, 'u' || i AS who, TIMESTAMPTZ '2027-01-02 03:04:05Z' AS happened, 'Solea' AS film FROM range(5) t(i)"
        sandbox.faults = Faults(reset_after=1.0)
        assert site.run(select).unknown == 5
        sandbox.faults = Faults()
        site.run(select)
    assert [len(user.happened) for user in sandbox.store.users.values()] == [1] * 5
    assert sandbox.store.external["u0"].happened[0]["properties"] == {"film": "Solea"}


@pytest.mark.parametrize(
    ("object", "own"),
    [("events", {"name": "paid"}), ("purchases", {"product_id": "film", "currency": "EUR", "price": 3})],
)
async def test_what_happened_to_an_alias_of_nobody_is_not_delivered(object: str, own: dict[str, Any]) -> None:
    """Braze's event and purchase objects: of an alias they only ever update."""
    known, nobody = (dict(zip(ALIAS, (name, "crm"), strict=True)) for name in ("a", "b"))
    async with workspace(create_attributes=True) as (sandbox, braze):
        await write(braze, Op.UPSERT, {**known, "first_name": "Ada"}, by=ALIAS)
        rows = [
            {"id": key, **alias, **own, "time": "2026-11-01T00:00:00Z"}
            for key, alias in (("1", known), ("2", nobody))
        ]
        found = await write(braze, Op.INSERT, *rows, by=("id",), object=object)
    assert found["1"] == Delivered("1")
    assert isinstance(found["2"], Rejected)
    assert len(sandbox.records()["events and purchases"]) == 1
