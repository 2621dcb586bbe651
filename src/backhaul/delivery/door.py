"""The HTTP door of one destination: budget, authorisation, what an answer means; no redirects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any
from urllib.parse import urlencode

import orjson

from backhaul.delivery.budget import Budget, Pass, Stale
from backhaul.delivery.departure import Act, before_leaving
from backhaul.delivery.refresh_tokens import RefreshTokens
from backhaul.delivery.transport import Internet, Transport
from backhaul.destinations.kit import Answer, Destination, classify_status
from backhaul.errors import BackhaulError, Expired, Halt, NotApplied, Refused, SendError, Throttled, Unsettled
from backhaul.redaction import redact, remember

_EARLY = 60.0
"""Seconds before its end at which a token is renewed; at most a tenth of its life."""
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


class Door:
    """Implements kit.Http. `owner` is set once the destination exists; they need each other."""

    owner: Destination[Any]

    def __init__(
        self,
        budget: Budget,
        timeout: float,
        transport: Transport | None = None,
        mask: Callable[[str], str] = redact,
    ) -> None:
        self.budget = budget
        self._mask = mask
        self.requests = 0
        self._transport = transport or Internet(timeout)
        self._fetching = asyncio.Lock()
        self._good_until = -inf

    async def close(self) -> None:
        await self._transport.close()

    async def request(
        self, method: str, path: str, *, body: bytes | None = None, json: Any = None,
        params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None, allow: Collection[int] = (),
    ) -> Answer:  # fmt: skip
        """One request and its answer, read whole; a second one where the access token had ended meanwhile.

        Raises:
            NotApplied: it never reached the destination, or the budget has no room (Exhausted).
            Unsettled: nobody knows whether it was applied.
            BackhaulError: what the destination's `classify` makes of the answer.
        """
        data = orjson.dumps(json) if json is not None else body
        try:
            token = await self._token()
            return await self._request(method, path, data, params, headers, allow)
        except Expired:
            self._refused(token)
        await self._token()
        try:
            return await self._request(method, path, data, params, headers, allow)
        except Expired as error:
            raise Halt(f"the destination refuses a new access token: {error}") from None

    async def _request(
        self, method: str, path: str, data: bytes | None, params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None, allow: Collection[int],
    ) -> Answer:  # fmt: skip
        sent = dict(self.owner.headers())
        sent.update(headers or {})
        if data is not None:
            sent.setdefault("Content-Type", "application/json")
        endpoints = self.owner.endpoints(method, path)
        parts = self.budget.of(endpoints)
        answer = await self._counted(parts, before_leaving, method, self._url(path), data, params, sent)
        if any(part.rates for part in parts) and (left := self.owner.left(answer)):
            for part in parts:
                part.report(left)
        error = self.owner.classify(answer) if answer.status not in allow else None
        if isinstance(error, Throttled):
            error.endpoints = endpoints
        if error is not None:
            raise self._masked(error)
        return answer

    def _masked(self, error: BackhaulError) -> BackhaulError:
        """Without secrets, which the destination may have echoed."""
        error.args = tuple(map(self._mask, map(str, error.args)))
        error.hint = self._mask(error.hint) if error.hint else None
        if isinstance(error, SendError):
            error.code = self._mask(error.code)
        return error

    async def sign_in(self) -> None:
        """See kit.Http."""
        await self._token()

    async def _token(self) -> str:
        """The access token, fetched by one for all where it is about to end.

        Raises:
            NotApplied: it could not be fetched; what it was for has not left.
        """
        if self.budget.clock() >= self._good_until:
            async with self._fetching:
                if self.budget.clock() >= self._good_until:
                    await self._fetch()
        return self.owner.token

    async def _fetch(self) -> None:
        try:
            found = await self.owner.authorise()
        except Unsettled as error:
            raise NotApplied(f"no access token: {error}", code=error.code) from None
        life = inf if found is None or found.life is None else found.life
        self._good_until = inf if life == inf else self.budget.clock() + life - min(_EARLY, life / 10)
        if found is not None:
            remember(found.value)
        self.owner.token = found.value if found is not None else ""

    def _refused(self, token: str) -> None:
        """Another request may have found out before, and have a new one by now."""
        if token == self.owner.token:
            self._good_until = -inf

    async def login(
        self, path: str, form: Mapping[str, str], *, method: str = "POST", headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:  # fmt: skip
        """See kit.Http."""
        if "assertion" in form:  # signed for this request, and good for minutes
            remember(form["assertion"])
        url = self._url(path)
        posted = method == "POST"
        answer = await self._counted(
            self.budget.of(("",)), _nothing, method, url, urlencode(form).encode() if posted else None, None if posted else form,
            {**_FORM, **(headers or {})},
        )  # fmt: skip
        error = classify_status(answer)
        if isinstance(error, Refused | Halt):
            raise Halt(
                f"no access token: {error}", hint="check the destination's credentials in backhaul.yml"
            )
        if error is not None:
            raise error
        said = answer.json()
        for name, value in said.items() if isinstance(said, dict) else ():
            if isinstance(value, str) and name.endswith("token"):
                remember(value)
        if not isinstance(said, dict) or not isinstance(said.get("access_token"), str):
            raise NotApplied("the answer to the login has no access_token")
        return said

    async def refresh(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """See kit.Http."""
        parts = (self.owner.spec.name, self._url(path), form.get("client_id", ""))
        tokens = RefreshTokens(
            self.budget.buckets, parts, form["refresh_token"], float(self.owner.config.timeout)
        )
        return await tokens.spend(lambda token: self.login(path, {**form, "refresh_token": token}))

    async def _counted(self, parts: Sequence[Budget], *request: Any) -> Answer:
        """One request that has its place in each budget that it counts against when it leaves."""
        while True:
            with suppress(Stale):
                return await self._once(parts, *request)

    async def _once(
        self, parts: Sequence[Budget], ready: Act, method: str, url: str, data: bytes | None, params: Mapping[str, str] | None,
        headers: Mapping[str, str],
    ) -> Answer:  # fmt: skip
        """`ready` has to be done when there is a permit, before the first byte. Raises: Stale: it did not leave."""
        stopped, left = self.budget.stop.is_set(), inf
        given: list[tuple[Budget, Pass | None]] = []

        def departed() -> None:
            nonlocal left
            for part, place in given:
                part.leaves(place, stopped=stopped or self.budget.spent)
            left = self.budget.clock()

        try:
            for part in parts:
                place = await part.acquire()
                given.append((part, place))
            await ready()
            answer = await self._transport.exchange(method, url, data, params, headers, departed)
            return replace(answer, mask=self._mask)
        finally:
            if left < inf:
                self.requests += 1
            for part, place in given:
                if left < inf:
                    part.answered(self.budget.clock() - left)
                if place is not None:
                    part.ends()

    def _url(self, path: str) -> str:
        """`path` may be a whole URL: some vendors read and write at different hosts."""
        whole = path.startswith(("https://", "http://"))
        return path if whole else self.owner.base_url.rstrip("/") + "/" + path.lstrip("/")


async def _nothing() -> None:
    """A login is no write: nothing has to be durable before it."""
