"""Recorded answers of the real Braze: what the connector makes of each."""

from __future__ import annotations

import pytest
from vendor_recordings import Recording, answering, meaning, recorded_answer, recordings

from backhaul.destinations.braze import Braze, BrazeConfig
from backhaul.destinations.kit import Answer, Http
from backhaul.errors import BackhaulError, Halt, Refused
from backhaul.testing.batches import RecordBatch
from backhaul.types import Field, Op

EVERY = recordings("braze")
pytestmark = pytest.mark.skipif(not EVERY, reason="no recorded answers of Braze are there")


def make(url: str, http: Http) -> Braze:
    return Braze(BrazeConfig(api_key="k", base_url=url, check_existing=False), http)


def path(recording: Recording) -> str:
    url = recording["expected_request"]["url"].replace("<BRAZE_REST_URL>", "")
    return str(url.partition(".com")[2] or url).partition("?")[0]


def sent(recording: Recording) -> RecordBatch:
    """The users of the recorded request, written or deleted by external_id."""
    body = recording["expected_request"]["body"]
    if path(recording) == "/users/delete":
        rows = [{"external_id": str(key)} for key in body["external_ids"]]
        return RecordBatch(Op.DELETE, "users", ("external_id",), (Field("external_id"),), rows)
    rows = [{**item, "external_id": str(item["external_id"])} for item in body["attributes"]]
    names = dict.fromkeys(["external_id", *(name for row in rows for name in row)])
    fields = tuple(Field(name, skip_null=name != "external_id") for name in names)
    return RecordBatch(Op.UPSERT, "users", ("external_id",), fields, rows)


WRITES = [item for item in EVERY if path(item) in ("/users/track", "/users/delete")]
READS = [item for item in EVERY if path(item) == "/users/export/ids"]
OTHERS = [item for item in EVERY if item not in WRITES and item not in READS]


def test_all_are_replayed() -> None:
    assert (len(WRITES), len(READS)) == (6, 3)
    assert {item["response"]["status"] for item in WRITES} == {201, 401}


@pytest.mark.parametrize("recording", WRITES, ids=lambda item: item["id"])
async def test_a_recorded_answer_is_understood(recording: Recording) -> None:
    async with answering(lambda _: recorded_answer(recording), make) as braze:
        assert await meaning(braze, sent(recording)) in recording["acceptable"]


@pytest.mark.parametrize("recording", READS, ids=lambda item: item["id"])
async def test_recorded_users_are_read_and_the_others_are_not_there(recording: Recording) -> None:
    body = recording["response"]["body"]
    keys = recording["expected_request"]["body"]["external_ids"]
    async with answering(lambda _: recorded_answer(recording), make) as braze:
        found = await braze.read("users", ("external_id",), keys, ["first_name", "groups"])
    held = {user["external_id"]: user for user in body["users"]}
    assert found == {
        key: {"first_name": user["first_name"], "groups": user["custom_attributes"]["groups"]}
        for key, user in held.items()
    }
    assert set(keys) - set(found) == set(body.get("invalid_user_ids", ()))


@pytest.mark.parametrize("recording", OTHERS, ids=lambda item: f"{item['id']}-{item['response']['status']}")
def test_answers_of_endpoints_that_are_not_called_are_classified_alike(recording: Recording) -> None:
    """Messages, aliases, renames, lists of addresses and the making of catalogs are not this connector's; their status
    and headers mean the same everywhere in Braze."""
    answer = recorded_answer(recording)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    assert isinstance(answer.body, bytes)
    braze = make("https://rest.example", None)  # type: ignore[arg-type] - classify needs no door
    error = braze.classify(Answer(answer.status, headers, answer.body))
    kinds: dict[str, type[BackhaulError] | None] = {"success": None, "auth": Halt, "permanent": Refused}
    assert type(error) in [kinds[meant] or type(None) for meant in recording["acceptable"]]
