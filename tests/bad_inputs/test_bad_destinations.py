"""Destinations that refuse, mislead or do not answer (bad inputs 29 to 36)."""

from __future__ import annotations

import resource
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack

import pytest
from aiohttp import web
from bad_project import CANARY, BadProject

from backhaul.testing.serving import serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Handler], str]
TYPED = {"fields": {"name": {"type": "string"}, "v": {"type": "number"}}}


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves one handler for every request; gives its address."""
    with ExitStack() as stack:

        def start(handler: Handler) -> str:
            app = web.Application(client_max_size=1 << 30)
            app.router.add_route("*", "/{path:.*}", handler)
            return stack.enter_context(serving(app))

        yield start


def test_a_field_that_is_not_there_is_answered_with_the_nearest(bad: BadProject) -> None:
    bad.object, bad.sync = TYPED, {"fields": {"nmae": "name"}}
    bad.write().refuses(2, "user has no field nmae at api", "did you mean name?", "syncs/users.yml:1")


def test_a_required_field_that_is_not_mapped(bad: BadProject) -> None:
    bad.object = {"fields": {"name": {"type": "string", "required": True}, "v": {"type": "number"}}}
    bad.sync = {"fields": {"v": "v"}}
    bad.write().refuses(2, "user requires name, which is not mapped", "add name")


def test_a_table_names_its_fields_and_wants_what_it_requires(bad: BadProject) -> None:
    with sqlite3.connect(bad.root / "app.db") as app:
        app.execute(
            "create table user (id integer primary key, name text not null, v real, twice as (v * 2) stored)"
        )
    app.close()
    bad.destination = {"type": "sqlite", "path": "app.db"}
    bad.sync = {"fields": {"nam": "name", "twice": "v"}}
    said = bad.write().refuses(2, "user has no field nam", "did you mean name?")
    assert "twice is read-only at api" in said.err or "no field twice" in said.err
    bad.sync = {"fields": {"v": "v"}}
    bad.write().refuses(2, "user requires name, which is not mapped")
    with sqlite3.connect(bad.root / "app.db") as app:
        assert app.execute("select count(*) from user").fetchone() == (0,)
    app.close()


def test_an_object_that_is_not_there(bad: BadProject) -> None:
    bad.sync = {"object": "usr"}
    said = bad.write().call("run")
    assert said.code in (1, 2), said
    assert "usr" in said.err
    assert bad.sink.seen == []


@pytest.mark.parametrize(("status", "word"), [(401, "401"), (403, "403")])
def test_refused_credentials(bad: BadProject, serve: Serve, status: int, word: str) -> None:
    """The body quotes the token, as some do."""

    async def refuse(request: web.Request) -> web.Response:
        return web.json_response({"message": f"bad {request.headers['Authorization']}"}, status=status)

    bad.url = serve(refuse)
    bad.write().fails(word)


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:9000",
        "localhost/api",
        "ftp://127.0.0.1",
        "http://",
        "http://user:pw@127.0.0.1:9000",
        "http://[::1",
        "http://h:99999",
    ],
)
def test_an_address_that_is_none(bad: BadProject, url: str) -> None:
    bad.url = url
    said = bad.write().refuses(2, "backhaul.yml", "base_url")
    assert "user:pw" not in said.err


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_takes_no_token_along(
    bad: BadProject, serve: Serve, status: int
) -> None:
    reached: list[str] = []

    async def other(request: web.Request) -> web.Response:
        reached.append(str(request.headers))
        return web.json_response({"results": []})

    elsewhere = serve(other).replace("127.0.0.1", "localhost")

    async def send_on(_: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": f"{elsewhere}/x"})

    bad.url = serve(send_on)
    bad.write().fails(str(status))
    assert reached == []


HTML = "<html>please log in\r\n\x1b[31m</html>"


@pytest.mark.parametrize(
    "body",
    [
        HTML,
        "",
        '{"results": [{"id": 0, "sta',
        "null",
        '{"results": [null, 1]}',
    ],
)
def test_a_200_that_says_nothing_is_no_success(bad: BadProject, serve: Serve, body: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/html")

    bad.url = serve(answer)
    said = bad.write().call("run")
    assert said.code in (1, 3), said
    assert said.err or said.out
    found = [row["status"] for row in map(_loads, bad.call("records", "users", "--json").out.splitlines())]
    assert "acknowledged" not in found
    assert bad.call("status").code == 0


def _loads(line: str) -> dict[str, str]:
    import json

    found: dict[str, str] = json.loads(line)
    return found


def test_an_answer_of_a_gigabyte_stays_small(bad: BadProject, serve: Serve) -> None:
    chunk = b" " * (1 << 20)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(1024):
                await response.write(chunk)
        except ConnectionError:
            pass
        return response

    bad.url = serve(answer)
    bad.write()
    said = bad.process("run")
    assert said.code in (1, 3), said
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert most < 600 * 1024, f"{most >> 10} MiB"


@pytest.mark.parametrize("error", [None, "", "Le courriel n’est pas valide\n\x1b[2J", {"why": ["deep"]}, 17])
def test_a_record_refused_without_a_word_or_in_any_language(
    bad: BadProject, serve: Serve, error: object
) -> None:
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        results = [{"id": one["id"], "status": "ok"} for one in body["records"]]
        results[1] = {"id": results[1]["id"], "status": "no", "error": error}
        return web.json_response({"results": results}, status=207)

    bad.url = serve(answer)
    said = bad.write().call("run")
    assert said.code == 3, said
    (letter,) = bad.letters()
    assert letter["error"]["message"]
    shown = bad.call("dead-letters", "show", str(letter["id"]))
    assert shown.code == 0
    assert bad.call("dead-letters", "list").code == 0


def test_a_destination_that_is_down(bad: BadProject) -> None:
    bad.url = "http://127.0.0.1:1"
    bad.write().fails("cannot connect to 127.0.0.1:1: Connection refused", "nothing is lost")


def test_a_host_that_does_not_exist(bad: BadProject) -> None:
    bad.url = "http://nowhere.invalid"
    bad.write().fails("cannot connect to nowhere.invalid")


def test_tls_that_is_none(bad: BadProject) -> None:
    bad.url = bad.url.replace("http:", "https:")
    bad.write().fails("no TLS connection")


def test_a_token_with_a_line_break(bad: BadProject) -> None:
    bad.environment = {"TOKEN": f"{CANARY}\r\nX-Other: 1"}
    said = bad.write().call("run")
    assert said.code in (1, 2), said
    assert bad.sink.seen == []


def test_a_token_that_cannot_stand_in_a_header(bad: BadProject) -> None:
    bad.environment = {"TOKEN": f"{CANARY}\x00"[:-1] + "ключ"}
    said = bad.write().call("run")
    assert said.code in (0, 1, 2), said
