"""Access tokens that end: fetched once for all, before anything leaves and when they are refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from aiohttp import web

from backhaul.delivery.connect import Connection, connected
from backhaul.destinations.kit import (
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Spec,
    Token,
    classify_status,
)
from backhaul.errors import BackhaulError, Expired, Halt, NotApplied
from backhaul.state.buckets import OwnBuckets
from backhaul.surroundings import Surroundings
from backhaul.testing.serving import serving
from backhaul.types import ObjectSchema, Outcomes, Rate

_SECRET = "s"


class Config(DestinationConfig):
    base_url: str
    secret: str = _SECRET


class Tokened(Destination[Config]):
    """Its token lives as long as the server says."""

    spec: ClassVar[Spec] = Spec(
        name="tokened", config=Config, docs="", batch={}, limits=(Rate("w", 100, 60),)
    )

    def __init__(self, config: Config, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url

    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def authorise(self) -> Token | None:
        said = await self.http.login("/token", {"client_secret": self.config.secret})
        return Token(said["access_token"], said.get("expires_in"))

    def classify(self, answer: Answer) -> BackhaulError | None:
        return Expired("the token is over") if answer.status == 401 else classify_status(answer)

    async def describe(self, object: str) -> ObjectSchema:
        raise NotImplementedError

    async def write(self, batch: Batch) -> Outcomes:
        raise NotImplementedError


class Server:
    """Takes the newest token it gave only; `uses` is how many requests one token is good for."""

    def __init__(self) -> None:
        self.given = self.asked = 0
        self.seen: list[str] = []
        self.uses, self.left = 10**6, 0
        self.life: float | None = None
        self.trouble: list[int] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/token", self.token)
        app.router.add_post("/thing", self.thing)
        return app

    async def token(self, request: web.Request) -> web.Response:
        if self.trouble:
            return web.json_response({"error_description": "not now"}, status=self.trouble.pop(0))
        if (await request.post())["client_secret"] != _SECRET:
            return web.json_response(
                {"error": "invalid_client", "error_description": "wrong secret"}, status=400
            )
        await asyncio.sleep(0.02)
        self.given, self.left = self.given + 1, self.uses
        said: dict[str, Any] = {"access_token": f"t{self.given}", "token_type": "bearer"}
        return web.json_response(said if self.life is None else {**said, "expires_in": self.life})

    async def thing(self, request: web.Request) -> web.Response:
        self.asked += 1
        self.left -= 1
        sent = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append(sent)
        return web.json_response({}, status=401 if self.left < 0 or sent != f"t{self.given}" else 200)


@asynccontextmanager
async def opened(
    server: Server, *, secret: str = _SECRET, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Connection]:
    with serving(server.app()) as url:
        async with connected(
            "d",
            Tokened,
            Config(base_url=url, secret=secret),
            OwnBuckets(clock),
            surroundings=Surroundings(clock),
        ) as connection:
            yield connection


async def ask(connection: Connection, times: int) -> Sequence[Answer]:
    return await asyncio.gather(*(connection.door.request("POST", "/thing", json={}) for _ in range(times)))


async def test_one_token_is_fetched_for_all_requests_at_once() -> None:
    server = Server()
    async with opened(server) as connection:
        await ask(connection, 20)
        assert (server.given, set(server.seen)) == (1, {"t1"})
        assert connection.door.requests == 21  # the login draws on the budget like everything else


async def test_a_token_that_is_refused_is_renewed_once_and_nothing_is_lost() -> None:
    server = Server()
    async with opened(server) as connection:
        await ask(connection, 1)
        server.left = 0
        answers = await ask(connection, 20)
        assert {answer.status for answer in answers} == {200}
        assert server.given == 2


async def test_a_token_is_renewed_before_its_end() -> None:
    server = Server()
    server.life, moment = 3600.0, [0.0]
    async with opened(server, clock=lambda: moment[0]) as connection:
        await ask(connection, 2)
        moment[0] = 3600.0 - 60.0
        await ask(connection, 2)
        assert server.seen == ["t1", "t1", "t2", "t2"]


async def test_a_new_token_that_is_refused_too_ends_the_run() -> None:
    server = Server()
    server.uses = 0
    async with opened(server) as connection:
        with pytest.raises(Halt, match="new access token"):
            await ask(connection, 1)
        assert server.given == 2


async def test_wrong_credentials_say_so() -> None:
    async with opened(Server(), secret="wrong") as connection:
        with pytest.raises(Halt, match=r"no access token.*wrong secret") as halted:
            await ask(connection, 1)
        assert "credentials" in str(halted.value.hint)


async def test_a_login_that_is_in_trouble_has_sent_nothing() -> None:
    server = Server()
    async with opened(server) as connection:
        server.trouble = [500]
        with pytest.raises(NotApplied):
            await ask(connection, 1)
        assert server.seen == []
        await ask(connection, 1)
        assert server.seen == ["t1"]
