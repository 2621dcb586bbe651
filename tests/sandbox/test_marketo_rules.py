"""The simulated Marketo refuses what Marketo refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.kit import serve
from backhaul.sandbox.marketo import MarketoSandbox


class Caller:
    """Calls with a token, and gives the body of the answer."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url, self.token = session, url, ""

    async def identity(self, **more: str) -> dict[str, Any]:
        query = {
            "grant_type": "client_credentials",
            "client_id": "service",
            "client_secret": "sandbox",
            **more,
        }
        async with self.session.get(f"{self.url}/identity/oauth/token", params=query) as answer:
            return {**await answer.json(), "status": answer.status}

    async def __call__(self, method: str, path: str, **more: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        async with self.session.request(method, f"{self.url}/{path}", headers=headers, **more) as answer:
            return await answer.json() if answer.status == 200 else answer.status

    async def code(self, method: str, path: str, **more: Any) -> str:
        said = await self(method, path, **more)
        assert said["success"] is False
        return str(said["errors"][0]["code"])


@pytest.fixture
def sandbox() -> MarketoSandbox:
    return MarketoSandbox(calls=12, interval=0.2)


@pytest.fixture
async def call(sandbox: MarketoSandbox) -> AsyncIterator[Caller]:
    async with serve(sandbox) as url, aiohttp.ClientSession() as session:
        made = Caller(session, url)
        made.token = (await made.identity())["access_token"]
        yield made


DESCRIBE = ("GET", "rest/v1/leads/describe.json")


async def test_the_same_token_is_given_until_it_ends(sandbox: MarketoSandbox, call: Caller) -> None:
    again = await call.identity()
    assert (again["access_token"], again["expires_in"] <= 3600) == (call.token, True)
    sandbox.end_tokens()
    assert await call.code(*DESCRIBE) == "602"
    assert (await call.identity())["access_token"] != call.token
    call.token = "another"
    assert await call.code(*DESCRIBE) == "601"
    call.token = ""
    assert await call.code(*DESCRIBE) == "600"
    assert (await call.identity(client_secret=""))["status"] == 401


async def test_one_call_too_many_in_the_window(sandbox: MarketoSandbox, call: Caller) -> None:
    began = time.monotonic()
    codes = [(await call(*DESCRIBE))["success"] for _ in range(13)]
    assert (codes, time.monotonic() - began < 0.2) == ([True] * 12 + [False], True)
    assert await call.code(*DESCRIBE) == "606"
    await asyncio.sleep(0.21)
    assert (await call(*DESCRIBE))["success"]


async def test_one_call_too_many_at_once(sandbox: MarketoSandbox, call: Caller) -> None:
    sandbox.seconds, sandbox.at_once = 0.05, 3
    said = await asyncio.gather(*(call(*DESCRIBE) for _ in range(4)))
    assert sorted(item["success"] for item in said) == [False, True, True, True]
    (refused,) = [item for item in said if not item["success"]]
    assert refused["errors"][0]["code"] == "615"


async def test_the_day_is_used_up(sandbox: MarketoSandbox, call: Caller) -> None:
    sandbox.daily.count = 1
    assert (await call(*DESCRIBE))["success"]
    assert await call.code(*DESCRIBE) == "607"


async def test_what_is_too_large_is_an_http_error(call: Caller) -> None:
    assert await call("POST", "rest/v1/leads.json", data=b"x" * 1_048_577) == 413
    assert await call("GET", f"rest/v1/leads.json?filterType=email&filterValues={'x' * 7990}") == 414


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": [{"email": "a@example.com"}] * 301}, "1003"),
        ({"input": []}, "1003"),
        ({"input": [{"email": "a@example.com", "shoe": 43}]}, "1006"),
        ({"lookupField": "firstName", "input": [{"firstName": "a"}]}, "1011"),
        ({"action": "merge", "input": [{"email": "a@example.com"}]}, "1003"),
    ],
)
async def test_requests_that_are_refused(call: Caller, body: dict[str, Any], code: str) -> None:
    assert await call.code("POST", "rest/v1/leads.json", json=body) == code


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ({"plan": "x"}, "1002"),
        ({"email": "no address"}, "1003"),
        ({"email": "kä@example.com"}, "1003"),
        ({"email": "a@example.com", "plan": "x" * 256}, "1003"),
        ({"email": "a@example.com", "createdAt": "2026-01-01T00:00:00Z"}, "1003"),
        ({"email": "a@example.com", "signedUpAt": "2026-01-01T00:00:00.5Z"}, "1003"),
        ({"email": "a@example.com", "dateOfBirth": "01/02/2026"}, "1003"),
        ({"email": "a@example.com", "id": 1}, "1003"),
    ],
)
async def test_records_that_are_skipped(call: Caller, row: dict[str, Any], code: str) -> None:
    said = await call("POST", "rest/v1/leads.json", json={"input": [row, {"email": "good@example.com"}]})
    skipped, created = said["result"]
    assert (skipped["status"], skipped["reasons"][0]["code"], created["status"]) == (
        "skipped",
        code,
        "created",
    )


async def test_what_is_no_endpoint(call: Caller) -> None:
    assert await call.code("GET", "rest/v1/nothing.json") == "610"
    assert await call.code("PUT", "rest/v1/leads.json") == "605"
    assert await call.code("POST", "rest/v1/leads.json", data=b"{") == "609"
