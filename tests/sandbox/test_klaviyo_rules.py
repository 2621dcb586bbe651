"""The simulated Klaviyo is as strict as Klaviyo's document and pages say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.serving import serving

Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]
MEDIA = "application/vnd.api+json"
HEADERS = {"Authorization": "Klaviyo-API-Key k", "revision": "2026-07-15", "Content-Type": MEDIA}
JOBS = "/api/profile-bulk-import-jobs"


@pytest.fixture
def sandbox() -> KlaviyoSandbox:
    made = KlaviyoSandbox()
    made.job_seconds = 0.0
    return made


@pytest.fixture
async def ask(sandbox: KlaviyoSandbox) -> AsyncIterator[Ask]:
    with serving(sandbox.app()) as url:
        async with aiohttp.ClientSession(url) as session:

            async def send(
                method: str, path: str, body: Any = None, **headers: str
            ) -> tuple[int, dict[str, Any]]:
                given = {name: value for name, value in (HEADERS | headers).items() if value}
                async with session.request(method, path, json=body, headers=given) as answer:
                    return answer.status, await answer.json(content_type=None) if answer.status != 204 else {}

            yield send


def profile(**attributes: Any) -> dict[str, Any]:
    return {"type": "profile", "attributes": attributes}


def job(*profiles: dict[str, Any], kind: str = "profile-bulk-import-job") -> dict[str, Any]:
    return {"data": {"type": kind, "attributes": {"profiles": {"data": list(profiles)}}}}


def code(answer: dict[str, Any]) -> str:
    return str(answer["errors"][0]["code"])


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "refused"),
    [
        ("GET", "/api/profiles", None, {"Authorization": ""}, (401, "not_authenticated")),
        ("GET", "/api/profiles", None, {"revision": "latest"}, (400, "revision_required")),
        ("GET", "/api/profiles?page[size]=101", None, {}, (400, "invalid")),
        ("GET", '/api/profiles?filter=any(title,["x"])', None, {}, (400, "invalid")),
        ("POST", "/api/profile-import", {"data": profile(email="a@b.ch")}, {"Content-Type": "text/plain"}, (415, "unsupported_media_type")),
        ("POST", "/api/profile-import", {"data": {"attributes": {"email": "a@b.ch"}}}, {}, (400, "invalid")),
        ("POST", "/api/profile-import", {"data": profile(email="a@b.ch", title="x" * 100_000)}, {}, (413, "payload_too_large")),
        ("POST", "/api/profile-import", {"data": profile(title="x")}, {}, (400, "invalid")),
        ("POST", "/api/profile-import", {"data": profile(email="a@b.ch", plan="x")}, {}, (400, "invalid")),
        ("POST", "/api/profile-import", {"data": profile(phone_number="0791234567")}, {}, (400, "invalid")),
        ("POST", JOBS, job(profile(email="a@b.ch"), kind="profile"), {}, (400, "invalid")),
        ("POST", JOBS, job({"attributes": {"email": "a@b.ch"}}), {}, (400, "invalid")),
        ("POST", JOBS, job(), {}, (400, "invalid")),
        ("POST", JOBS, job(profile(email="a@b.ch", title="x" * 100_000)), {}, (400, "invalid")),
        ("GET", f"{JOBS}/unknown", None, {}, (404, "not_found")),
        ("POST", "/api/lists/none/relationships/profiles", {"data": []}, {}, (404, "not_found")),
        ("POST", "/api/lists/Y6nRLr/relationships/profiles", {"data": [{"type": "profile", "id": "x"}] * 1_001}, {}, (400, "invalid")),
        ("POST", "/api/lists/Y6nRLr/relationships/profiles", {"data": [{"type": "profile", "id": "x"}]}, {}, (404, "not_found")),
    ],
)  # fmt: skip
async def test_requests_that_are_refused(
    ask: Ask, sandbox: KlaviyoSandbox, method: str, path: str, body: Any, headers: dict[str, str], refused: Any
) -> None:  # fmt: skip
    status, answer = await ask(method, path, body, **headers)
    assert (status, code(answer)) == refused
    assert not sandbox.profiles


async def test_identifiers_of_two_profiles_are_a_conflict(ask: Ask) -> None:
    assert (await ask("POST", "/api/profile-import", {"data": profile(email="a@b.ch")}))[0] == 201
    assert (await ask("POST", "/api/profile-import", {"data": profile(external_id="1")}))[0] == 201
    status, answer = await ask(
        "POST", "/api/profile-import", {"data": profile(email="A@B.ch", external_id="1")}
    )
    assert (status, code(answer)) == (409, "duplicate_profile")


async def test_members_that_are_not_sent_stay_and_a_null_keeps_its_name(
    ask: Ask, sandbox: KlaviyoSandbox
) -> None:
    for properties in ({"plan": "pro", "seats": 3}, {"seats": None}):
        await ask("POST", "/api/profile-import", {"data": profile(email="a@b.ch", properties=properties)})
    assert [one["properties"] for one in sandbox.profiles.values()] == [{"plan": "pro", "seats": None}]


async def test_a_job_names_the_profiles_that_it_fails_and_is_forgotten(
    ask: Ask, sandbox: KlaviyoSandbox
) -> None:
    _, made = await ask("POST", JOBS, job(profile(email="a@b.ch"), profile(email="nobody")))
    own = made["data"]["id"]
    _, about = await ask("GET", f"{JOBS}/{own}")
    assert {name: about["data"]["attributes"][name] for name in ("status", "total_count", "failed_count")} == {
        "status": "complete", "total_count": 2, "failed_count": 1,
    }  # fmt: skip
    _, errors = await ask("GET", f"{JOBS}/{own}/import-errors")
    (error,) = errors["data"]
    assert error["attributes"]["source"]["pointer"].startswith("/data/attributes/profiles/data/1/")
    assert error["attributes"]["original_payload"] == {"email": "nobody"}
    sandbox.job_life = 0.0
    assert (await ask("GET", f"{JOBS}/{own}"))[0] == 404
    assert len(sandbox.profiles) == 1
