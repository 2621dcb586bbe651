"""The simulated Customer.io is as strict as its document of the Track API and its page of invalid requests say."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.customerio import CustomerIoSandbox
from backhaul.testing.serving import serving

Ask = Callable[..., Awaitable[tuple[int, dict[str, Any]]]]
HEADERS = {"Authorization": f"Basic {b64encode(b'site:key').decode()}"}


@pytest.fixture
def sandbox() -> CustomerIoSandbox:
    return CustomerIoSandbox(track=1_000, app=1_000)


@pytest.fixture
async def ask(sandbox: CustomerIoSandbox) -> AsyncIterator[Ask]:
    with serving(sandbox.app()) as url:
        async with aiohttp.ClientSession(url, headers=HEADERS) as session:

            async def send(*operations: Any) -> tuple[int, dict[str, Any]]:
                async with session.post("/api/v2/batch", json={"batch": list(operations)}) as answer:
                    return answer.status, await answer.json()

            yield send


def identify(who: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"type": "person", "identifiers": who, "action": "identify", "attributes": attributes}


@pytest.mark.parametrize(
    "operation",
    [
        {"type": "device", "identifiers": {"id": "1"}, "action": "identify"},
        {"type": "person", "identifiers": {"id": "1"}, "action": "merge"},
        identify({}),
        identify({"id": "1", "email": "a@b.ch"}),
        identify({"email": "nobody"}),
        identify({"id": "1"}, plan="x" * 1_001),
        identify({"id": "1"}, **{"x" * 151: "y"}),
        identify({"id": "1"}, **{f"a{number}": 1 for number in range(301)}),
        identify({"id": "1"}, parts=["x" * 1_000] * 33),
        {"type": "person", "identifiers": {"id": "1"}, "action": "event"},
        {"type": "object", "identifiers": {"object_type_id": "9", "object_id": "1"}, "action": "identify"},
        {"type": "object", "identifiers": {"object_type_id": "1"}, "action": "identify"},
        {"type": "object", "identifiers": {"object_type_id": "1", "object_id": "1"}, "action": "add_relationships"},
    ],
)  # fmt: skip
async def test_operations_that_are_refused_are_named_by_their_place(
    ask: Ask, sandbox: CustomerIoSandbox, operation: dict[str, Any]
) -> None:
    status, answer = await ask(identify({"id": "good"}), operation)
    assert (status, [error["batch_index"] for error in answer["errors"]]) == (207, [1])
    assert [person.attributes["id"] for person in sandbox.people.values()] == ["good"]
    assert not sandbox.objects


async def test_a_batch_that_is_too_large_or_empty_is_refused(ask: Ask) -> None:
    assert (await ask())[0] == 400
    assert (await ask(*[identify({"id": str(number)}, plan="x" * 990) for number in range(500)]))[0] == 413


async def test_failures_that_only_the_activity_log_tells_of(ask: Ask, sandbox: CustomerIoSandbox) -> None:
    """All of these are answered with success."""
    await ask(identify({"id": "1"}, email="a@b.ch"), identify({"id": "2"}, email="b@b.ch"))
    for operation in (
        identify({"id": "1"}, email="B@b.ch", plan="pro"),
        identify({"email": "a@b.ch"}, id="2", plan="pro"),
        identify({"email": "a@b.ch"}, id="3", plan="pro"),
        identify({"cio_id": "nobody"}, plan="pro"),
        identify({"id": "4"}, _update=True, plan="pro"),
    ):
        assert await ask(operation) == (200, {})
    held = [(one.attributes["id"], one.attributes["email"]) for one in sandbox.people.values()]
    assert held == [("1", "a@b.ch"), ("2", "b@b.ch")]
    assert not any("plan" in one.attributes for one in sandbox.people.values())


async def test_an_id_is_changed_by_cio_id_and_the_old_one_is_free(
    ask: Ask, sandbox: CustomerIoSandbox
) -> None:
    await ask(identify({"id": "1"}))
    (own,) = sandbox.people
    await ask(identify({"cio_id": own}, id="2"))
    await ask(identify({"id": "1"}))
    assert [one.attributes["id"] for one in sandbox.people.values()] == ["2", "1"]


async def test_null_and_an_empty_text_remove_an_attribute(ask: Ask, sandbox: CustomerIoSandbox) -> None:
    await ask(identify({"id": "1"}, plan="pro", seats=3))
    await ask(identify({"id": "1"}, plan=None, seats=""))
    assert [one.attributes for one in sandbox.people.values()] == [{"id": "1"}]
