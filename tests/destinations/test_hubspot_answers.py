"""What the HubSpot connector makes of answers written by hand."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp import web
from hubspot_calls import answering, batch, by_key, person

from backhaul.errors import Refused, Unsettled
from backhaul.types import Delivered, Op, Rejected, Retry


async def written(
    body: Any, *rows: dict[str, Any], op: Op = Op.UPSERT, status: int = 200, **options: Any
) -> dict[str, Any]:
    async with answering(lambda _: web.Response(body=orjson.dumps(body), status=status)) as crm:
        return by_key(await crm.write(batch(op, *rows, **options)))


def failed(message: str = "no", category: str = "VALIDATION_ERROR", **context: list[str]) -> dict[str, Any]:
    return {
        "status": "error",
        "category": category,
        "message": message,
        "context": context,
        "errors": [],
        "links": {},
    }


async def test_results_without_traces_are_found_by_their_identifier() -> None:
    results = [
        {"id": "2", "properties": {"email": "b@example.com", "city": "a@example.com"}},
        {"id": "1", "properties": {"email": "a@example.com"}},
    ]
    outcomes = await written({"results": results}, person("a"), person("b"), person("c"))
    assert {name: item.remote_id for name, item in outcomes.items()} == {"a": "1", "b": "2"}


async def test_a_record_id_is_never_taken_for_an_identifier() -> None:
    results = [{"id": "7", "properties": {"crm_id": "8"}}]
    outcomes = await written({"results": results}, {"crm_id": "7"}, {"crm_id": "8"}, by="crm_id")
    assert outcomes == {"8": Delivered("8", "7")}


async def test_a_trace_that_is_none_of_ours_names_nobody() -> None:
    results = [
        {"id": "1", "objectWriteTraceId": trace, "properties": {"email": "a@example.com"}}
        for trace in ("9", "x", "-1")
    ]
    assert await written({"results": results}, person("a"), person("b")) == {}


async def test_a_record_in_both_lists_is_not_delivered() -> None:
    body = {
        "results": [{"id": "1", "objectWriteTraceId": "0", "properties": {}}],
        "errors": [failed(objectWriteTraceId=["0"])],
    }
    assert type((await written(body, person("a")))["a"]) is Rejected


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"results": [], "errors": []},
        {"results": None},
        {"results": "x", "errors": {}},
        {"results": ["x"]},
    ],
)
async def test_an_answer_that_says_nothing_delivers_nothing(body: Any) -> None:
    assert await written(body, person("a"), person("b"), status=207) == {}


@pytest.mark.parametrize("body", [[], "x", None, 1])
async def test_an_answer_that_is_no_object_settles_nothing(body: Any) -> None:
    with pytest.raises(Unsettled):
        await written(body, person("a"))


async def test_a_200_that_is_an_error_is_a_refusal() -> None:
    with pytest.raises(Refused, match="boo") as caught:
        await written({"status": "error", "message": "boo", "category": "VALIDATION_ERROR"}, person("a"))
    assert caught.value.code == "VALIDATION_ERROR"


async def test_an_error_that_names_nobody_is_of_the_one_that_is_left() -> None:
    body = {"results": [{"id": "1", "objectWriteTraceId": "0", "properties": {}}], "errors": [failed("bad")]}
    assert (await written(body, person("a"), person("b")))["b"] == Rejected(
        "b@Example.com", "VALIDATION_ERROR", "bad"
    )
    assert set(await written(body, person("a"), person("b"), person("c"))) == {"a"}, (
        "two are left, one was refused"
    )


async def test_errors_are_found_by_the_ids_they_name() -> None:
    outcomes = await written(
        {"results": [], "errors": [failed(ids=["B@example.com"])]}, person("a"), person("b")
    )
    assert set(outcomes) == {"b"}


async def test_an_error_of_the_moment_rejects_nobody() -> None:
    body = {
        "results": [],
        "errors": [
            failed("busy", "RATE_LIMITS", objectWriteTraceId=["0"]),
            failed("oops", "INTERNAL_ERROR", objectWriteTraceId=["1"]),
        ],
    }
    assert await written(body, person("a"), person("b")) == {"a": Retry("a@Example.com", "busy")}


async def test_an_archive_with_errors_is_read() -> None:
    body = {"errors": [failed("locked", ids=["2"])]}
    outcomes = await written(body, person("a"), person("b"), op=Op.DELETE, status=207, remote_ids=["1", "2"])
    assert outcomes == {"b": Rejected("b@Example.com", "VALIDATION_ERROR", "locked")}


async def test_a_contact_is_found_by_its_other_emails() -> None:
    found = {
        "id": "5",
        "properties": {
            "email": "main@example.com",
            "hs_additional_emails": "old@example.com;a@example.com",
            "city": "Oslo",
        },
    }
    async with answering(lambda _: web.json_response({"results": [found]})) as crm:
        held = await crm.read("contacts", ("email",), ["a@Example.com"], ["city"])
    assert held["a@Example.com"]["city"] == "Oslo"


async def test_a_read_that_failed_in_part_says_so() -> None:
    async with answering(
        lambda _: web.json_response(
            {"results": [], "errors": [failed("busy", "RATE_LIMITS", ids=["a@example.com"])]}
        )
    ) as crm:
        with pytest.raises(Unsettled, match="busy"):
            await crm.read("contacts", ("email",), ["a@example.com"], ["city"])


async def test_a_part_of_what_is_left_today_stays_for_other_tools() -> None:
    from backhaul.destinations.kit import Answer

    named = "x-hubspot-ratelimit-daily"
    async with answering(lambda _: web.Response()) as crm:
        (left,) = crm.left(Answer(200, {named: "1000", f"{named}-remaining": "300"})).values()
        assert left.requests == 100
        (left,) = crm.left(Answer(200, {f"{named}-remaining": "300"})).values()
        assert left.requests == 300
        assert crm.left(Answer(200, {named: "1000"})) == {}
