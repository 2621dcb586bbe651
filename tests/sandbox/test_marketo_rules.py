"""The simulated Marketo refuses what Marketo refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.kit import serve
from backhaul.sandbox.limits import RollingLimit
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
    return MarketoSandbox()


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
    now = 0.0
    sandbox.window = RollingLimit(12, 20.0, lambda: now)
    assert [(await call(*DESCRIBE))["success"] for _ in range(13)] == [True] * 12 + [False]
    now = 19.9
    assert await call.code(*DESCRIBE) == "606"
    now = 20.0
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
        ({"email": "a@example.com", "notes": "x" * 30_001}, "1003"),
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


async def test_one_record_twice_in_a_request_is_taken_once(sandbox: MarketoSandbox, call: Caller) -> None:
    rows = [{"email": "a@example.com", "plan": "pro"}, {"email": "A@example.com", "plan": "free"}]
    said = await call("POST", "rest/v1/leads.json", json={"input": rows})
    assert [one["status"] for one in said["result"]] == ["created", "skipped"]
    assert said["result"][1]["reasons"][0]["code"] == "1036"
    cars = [{"vin": "1", "year": 2020}, {"vin": "1", "year": 2021}]
    said = await call("POST", "rest/v1/customobjects/car_c.json", json={"input": cars})
    assert [one["status"] for one in said["result"]] == ["created", "skipped"]
    assert [one["plan"] for one in sandbox.instance.leads.records.values()] == ["pro"]


async def test_a_null_is_left_out_of_answers(call: Caller) -> None:
    await call("POST", "rest/v1/leads.json", json={"input": [{"email": "a@example.com"}]})
    said = await call(
        "GET", "rest/v1/leads.json?filterType=email&filterValues=a@example.com&fields=email,plan,trial"
    )
    (lead,) = said["result"]
    assert (lead.keys(), lead["trial"]) == ({"id", "email", "trial"}, False)


async def test_a_lead_is_found_by_one_field_and_three_hundred_values(call: Caller) -> None:
    values = ",".join(f"{number}@x.ch" for number in range(301))
    form = {"filterType": "email", "filterValues": values}
    assert await call.code("POST", "rest/v1/leads.json?_method=GET", data=form) == "1003"
    assert await call.code("GET", "rest/v1/leads.json?filterType=plan&filterValues=pro") == "1011"
