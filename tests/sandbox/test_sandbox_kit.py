"""Faults, log, state and page of a simulated API, over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.kit import Faults, serve

UPSERT, READ = "/crm/v3/objects/contacts/batch/upsert", "/crm/v3/objects/contacts/batch/read"


@asynccontextmanager
async def running(sandbox: HubSpotSandbox) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": "Bearer t"}
    async with serve(sandbox) as url, aiohttp.ClientSession(url, headers=headers) as session:
        yield session


def people(*names: str) -> dict[str, Any]:
    return {"inputs": [{"idProperty": "email", "id": f"{name}@example.com", "objectWriteTraceId": name,
                        "properties": {"firstname": name}} for name in names]}  # fmt: skip


def held(sandbox: HubSpotSandbox) -> set[str]:
    return {record["firstname"] for record in sandbox.records()["contacts"].values()}


async def post(session: aiohttp.ClientSession, path: str = UPSERT, body: Any = None) -> int:
    """The status; 0 for a broken connection."""
    try:
        async with session.post(path, json=people("ada") if body is None else body) as answer:
            await answer.read()
            return answer.status
    except aiohttp.ClientError:
        return 0


@pytest.mark.parametrize(
    ("switch", "status", "applied"),
    [("throttle", 429, False), ("throttle_silently", 429, False), ("error", 500, False), ("reset_before", 0, False),
     ("reset_after", 0, True), ("html", 200, False), ("truncate", 200, True), ("omit", 200, True)],
)  # fmt: skip
async def test_each_fault_does_what_it_says(switch: str, status: int, applied: bool) -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        sandbox.faults = Faults(**{switch: 1.0})
        assert await post(session) == status
        assert held(sandbox) == ({"ada"} if applied else set())
        assert sandbox.requests[-1].status == status
        assert await post(session, READ, {"inputs": [{"id": "1"}], "properties": []}) == 207, (
            "reads are spared"
        )
        sandbox.faults = Faults(**{switch: 1.0}, reads=True)
        expected = 207 if switch in ("truncate", "omit") else status
        assert await post(session, READ, {"inputs": [{"id": "1"}], "properties": []}) == expected


async def test_retry_after_is_said_or_not() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        sandbox.faults = Faults(throttle=1.0, retry_after=0.2)
        async with session.post(UPSERT, json=people("ada")) as answer:
            assert answer.headers["Retry-After"] == "0.2"
            assert (await answer.json())["policyName"] == "TEN_SECONDLY_ROLLING"
        sandbox.faults = Faults(throttle_silently=1.0)
        async with session.post(UPSERT, json=people("ada")) as answer:
            assert "Retry-After" not in answer.headers
            assert (await answer.json())["category"] == "RATE_LIMITS"


async def test_what_an_answer_leaves_out_was_applied() -> None:
    sandbox = HubSpotSandbox()
    names = [f"n{number}" for number in range(100)]
    async with running(sandbox) as session:
        sandbox.faults = Faults(omit=0.5)
        async with session.post(UPSERT, json=people(*names)) as answer:
            named = {item["objectWriteTraceId"] for item in (await answer.json())["results"]}
    assert held(sandbox) == set(names)
    assert 25 < len(named) < 75


async def test_a_html_page_and_half_a_body_are_not_json() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        for faults in (Faults(html=1.0), Faults(truncate=1.0)):
            sandbox.faults = faults
            async with session.post(UPSERT, json=people("ada")) as answer:
                with pytest.raises(ValueError, match=r"line|column|char"):
                    await answer.json(content_type=None)


async def test_results_come_in_another_order() -> None:
    sandbox = HubSpotSandbox()
    names = [f"n{number}" for number in range(50)]
    async with running(sandbox) as session:
        for ordered, shuffle in ((True, True), (True, False), (False, False)):
            sandbox.ordered, sandbox.faults = ordered, Faults(shuffle=shuffle)
            async with session.post(UPSERT, json=people(*names)) as answer:
                order = [item["objectWriteTraceId"] for item in (await answer.json())["results"]]
            assert sorted(order) == sorted(names)
            assert (order == names) is (ordered and not shuffle)


async def refused_of(seed: int, names: list[str]) -> set[str]:
    sandbox = HubSpotSandbox(seed)
    sandbox.faults = Faults(refuse=0.1)
    async with running(sandbox) as session, session.post(UPSERT, json=people(*names)) as answer:
        errors = (await answer.json())["errors"]
    return {trace for error in errors for trace in error["context"]["objectWriteTraceId"]}


async def test_a_share_of_records_is_refused_always_the_same_ones() -> None:
    names = [f"n{number}" for number in range(100)]
    first = await refused_of(1, names)
    assert 2 <= len(first) <= 25
    assert await refused_of(1, names[::-1]) == first
    assert await refused_of(2, names) != first


async def test_poison_names_nobody_and_a_refused_key_somebody() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        sandbox.faults = Faults(poison_key="b@example.com")
        assert await post(session, body=people("a", "b")) == 400
        assert await post(session, body=people("a")) == 200
        sandbox.faults = Faults(refuse_key="b@example.com")
        assert await post(session, body=people("b", "c")) == 207
        sandbox.faults = Faults(refuse_all="NO")
        assert await post(session) == 400
    assert held(sandbox) == {"a", "c"}


async def test_a_token_expires() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        sandbox.faults = Faults(expire_after=2)
        assert [await post(session) for _ in range(4)] == [200, 200, 401, 401]
        sandbox.faults = Faults(expire_after=1)
        assert [await post(session) for _ in range(2)] == [200, 401]


async def test_chance_is_seeded() -> None:
    async def statuses(seed: int) -> list[int]:
        sandbox = HubSpotSandbox(seed)
        async with running(sandbox) as session:
            sandbox.faults = Faults(error=0.3, throttle=0.2, reset_after=0.2)
            return [await post(session) for _ in range(30)]

    first = await statuses(7)
    assert {200, 0, 429, 500} <= set(first)
    assert await statuses(7) == first
    assert await statuses(8) != first


async def test_switches_and_state_over_http() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        async with session.post("/_sandbox/faults", json={"error": 0.25, "latency": 0.01}) as answer:
            assert await answer.json() == asdict(Faults(error=0.25, latency=0.01))
        assert sandbox.faults == Faults(error=0.25, latency=0.01)
        for wrong, said in (
            ({"eror": 1}, "no such fault: eror"),
            ({"error": "much"}, "error takes"),
            ([], "object"),
        ):
            async with session.post("/_sandbox/faults", json=wrong) as answer:
                assert answer.status == 400
                assert said in (await answer.json())["error"]
        assert sandbox.faults == Faults(error=0.25, latency=0.01), "a wrong switch changes nothing"
        async with session.post("/_sandbox/faults", json={}) as answer:
            assert answer.status == 200
        await post(session)
        async with session.get("/_sandbox/state") as answer:
            state = await answer.json()
    (ada,) = state["records"]["contacts"].values()
    assert ada["email"] == "ada@example.com"
    (request,) = state["requests"]
    assert (request["method"], request["path"], request["status"], request["records"]) == (
        "POST",
        UPSERT,
        200,
        1,
    )
    assert state["counts"] == {"POST /crm/v3/objects/{type}/batch/upsert 200": 1}
    assert state["faults"] == asdict(Faults())


async def test_the_page_holds_what_there_is_and_no_markup_of_records() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        async with session.get("/") as answer:
            assert "It holds nothing yet" in await answer.text()
        body = people("ada")
        body["inputs"][0]["properties"]["lastname"] = "<script>alert(1)</script>"
        await post(session, body=body)
        await post(session, "/crm/v3/nowhere")
        sandbox.faults = Faults(error=0.5)
        async with session.get("/") as answer:
            page = await answer.text()
            assert answer.content_type == "text/html"
    assert "ada@example.com" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert "error = 0.5" in page
    assert "batch/upsert" in page
    assert "left of 100 in 10 s" in page


async def test_a_path_that_is_none_is_a_404_and_is_logged() -> None:
    sandbox = HubSpotSandbox()
    async with running(sandbox) as session:
        assert await post(session, "/crm/v3/nowhere") == 404
    assert sandbox.requests[-1].path == "/crm/v3/nowhere"
    assert sandbox.counts["POST (none) 404"] == 1


async def test_pages_of_other_sites_reach_nothing() -> None:
    async with serve(HubSpotSandbox()) as url, aiohttp.ClientSession() as session:
        async with session.get(url, headers={"Host": "rebound.example"}) as answer:
            assert answer.status == 421
        async with session.post(
            f"{url}/_sandbox/faults", json={"error": 1.0}, headers={"Origin": "https://evil.example"}
        ) as answer:
            assert answer.status == 403
        async with session.get(url) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-inline" not in policy
        async with session.post(
            f"{url}/_sandbox/faults", json={"error": 0.5}, headers={"Origin": url}
        ) as answer:
            assert answer.status == 200
