"""A simulated Slack workspace: posting messages to channels, with one message a second in each.

From docs.slack.dev, python-slack-sdk and recorded answers. Slack lets short bursts through; this one does not.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.kit import RECORDS, Sample, Sandbox
from backhaul.sandbox.limits import RollingLimit

_LONGEST, _BLOCKS = 40_000, 50


@dataclass
class Channel:
    """One channel, and its messages by `ts`."""

    id: str
    name: str
    archived: bool = False
    joined: bool = True
    messages: dict[str, dict[str, Any]] = field(default_factory=dict)


class SlackSandbox(Sandbox):
    """One workspace with the channels #general, #alerts, #old (archived) and #board (the app is not in it)."""

    name = "Slack"
    sample = Sample(
        type="slack", credentials={"token": "local-sandbox-token"}, object="channels/C04KB5X4D", identify={"id": "contact_id"},
        fields={"text": "concat(first_name, ' ', last_name, ' (', plan, ') has a health of ', health)"}, mode="insert", rows=25,
    )  # fmt: skip
    token: str | None = None
    """None takes any."""

    team = "T04KB5WQH"
    """The workspace's id: another one is another account."""

    def __init__(self, seed: int = 1, *, per_second: int = 1) -> None:
        super().__init__(seed)
        made = (
            Channel("C04KB5X4D", "general"), Channel("C019CV63U", "alerts"), Channel("C00000OLD", "old", archived=True),
            Channel("C0000BRD0", "board", joined=False),
        )  # fmt: skip
        self.channels = {channel.id: channel for channel in made}
        self.limits: dict[str, RollingLimit] = defaultdict(lambda: RollingLimit(per_second, 1.0))
        self._numbers = count(1)

    def routes(self, router: web.UrlDispatcher) -> None:
        for prefix in ("", "/api"):
            router.add_post(f"{prefix}/auth.test", self._test)
            router.add_post(f"{prefix}/chat.postMessage", self._post)

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return {f"#{channel.name}": channel.messages for channel in self.channels.values()}

    def writes(self, request: web.Request) -> bool:
        return request.path.endswith("chat.postMessage")

    def admit(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not given:
            return _no("not_authed")
        return _no("invalid_auth") if self.token not in (None, given) else None

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        if status == 429:
            wait = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
            return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=wait)
        if status in (400, 401):
            return _no(code or "invalid_auth")
        if status == 404:
            return _no("unknown_method")
        return web.Response(status=status, text="upstream error")

    async def _test(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"ok": True, "team": "Sandbox", "team_id": self.team, "user_id": "U0J1GAHN1", "bot_id": "B1"}
        )

    async def _post(self, request: web.Request) -> web.Response:
        message = await _arguments(request)
        channel = self._channel(str(message.pop("channel", "")))
        if isinstance(channel, str):
            return _no(channel)
        if not self.limits[channel.id].take():
            return self.refusal(429, retry_after=1)
        request[RECORDS] = 1
        if (error := self._unfit(message)) is not None:
            return _no(error)
        ts = f"{int(time.time())}.{next(self._numbers):06}"
        channel.messages[ts] = message
        return web.json_response(
            {"ok": True, "channel": channel.id, "ts": ts, "message": {"type": "message", "ts": ts, **message}}
        )

    def _channel(self, named: str) -> Channel | str:
        """The channel of this id or name, or why there is none."""
        found = next((one for one in self.channels.values() if named.lstrip("#") in (one.id, one.name)), None)
        if found is None:
            return "channel_not_found"
        return "is_archived" if found.archived else found if found.joined else "not_in_channel"

    def _unfit(self, message: Mapping[str, Any]) -> str | None:
        text, blocks = message.get("text") or "", message.get("blocks") or []
        if not text and not blocks and not message.get("attachments"):
            return "no_text"
        if len(text) > _LONGEST or self.refuses(text, str(message.get("username") or "")):
            return "msg_too_long"
        good = (
            isinstance(blocks, list)
            and len(blocks) <= _BLOCKS
            and all(isinstance(one, dict) and "type" in one for one in blocks)
        )
        return None if good else "invalid_blocks"


async def _arguments(request: web.Request) -> dict[str, Any]:
    """A body of JSON or of a form, in which lists and objects are JSON."""
    if request.content_type == "application/json":
        found: dict[str, Any] = orjson.loads(await request.read())
        return found
    form = dict(await request.post())
    return {
        name: orjson.loads(str(value)) if name in ("blocks", "attachments") else value
        for name, value in form.items()
    }


def _no(error: str) -> web.Response:
    return web.json_response({"ok": False, "error": error})
