"""The declared HTTP destination, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from pydantic import ValidationError

from backhaul.destinations.http import HttpApi, HttpConfig
from backhaul.destinations.http.results import outcomes_of
from backhaul.destinations.kit import Answer, Unsupported
from backhaul.errors import Halt, Refused, Throttled, Unsettled
from backhaul.types import BatchLimits, Delivered, Field, FieldType, Op, Outcomes, Rejected, Retry

RESULTS = {
    "each": "results",
    "key": "id",
    "delivered": "status == 'ok'",
    "retryable": "status == 'retry'",
    "error": "error",
}


@dataclass
class Records:
    """A batch of plain dicts."""

    rows: list[dict[str, Any]]
    op: Op = Op.UPSERT
    object: str = "user"
    identifiers: tuple[str, ...] = ("id",)
    idempotency_key: str = "run-1/batch-1"
    parsed: int = 0
    fields: tuple[Field, ...] = ()
    remote_ids: tuple[None, ...] = ()

    @property
    def keys(self) -> list[str]:
        return [str(row["id"]) for row in self.rows]

    def text(self) -> bytes:
        return b",".join(orjson.dumps(row) for row in self.rows)

    def records(self) -> list[dict[str, Any]]:
        self.parsed += 1
        return orjson.loads(b"[" + self.text() + b"]")

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class Server:
    """Answers every request with what `answer` gives, and remembers the requests."""

    url: str = ""
    seen: list[tuple[str, str, bytes, Mapping[str, str]]] = field(default_factory=list)
    answer: Callable[[Any], web.Response] = lambda body: web.Response(status=200)

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen.append((request.method, request.path_qs, body, dict(request.headers)))
        return self.answer(orjson.loads(body) if body else None)


@dataclass
class Door:
    """The least that a door does: the address, the headers, raising what `classify` makes of the answer."""

    session: aiohttp.ClientSession
    api: HttpApi | None = None

    async def request(
        self, method: str, path: str, *, body=None, json=None, params=None, headers=None
    ) -> Answer:
        assert self.api
        sent = {"Content-Type": "application/json", **self.api.headers(), **(headers or {})}
        async with self.session.request(
            method, self.api.base_url + path, data=body, params=params, headers=sent
        ) as got:
            names = {name.lower(): value for name, value in got.headers.items()}
            answer = Answer(got.status, names, await got.read())
        error = self.api.classify(answer)
        if error:
            raise error
        return answer


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{tail:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def connect(server: Server) -> AsyncIterator[Callable[..., HttpApi]]:
    async with aiohttp.ClientSession() as session:

        def make(**user: Any) -> HttpApi:
            settings = {k: user.pop(k) for k in ("headers", "idempotency_header") if k in user}
            door = Door(session)
            door.api = HttpApi(
                config(base_url=server.url, objects={"user": {"key": "id", **user}}, **settings), door
            )
            return door.api

        yield make


def config(**keys: Any) -> HttpConfig:
    return HttpConfig.model_validate(
        {"base_url": "http://127.0.0.1:1", "objects": {"user": {"key": "id", "upsert": upsert()}}} | keys
    )


def upsert(**keys: Any) -> dict[str, Any]:
    return {"request": "POST /upsert", "batch_size": 100, "body": {"records": "$records"}} | keys


def users(*ids: Any, **more: Any) -> Records:
    return Records([{"id": i, "name": f"user {i}"} for i in ids], **more)


def answering(body: Any, **more: Any) -> Callable[[Any], web.Response]:
    return lambda _: web.Response(body=orjson.dumps(body), content_type="application/json", **more)


async def test_a_batch_is_one_request_with_the_records_where_the_body_says(server, connect):
    api = connect(
        upsert=upsert(body={"meta": {"source": "backhaul", "n": 1}, "records": "$records", "z": [None]}),
        headers={"Authorization": "Bearer s3cret"},
        idempotency_header="Idempotency-Key",
    )
    batch = users(1, 2)
    assert await api.write(batch) == Outcomes(everything=True)
    [(method, path, body, headers)] = server.seen
    assert (method, path) == ("POST", "/upsert")
    assert orjson.loads(body) == {"meta": {"source": "backhaul", "n": 1}, "records": batch.rows, "z": [None]}
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Idempotency-Key"] == batch.idempotency_key
    assert headers["Content-Type"] == "application/json"
    assert batch.parsed == 0
    assert "s3cret" not in repr(api.config)


async def test_a_body_can_be_the_records_alone_or_one_record(server, connect):
    await connect(upsert=upsert(body="$records")).write(users(1))
    await connect(upsert=upsert(batch_size=1, request="PUT /one?x=1", body={"user": "$record"})).write(
        users(2)
    )
    assert [(path, orjson.loads(body)) for _, path, body, _ in server.seen] == [
        ("/upsert", [{"id": 1, "name": "user 1"}]),
        ("/one?x=1", {"user": {"id": 2, "name": "user 2"}}),
    ]


async def test_text_that_looks_like_a_marker_inside_a_record_is_left_alone(server, connect):
    rows = [{"id": 1, "name": '"$records"'}, {"id": 2, "name": "$keys"}]
    await connect(upsert=upsert(body={"note": 'he said "$5"', "records": "$records"})).write(Records(rows))
    assert orjson.loads(server.seen[0][2]) == {"note": 'he said "$5"', "records": rows}


@pytest.mark.parametrize(
    ("ids", "sent"),
    [
        ([1, 2], b"[1,2]"),
        (["a", 'q"'], rb'["a","q\""]'),
        ([2**63 + 1, 10**25], b"[9223372036854775809,%d]" % 10**25),
    ],
)
async def test_keys_keep_their_type_and_every_digit(server, connect, ids, sent):
    class Exact(Records):
        def text(self) -> bytes:
            import json

            return ",".join(json.dumps(row) for row in self.rows).encode()

    delete = {"request": "POST /delete", "batch_size": 9, "body": {"ids": "$keys"}}
    await connect(upsert=upsert(), delete=delete).write(Exact([{"id": i} for i in ids], op=Op.DELETE))
    assert server.seen[0][2] == b'{"ids":' + sent + b"}"


async def test_results_are_matched_by_key_whatever_their_order(server, connect):
    server.answer = answering(
        {
            "results": [
                {"id": 3, "status": "retry", "error": "busy"},
                {"id": "1", "status": "ok"},
                {"id": 2, "status": "bad", "error": {"code": "E7", "message": "no such plan"}},
                {"id": 99, "status": "ok"},
                {"status": "ok"},
                "nonsense",
            ]
        }
    )
    found = await connect(upsert=upsert(results=RESULTS)).write(users(1, 2, 3, 4))
    assert not found.everything
    assert set(found.items) == {Delivered("1"), Rejected("2", "E7", "no such plan"), Retry("3", "busy")}


async def test_all_delivered_is_said_in_one_word_and_one_missing_is_not(server, connect):
    api = connect(upsert=upsert(results=RESULTS))
    server.answer = lambda body: answering(
        {"results": [{"id": r["id"], "status": "ok"} for r in body["records"]]}
    )(body)
    assert await api.write(users(1, 2)) == Outcomes(everything=True)
    server.answer = answering({"results": [{"id": 1, "status": "ok"}]})
    assert await api.write(users(1, 2)) == Outcomes((Delivered("1"),))


@pytest.mark.parametrize(
    ("first", "second", "named"),
    [
        ("ok", "ok", True),
        ("ok", "bad", False),
        ("bad", "ok", False),
        ("retry", "bad", False),
        ("bad", "bad", True),
    ],
)
async def test_two_verdicts_on_one_key_leave_it_unknown(server, connect, first, second, named):
    server.answer = answering({"results": [{"id": 1, "status": first}, {"id": 1, "status": second}]})
    found = await connect(upsert=upsert(results=RESULTS)).write(users(1, 2))
    assert [item.key for item in found.items] == (["1"] if named else [])
    assert not found.everything


async def test_results_by_index_count_only_when_there_is_one_for_each_record(server, connect):
    by_index = {k: v for k, v in RESULTS.items() if k != "key"} | {"index": True}
    api = connect(upsert=upsert(results=by_index))
    server.answer = answering({"results": [{"status": "ok"}, {"status": "bad", "error": "no"}]})
    assert set((await api.write(users(1, 2))).items) == {Delivered("1"), Rejected("2", "rejected", "no")}
    assert await api.write(users(1, 2, 3)) == Outcomes()
    assert await api.write(users(1)) == Outcomes()


@pytest.mark.parametrize("verdict", [None, "true", "yes", 7, [], {}])
async def test_a_verdict_that_is_neither_true_nor_false_is_unknown(server, connect, verdict):
    server.answer = answering({"results": [{"id": 1, "ok": verdict}]})
    results = {"each": "results", "key": "id", "delivered": "ok"}
    assert await connect(upsert=upsert(results=results)).write(users(1, 2)) == Outcomes()


@pytest.mark.parametrize("body", [b"", b"{", b"<html>hi</html>", b"null", b'{"results": {}}', b"[]", b'"ok"'])
async def test_an_answer_without_results_delivers_nothing(server, connect, body):
    server.answer = lambda _: web.Response(body=body, content_type="application/json")
    try:
        found = await connect(upsert=upsert(results=RESULTS)).write(users(1))
    except Unsettled:
        return
    assert found == Outcomes()


async def test_without_results_a_page_or_broken_json_is_no_success(server, connect):
    api = connect(upsert=upsert())
    for body, kind in [
        (b"<!DOCTYPE html><p>log in", "text/plain"),
        (b"hello", "text/html"),
        (b'{"ok": tr', "application/json"),
        (b"\n <HTML>", "application/octet-stream"),
    ]:
        server.answer = lambda _, body=body, kind=kind: web.Response(body=body, content_type=kind)
        with pytest.raises(Unsettled):
            await api.write(users(1))
    for body, kind in [
        (b"", "application/json"),
        (b"ok", "text/plain"),
        (b"{}", "application/json"),
        (b"", "text/html"),
    ]:
        server.answer = lambda _, body=body, kind=kind: web.Response(body=body, content_type=kind)
        assert await api.write(users(1)) == Outcomes(everything=True)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, Refused),
        (401, Halt),
        (403, Halt),
        (404, Refused),
        (422, Refused),
        (429, Throttled),
        (500, Unsettled),
    ],
)
async def test_a_status_speaks_for_the_request_as_a_whole(server, connect, status, error):
    server.answer = answering({"results": [{"id": 1, "status": "ok"}], "message": "why not"}, status=status)
    with pytest.raises(error, match="why not"):
        await connect(upsert=upsert(results=RESULTS)).write(users(1))


async def test_read_back_by_key(server, connect):
    read = {"request": "POST /read", "body": {"ids": "$keys"}, "each": "users"}
    server.answer = answering(
        {"users": [{"id": 2, "name": "b", "address": {"city": "X"}}, {"id": 9, "name": "z"}]}
    )
    api = connect(upsert=upsert(), fields={"id": "integer", "name": "string"}, read=read)
    assert await api.read("user", ("id",), ["1", "2"], ["id", "name", "address.city"]) == {
        "2": {"id": 2, "name": "b", "address.city": "X"}
    }
    assert server.seen[0][2] == b'{"ids":[1,2]}'
    listed = connect(upsert=upsert(), read={"request": "GET /all", "each": "users", "key": "name"})
    assert await listed.read("user", ("id",), ["b"], ["id"]) == {"b": {"id": 2}}
    assert server.seen[1][:3] == ("GET", "/all", b"")
    with pytest.raises(Unsupported, match="declares no `read`"):
        await connect(upsert=upsert()).read("user", ("id",), ["1"], ["id"])


async def test_declared_fields_close_the_object(connect):
    open_one = await connect(upsert=upsert()).describe("user")
    assert open_one.open
    assert open_one.fields == {"id": Field("id", required=True, unique=True)}
    closed = await connect(
        upsert=upsert(),
        fields={"id": "integer", "tier": {"choices": ["a", "b"], "required": True}, "x": None},
    ).describe("user")
    assert not closed.open
    assert closed.fields["id"] == Field("id", FieldType.INTEGER, required=True, unique=True)
    assert closed.fields["tier"] == Field("tier", required=True, choices=("a", "b"))
    listed = await connect(upsert=upsert(), fields=["name"]).describe("user")
    assert set(listed.fields) == {"id", "name"}


async def test_what_is_not_declared_halts_and_names_the_nearest(connect):
    api = connect(upsert=upsert(max_bytes="1 MB"))
    with pytest.raises(Halt, match="no object 'usr'") as halted:
        await api.describe("usr")
    assert "'user'" in (halted.value.hint or "")
    with pytest.raises(Halt, match="declares no delete"):
        await api.write(users(1, op=Op.DELETE))
    with pytest.raises(Halt, match="identified by 'id'"):
        await api.write(users(1, identifiers=("email",)))
    assert api.batch_limits("user", Op.DELETE) is None
    assert api.batch_limits("usr", Op.UPSERT) is None
    assert api.batch_limits("user", Op.UPSERT) == BatchLimits(100, 1_000_000)


def test_an_idempotency_header_makes_inserts_repeatable():
    assert Op.INSERT not in HttpApi(config(), None).repeatable  # type: ignore[arg-type]
    assert Op.INSERT in HttpApi(config(idempotency_header="Idempotency-Key"), None).repeatable  # type: ignore[arg-type]


def test_limits_come_from_the_configuration():
    api = HttpApi(config(rate_limits=["100/1s", "250000/1d"], concurrency=3, timeout="30s"), None)  # type: ignore[arg-type]
    assert [(rate.count, rate.per) for rate in api.limits] == [(100, 1.0), (200_000, 86_400.0)], (
        "a fifth of a day's quota is left to others"
    )
    assert (api.concurrency, api.config.timeout) == (3, 30.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"base_url": "127.0.0.1:9000"}, "scheme"),
        ({"base_url": "ftp://x"}, "scheme"),
        ({"base_url": "http://me:pw@x"}, "credentials"),
        ({"base_url": "http://x/?a=1"}, "query"),
        ({"headers": {"A b": "x"}}, "header name"),
        ({"headers": {"A": "x\r\nB: y"}}, "line break"),
        ({"objects": {}}, "at least 1"),
        ({"objects": {"user": {"key": "id"}}}, "at least one of"),
        ({"retries": 3}, "not permitted"),
    ],
)
def test_a_wrong_destination_is_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        config(**change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"request": "FETCH /x"}, "not a request"),
        ({"request": "POST x"}, "not a request"),
        ({"request": "POST //evil.example/x"}, "not a request"),
        ({"request": "GET /x"}, "cannot write"),
        ({"batch_size": 0}, "greater than or equal to 1"),
        ({"batch_size": 100_001}, "less than or equal to 100000"),
        ({"batch_size": "ten"}, "valid integer"),
        ({"body": {"a": 1}}, "carries no records"),
        ({"body": {"ids": "$keys"}}, "carries no records"),
        ({"body": {"a": "$record"}}, "stands for one record"),
        ({"body": {"a": "$recrods"}}, "not a placeholder"),
        ({"body": {"a": "all $records"}}, "not a placeholder"),
        ({"body": {"$records": 1}}, "name of a field"),
        ({"results": RESULTS | {"each": "results["}}, "not a JMESPath expression"),
        ({"results": RESULTS | {"delivered": True}}, "not a JMESPath expression"),
        ({"results": RESULTS | {"index": True}}, "one of `key`, `index: true`"),
        ({"results": {k: v for k, v in RESULTS.items() if k != "key"}}, "one of `key`, `index: true`"),
        ({"results": RESULTS | {"succeeded": "x"}}, "not permitted"),
    ],
)
def test_a_wrong_operation_is_refused(change, said):
    with pytest.raises(ValidationError, match=said):
        config(objects={"user": {"key": "id", "upsert": upsert(**change)}})


@pytest.mark.parametrize(
    "read",
    [
        {"request": "GET /x", "body": {"ids": "$keys"}, "each": "a"},
        {"request": "POST /x", "body": {"q": 1}, "each": "a"},
    ],
)
def test_a_wrong_read_is_refused(read):
    with pytest.raises(ValidationError, match=r"GET has no body|carries"):
        config(objects={"user": {"key": "id", "upsert": upsert(), "read": read}})


def test_ten_thousand_results_are_each_found():
    results = (
        config(objects={"user": {"key": "id", "upsert": upsert(results=RESULTS)}})
        .objects["user"]
        .upsert.results
    )
    keys = [str(i) for i in range(10_000)]
    answer = Answer(
        200,
        body=orjson.dumps({"results": [{"id": i, "status": "ok" if i else "bad"} for i in range(10_000)]}),
    )
    found = outcomes_of(results, answer, keys)
    assert len(found.items) == 10_000
