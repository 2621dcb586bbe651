"""Endpoints that have limits of their own, beside or besides the connection's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from aiohttp import web
from pydantic import ValidationError
from tests.waiting import HANGS

from backhaul.delivery.connect import connected
from backhaul.destinations.braze import BrazeConfig
from backhaul.destinations.kit import Batch, Destination, DestinationConfig, Http, Spec
from backhaul.errors import Exhausted, Throttled
from backhaul.planning.estimate import estimate
from backhaul.state.buckets import OwnBuckets
from backhaul.testing.serving import serving
from backhaul.types import BatchLimits, ObjectSchema, Op, Outcomes, PlannedBatch, Rate

_DAY = 86_400.0


class ApiConfig(DestinationConfig):
    base_url: str
    known_endpoints = ("search", "lists")


class Api(Destination[ApiConfig]):
    spec = Spec(
        name="api", config=ApiConfig, docs="", batch={Op.UPSERT: BatchLimits(100)},
        limits=(Rate("day", 10, _DAY), Rate("search", 5, _DAY, "search"), Rate("lists", 20, _DAY, "lists")),
    )  # fmt: skip

    def __init__(self, config: ApiConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def endpoints(self, method: str, path: str) -> tuple[str, ...]:
        """Searches count as such alone, lists count twice."""
        return {"/search": ("search",), "/lists": ("lists", "")}.get(path, ("",))

    async def describe(self, object: str) -> ObjectSchema:
        return ObjectSchema(object)

    async def write(self, batch: Batch) -> Outcomes:
        return Outcomes(everything=True)


async def _served(answer: Iterable[int], *paths: str, **config: object) -> dict[str, int]:
    """How many requests each path was sent before its limit was used up; share is all of it."""
    statuses, seen = iter(answer), dict.fromkeys(paths, 0)

    async def reply(request: web.Request) -> web.Response:
        return web.Response(status=next(statuses, 200), headers={"Retry-After": "7200"}, text="{}")

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", reply)
    with serving(app) as url:
        given = ApiConfig(base_url=url, share="100%", **config)  # type: ignore[arg-type]
        async with connected("api", Api, given, OwnBuckets(time.monotonic)) as connection:
            for path in paths:
                for _ in range(30):
                    try:
                        await asyncio.wait_for(connection.door.request("GET", path), HANGS)
                    except Exhausted:
                        break
                    except Throttled as error:
                        for part in connection.budget.of(error.endpoints):
                            part.hold(error.after or 1.0)
                    seen[path] += 1
    return seen


async def test_an_endpoint_has_a_window_of_its_own() -> None:
    assert await _served((), "/search", "/other") == {"/search": 5, "/other": 10}


async def test_what_counts_twice_is_held_up_by_either() -> None:
    assert await _served((), "/lists", "/other") == {"/lists": 10, "/other": 0}
    assert await _served((), "/lists", "/other", rate_limits=["30/1d"]) == {"/lists": 20, "/other": 10}


async def test_silence_that_an_endpoint_asks_for_is_no_one_elses() -> None:
    assert await _served((429,), "/search", "/other") == {"/search": 1, "/other": 10}
    assert await _served((429,), "/lists", "/other", "/search") == {"/lists": 1, "/other": 0, "/search": 5}


async def test_its_limit_can_be_set() -> None:
    assert (await _served((), "/search", endpoint_limits={"search": ["2/1d"]}))["/search"] == 2


def test_an_endpoint_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValidationError, match=r"'exports' has no limit of its own: there is export, delete"):
        BrazeConfig(api_key="k", base_url="https://b", endpoint_limits={"exports": ["1/1s"]})  # type: ignore[arg-type]


def test_an_estimate_goes_by_the_endpoint_that_writes_count_against(tmp_path: Path) -> None:
    rates = (Rate("minute", 1, 60.0), Rate("lists", 50, 60.0, "lists"))
    for endpoint, seconds in (("", 5_940.0), ("lists", 60.0)):
        limits = BatchLimits(1, endpoint=endpoint)
        found = estimate(
            [PlannedBatch(Op.UPSERT, 100, 100)], lambda op, rows, limits=limits: limits, rates, 100
        )  # type: ignore[misc]
        assert (found.requests, found.seconds) == (100, seconds)


@pytest.mark.parametrize("name", sorted(point.name for point in entry_points(group="backhaul.destinations")))
def test_what_can_be_set_is_what_is_limited(name: str) -> None:
    (point,) = entry_points(group="backhaul.destinations", name=name)
    spec = point.load().spec
    assert {rate.endpoint for rate in spec.limits} - {""} == set(spec.config.known_endpoints)
