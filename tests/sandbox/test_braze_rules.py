"""What the simulated Braze takes, cuts, drops and refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from backhaul.sandbox.braze import BrazeSandbox
from backhaul.sandbox.kit import serve

Said = tuple[int, Any, Any]


class Client:
    """Plain requests with a key."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def ask(self, path: str, body: Any = None, key: str = "k") -> Said:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        method = "GET" if body is None else "POST"
        async with self.session.request(method, self.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers

    async def track(self, *items: Any, array: str = "attributes") -> Said:
        return await self.ask("/users/track", {array: list(items)})


@pytest.fixture
def sandbox() -> BrazeSandbox:
    return BrazeSandbox()


@pytest.fixture
async def client(sandbox: BrazeSandbox) -> AsyncIterator[Client]:
    async with serve(sandbox) as url, aiohttp.ClientSession() as session:
        yield Client(session, url)


def user(key: str = "a", **values: Any) -> dict[str, Any]:
    return {"external_id": key, **values}


async def test_the_cap_is_over_all_three_arrays(client: Client) -> None:
    body = {
        "attributes": [user(str(n)) for n in range(50)],
        "events": [user(name="x", time="2027-01-02")] * 26,
    }
    status, said, _ = await client.ask("/users/track", body)
    assert (status, "75" in said["message"]) == (400, True)


async def test_a_bad_object_does_not_hold_up_the_others(sandbox: BrazeSandbox, client: Client) -> None:
    status, said, _ = await client.track(user("a"), {"first_name": "nobody"}, user("b", gender="x"))
    assert status == 201
    assert said["attributes_processed"] == 1
    assert [(error["input_array"], error["index"]) for error in said["errors"]] == [
        ("attributes", 1),
        ("attributes", 2),
    ]
    assert set(sandbox.store.external) == {"a"}
    status, said, _ = await client.track({"first_name": "nobody"})
    assert (status, len(said["errors"])) == (400, 1)


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        ({"health_score": 1}, {"health_score": "high"}, 1),
        ({"groups": ["a"]}, {"groups": [f"g{n}" for n in range(40)]}, [f"g{n}" for n in range(25)]),
        ({"groups": ["a", "a", "b"]}, {}, ["a", "b"]),
        ({"address": {"city": "x"}}, {"address": {"city": "y", "zip": None}}, {"city": "x"}),
        ({"address": {"city": "x"}}, {"address": {"city": "y" * 110_000}}, {"city": "x"}),
        ({"address": {"city": "x"}}, {"address": {"since": {"$time": "soon"}}}, {"city": "x"}),
        ({"address": {"city": "x"}}, {"address": {"city": "y", "z" * 256: 1}}, {"city": "x"}),
        ({"address": {"city": "x"}}, {"address": {"zip": 1}, "_merge_objects": True}, {"city": "x", "zip": 1}),
        ({"plan_tier": "x" * 300}, {}, "x" * 255),
        ({"logins": 1}, {"logins": {"inc": 2}}, 3),
        ({"plan_tier": "x"}, {"plan_tier": None}, None),
    ],
)  # fmt: skip
async def test_what_does_not_fit_is_cut_or_dropped_with_success(
    sandbox: BrazeSandbox, client: Client, first: Any, second: Any, held: Any
) -> None:
    for values in (first, second):
        status, said, _ = await client.track(user(**values))
        assert (status, said) == (201, {"message": "success", "attributes_processed": 1})
    (name,) = first
    assert sandbox.store.external["a"].custom.get(name) == held


async def test_an_alias_alone_makes_no_user_unless_asked_to(sandbox: BrazeSandbox, client: Client) -> None:
    alias = {"user_alias": {"alias_name": "7", "alias_label": "crm"}, "first_name": "Ada"}
    assert (await client.track(alias))[0] == 201
    assert not sandbox.store.users
    assert (await client.track({**alias, "_update_existing_only": False}))[0] == 201
    assert len(sandbox.store.users) == 1
    assert (await client.track(user("new", _update_existing_only=True)))[0] == 201
    assert len(sandbox.store.users) == 1


