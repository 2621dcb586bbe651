"""The simulated Iterable is as strict as Iterable's clients and Swagger documents say."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.iterable import IterableSandbox
from backhaul.testing.serving import serving

Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]


@pytest.fixture
def sandbox() -> IterableSandbox:
    return IterableSandbox(bulk=1_000, deletes=1_000, lists=1_000)


@pytest.fixture
async def ask(sandbox: IterableSandbox) -> AsyncIterator[Ask]:
    with serving(sandbox.app()) as url:
        async with aiohttp.ClientSession(url, headers={"Api-Key": "k"}) as session:

            async def send(method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
                async with session.request(method, path, json=body) as answer:
                    return answer.status, await answer.json()

            yield send


def users(*each: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"users": list(each), **more}


@pytest.mark.parametrize(
    ("path", "body", "refused"),
    [
        ("users/bulkUpdate", users(*[{"email": "a@b.ch"}] * 1_001), (413, "BatchTooLarge")),
        ("users/bulkUpdate", users(), (400, "BadParams")),
        ("users/bulkUpdate", users({"email": "a@b.ch", "dataFields": {"seats": "3"}}), (400, "RequestFieldsTypesMismatched")),
        ("users/bulkUpdate", users({"email": "a@b.ch", "dataFields": {"signupDate": "2026-01-01 10:00:00.5"}}), (400, "RequestFieldsTypesMismatched")),
        ("lists/subscribe", {"listId": 102, "subscribers": [{"email": "a@b.ch"}]}, (400, "BadParams")),
        ("catalogs/Plans/items", {"documents": {"a b": {}}}, (400, "BadParams")),
        ("catalogs/Plans/items", {"documents": {"a": {"x.y": 1}}}, (400, "BadParams")),
        ("catalogs/None/items", {"documents": {"a": {}}}, (404, "NotFound")),
    ],
)  # fmt: skip
async def test_requests_that_are_refused(
    ask: Ask, sandbox: IterableSandbox, path: str, body: Any, refused: tuple[int, str]
) -> None:
    status, answer = await ask("POST", f"/api/{path}", body)
    assert (status, answer["code"]) == refused
    assert not sandbox.project.users


async def test_people_who_fail_are_named_and_the_others_are_taken(ask: Ask, sandbox: IterableSandbox) -> None:
    sandbox.project.forgotten.add("gone@b.ch")
    sent = [
        {"email": "no address"},
        {"email": "gone@b.ch"},
        {"userId": "x" * 53},
        {"userId": "1"},
        {"email": "a@b.ch"},
    ]
    _, answer = await ask("POST", "/api/users/bulkUpdate", users(*sent))
    failed = {reason: names for reason, names in answer["failedUpdates"].items() if names}
    assert (answer["successCount"], answer["failCount"], failed) == (1, 4, {
        "invalidEmails": ["no address"], "forgottenEmails": ["gone@b.ch"], "invalidUserIds": ["x" * 53],
        "notFoundUserIds": ["1"],
    })  # fmt: skip


async def test_fields_that_the_project_does_not_have(ask: Ask, sandbox: IterableSandbox) -> None:
    sent = {"email": "a@b.ch", "dataFields": {"shoe": 43, "home_geo_location": {"lat": 1.0, "lon": 2.0}}}
    _, answer = await ask("POST", "/api/users/bulkUpdate", users(sent))
    assert answer["filteredOutFields"] == ["shoe"]
    sandbox.most_fields = len(sandbox.project.fields)
    status, answer = await ask("POST", "/api/users/bulkUpdate", users(sent, createNewFields=True))
    assert (status, answer["code"]) == (400, "UniqueFieldsLimitExceeded")
    sandbox.most_fields += 1
    await ask("POST", "/api/users/bulkUpdate", users(sent, createNewFields=True))
    assert sandbox.project.fields["shoe"] == "long"


async def test_an_event_with_a_known_id_is_changed_and_a_long_id_fails(
    ask: Ask, sandbox: IterableSandbox
) -> None:
    for plan in ("pro", "free"):
        event = {
            "email": "a@b.ch",
            "eventName": "x",
            "id": "1",
            "createdAt": 1_700_000_000,
            "dataFields": {"plan": plan},
        }
        await ask("POST", "/api/events/trackBulk", {"events": [event]})
    assert [one["dataFields"]["plan"] for one in sandbox.project.events.values()] == ["free"]
    _, answer = await ask("POST", "/api/events/trackBulk", {"events": [{**event, "id": "x" * 513}]})
    assert answer["failCount"] == 1


async def test_an_address_is_changed_in_projects_by_address_alone(ask: Ask, sandbox: IterableSandbox) -> None:
    await ask("POST", "/api/users/bulkUpdate", users({"email": "a@b.ch"}, {"email": "b@b.ch"}))
    taken = {"currentEmail": "a@b.ch", "newEmail": "b@b.ch"}
    assert (await ask("POST", "/api/users/updateEmail", taken))[1]["code"] == "EmailAlreadyExists"
    sandbox.project.by_email = False
    changed = {"currentEmail": "a@b.ch", "newEmail": "c@b.ch"}
    assert (await ask("POST", "/api/users/updateEmail", changed))[1]["code"] == "BadParams"


async def test_a_delete_by_user_id_takes_all_who_share_it(ask: Ask, sandbox: IterableSandbox) -> None:
    both = [{"email": f"{name}@b.ch", "userId": "1"} for name in "ab"]
    await ask("POST", "/api/users/bulkUpdate", users(*both))
    sandbox.project.by_email = False
    assert (await ask("DELETE", "/api/users/byUserId/1"))[0] == 200
    assert not sandbox.project.users


async def test_who_is_not_there_is_not_taken_out_of_a_list(ask: Ask, sandbox: IterableSandbox) -> None:
    people = {"listId": 101, "subscribers": [{"email": "a@b.ch"}]}
    assert (await ask("POST", "/api/lists/subscribe", people))[1]["successCount"] == 1
    people["subscribers"] = [{"email": "a@b.ch"}, {"email": "b@b.ch"}]
    _, answer = await ask("POST", "/api/lists/unsubscribe", people)
    assert (answer["successCount"], answer["failedUpdates"]["notFoundEmails"]) == (1, ["b@b.ch"])
    assert sandbox.project.lists[101][2] == set()
