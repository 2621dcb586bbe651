"""Answers that are not what they seem: nothing is called delivered that the destination did not confirm."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from sites import Site

Answering = Callable[..., list[str]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def ids_of(request: web.Request) -> list[int]:
    return [record["id"] for record in (await request.json())["records"]]


def good(ids: list[int]) -> list[dict[str, Any]]:
    return [{"id": key, "status": "ok"} for key in ids]


def broken(body: bytes, content_type: str = "application/json") -> Handler:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=content_type)

    return answer


GARBAGE = {
    "empty": broken(b""),
    "a page": broken(b"<html><body>welcome</body></html>", "text/html"),
    "a page that claims to be JSON": broken(b"<!doctype html><html></html>"),
    "cut short": broken(b'{"results": [{"id": 0, "status": "o'),
    "a list where an object was": broken(b"[]"),
    "null": broken(b"null"),
    "no results": broken(b'{"results": []}'),
    "other people's results": broken(b'{"results": [{"id": 777, "status": "ok"}]}'),
}


@pytest.mark.parametrize("handler", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_never_success(site: Site, answering: Answering, handler: Handler) -> None:
    site.fill(3)
    asked = answering(handler)
    report = site.run(limit=3).report
    assert report.delivered == 0
    assert report.rejected == 0
    assert report.exit_code in (1, 3)
    assert len(asked) <= 5
    assert site.letters() == []
    with site.project as project:
        assert not list(project.records("users", "acknowledged"))


def test_omitted_results_are_asked_for_again(site: Site, answering: Answering) -> None:
    site.sync = {"freshness": {"sample": 0}}
    rounds: list[list[int]] = []

    async def answer(request: web.Request) -> web.Response:
        ids = await ids_of(request)
        rounds.append(ids)
        return web.json_response({"results": good(ids[: max(len(ids) // 2, 1)])})

    answering(answer)
    site.fill(16)
    report = site.run().report
    assert (report.delivered, report.unknown) == (16, 0)
    assert [len(ids) for ids in rounds] == [16, 8, 4, 2, 1]


def test_duplicated_results_that_contradict_are_no_answer(site: Site, answering: Answering) -> None:
    site.sync = {"freshness": {"sample": 0}}

    async def answer(request: web.Request) -> web.Response:
        ids = await ids_of(request)
        torn = [{"id": 3, "status": "no", "error": "bad"}] if 3 in ids else []
        return web.json_response({"results": [*good(ids), *torn]})

    answering(answer)
    site.fill(10)
    report = site.run().report
    assert (report.delivered, report.rejected, report.unknown) == (9, 0, 1)
    with site.project as project:
        assert [record["key"] for record in project.records("users", "unknown")] == [3]


def test_an_answer_without_end_is_capped(site: Site, answering: Answering) -> None:
    site.fill(3)
    sizes: list[int] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        sizes.append(0)
        piece = b" " * (1 << 20)
        while sizes[-1] < 1 << 30:
            try:
                await response.write(piece)
            except (ConnectionError, asyncio.CancelledError):
                break
            sizes[-1] += len(piece)
        return response

    answering(answer)
    report = site.run().report
    assert report.unknown == 3
    assert "HTTP 200 with an answer of more than" in (report.error or "") or report.status == "partial"
    assert len(sizes) <= 5
    assert max(sizes) < 200 << 20


def test_a_slow_answer_ends_at_the_total_deadline(site: Site, answering: Answering) -> None:
    site.fill(3)
    begun: list[None] = []

    async def answer(request: web.Request) -> web.StreamResponse:
        begun.append(None)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.1)

    answering(answer, timeout="0.5s")
    report = site.run().report
    assert report.unknown == 3
    assert len(begun) == 5


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(site: Site, answering: Answering, status: int) -> None:
    site.fill(500)

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    asked = answering(answer)
    report = site.run().report
    assert report.status == "failed"
    assert "redirect" in str(report.error)
    assert "/elsewhere" not in asked
    assert len(asked) <= 8


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_stop_at_once(site: Site, answering: Answering, status: int) -> None:
    site.fill(5000)

    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"message": "token expired"}, status=status)

    asked = answering(answer)
    report = site.run().report
    assert (report.status, report.exit_code) == ("failed", 1)
    assert "token expired" in str(report.error)
    # a 403 may be about one record: ten requests are refused before it is the credential's; eight are in flight
    assert len(asked) <= (8 if status == 401 else 18)
    assert (report.delivered, report.rejected, report.unknown, report.deferred) == (0, 0, 0, 5000)
    assert site.letters() == []


def test_a_token_that_expires_midway_loses_nothing(site: Site, answering: Answering) -> None:
    site.fill(3000)
    site.sync = {"freshness": {"sample": 0}}
    held: list[int] = []
    allowed = [1000]

    async def answer(request: web.Request) -> web.Response:
        ids = await ids_of(request)
        if len(held) >= allowed[0]:
            return web.json_response({"message": "token expired"}, status=401)
        held.extend(ids)
        return web.json_response({"results": good(ids)})

    answering(answer)
    first = site.run().report
    assert first.status == "failed"
    assert first.delivered == len(held)
    allowed[0] = 10_000
    second = site.run().report
    assert second.status == "succeeded"
    assert sorted(held) == list(range(3000))


def test_a_destination_that_is_down_loses_nothing(site: Site) -> None:
    site.fill(1000)
    site.servers.stop()
    called = site.call("run")
    said = called.stderr
    assert called.exit_code == 1
    assert "cannot connect" in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) <= 3
    site.servers.start(site.sink.app(), site.port)
    assert site.run().report.delivered == 1000
    assert site.sink.records == site.model()


def test_without_changes_no_request_is_made_and_nobody_has_to_be_there(site: Site) -> None:
    site.fill(1000)
    site.run()
    requests = len(site.sink.seen)
    site.servers.stop()
    report = site.run().report
    assert (report.status, report.requests, report.exit_code) == ("succeeded", 0, 0)
    assert len(site.sink.seen) == requests


def test_server_errors_all_the_way_end_the_run(site: Site, faulty: Callable[..., None]) -> None:
    site.fill(10_000)
    faulty(status_500=1.0)
    report = site.run().report
    assert report.status == "failed"
    assert "does not answer" in str(report.error)
    assert len(site.sink.seen) <= 32 * 5
    faulty()
    assert site.run().report.status == "succeeded"
    assert site.sink.records == site.model()


def test_inserts_into_a_broken_destination_end_the_run(site: Site, faulty: Callable[..., None]) -> None:
    site.sync = {"mode": "insert"}
    site.write()
    site.fill(10_000)
    faulty(status_500=1.0)
    report = site.run().report
    assert report.status == "failed"
    assert len(site.sink.seen) <= 40
    assert report.unknown <= 4000


def test_a_read_back_that_fails_does_not_undo_the_run(site: Site, answering: Answering) -> None:
    site.fill(100)

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/read":
            return web.json_response({"message": "not for you"}, status=403)
        return web.json_response({"results": good(await ids_of(request))})

    answering(answer)
    report = site.run().report
    assert (report.delivered, report.status) == (100, "succeeded")
    assert "read back" in str(report.hint)