async def test_an_export_has_as_little_as_possible(client: Client) -> None:
    await client.track(user(first_name="", trial=False, health_score=0, plan_tier="x"))
    asked = {
        "external_ids": ["a", "b"],
        "fields_to_export": ["external_id", "first_name", "custom_attributes"],
    }
    status, said, _ = await client.ask("/users/export/ids", asked)
    assert (status, said["invalid_user_ids"]) == (201, ["b"])
    assert said["users"] == [{"external_id": "a", "custom_attributes": {"health_score": 0, "plan_tier": "x"}}]
    assert (await client.ask("/users/export/ids", {"external_ids": ["a"]}))[0] == 400
    many = {**asked, "external_ids": [str(n) for n in range(51)]}
    assert (await client.ask("/users/export/ids", many))[0] == 400


async def test_deletions_take_one_kind_of_identifier_and_count_who_is_not_there(client: Client) -> None:
    await client.track(user())
    assert (await client.ask("/users/delete", {"external_ids": ["a", "b"]}))[1] == {
        "deleted": 2,
        "message": "success",
    }
    assert (await client.ask("/users/delete", {"external_ids": ["a"], "braze_ids": ["b"]}))[0] == 400
    assert (await client.ask("/users/delete", {"external_ids": [str(n) for n in range(51)]}))[0] == 400


async def test_keys_and_their_permissions(sandbox: BrazeSandbox, client: Client) -> None:
    sandbox.key, sandbox.permissions = "k", frozenset({"users.track"})
    status, _, headers = await client.ask("/users/track", {"attributes": [user()]}, key="")
    assert (status, headers["X-RateLimit-Limit"]) == (401, "")
    assert (await client.ask("/users/track", {"attributes": [user()]}, key="other"))[0] == 401
    assert (await client.track(user()))[0] == 201
    assert (await client.ask("/custom_attributes"))[0] == 401


async def test_each_endpoint_has_its_own_limit_and_there_is_no_retry_after(
    client: Client, sandbox: BrazeSandbox
) -> None:
    sandbox.limits["/users/track"].count = 1
    assert (await client.track(user()))[2]["X-RateLimit-Remaining"] == "0"
    while (said := await client.track(user()))[0] != 429:
        pass  # the window ended in between
    assert "Retry-After" not in said[2]
    assert int(said[2]["X-RateLimit-Reset"]) % 3 == 0
    assert (await client.ask("/custom_attributes"))[2]["X-RateLimit-Limit"] == "1000"


async def test_a_large_body_is_refused(client: Client, sandbox: BrazeSandbox) -> None:
    sandbox.most_bytes = 1_000
    assert (await client.track(user(plan_tier="x" * 1_000)))[0] == 413


async def test_maintenance_queues(client: Client, sandbox: BrazeSandbox) -> None:
    sandbox.maintenance = True
    assert (await client.track(user()))[:2] == (202, {"message": "queued"})


@pytest.mark.parametrize(
    ("array", "missing"),
    [
        ("events", {"name": ""}),
        ("events", {"time": "soon"}),
        ("purchases", {"product_id": None}),
        ("purchases", {"currency": "euro"}),
        ("purchases", {"price": "3.50"}),
        ("purchases", {"time": None}),
    ],
)  # fmt: skip
async def test_what_events_and_purchases_need(
    sandbox: BrazeSandbox, client: Client, array: str, missing: dict[str, Any]
) -> None:
    good = user(name="x", product_id="p", currency="EUR", price=3.5, time="2026-01-02T03:04:05Z")
    status, said, _ = await client.ask("/users/track", {array: [good, {**good, **missing}]})
    assert (status, said[f"{array}_processed"], said["errors"][0]["index"]) == (201, 1, 1)
    assert len(sandbox.store.external["a"].happened) == 1


async def test_a_renamed_user_keeps_the_previous_id_deprecated(sandbox: BrazeSandbox, client: Client) -> None:
    await client.track(user("a"), user("b"))

    async def rename(old: str, new: str) -> Any:
        asked = {"external_id_renames": [{"current_external_id": old, "new_external_id": new}]}
        return (await client.ask("/users/external_ids/rename", asked))[1]

    assert (await rename("a", "c"))["external_ids"] == ["c"]
    assert (await rename("a", "d"))["external_ids"] == []
    assert (await rename("b", "c"))["external_ids"] == []
    asked = {"external_ids": ["a", "c"], "fields_to_export": ["external_id"]}
    assert (await client.ask("/users/export/ids", asked))[1]["users"] == [{"external_id": "c"}] * 2
    assert len(sandbox.store.users) == 2
