"""A receiver of signed webhooks, as careful as the Standard Webhooks specification 1.0.0 asks: it checks the signature, refuses
what is older than five minutes, and applies an event once, however often it comes."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from backhaul.sandbox.kit import RECORDS, Sample, Sandbox

SECRET = "whsec_" + base64.b64encode(b"the sandbox's key, which is public").decode()
_TOLERANCE = 300
"""Seconds between the event's time and the receiver's clock."""


class WebhookSandbox(Sandbox):
    """Takes events at any path. The first member of a record is what it goes by."""

    name = "Webhook"
    secret = SECRET
    sample = Sample(
        type="webhook", credentials={"secrets": SECRET}, object="contact", identify={"id": "contact_id"},
        fields={
            "email": "email", "name": "concat(first_name, ' ', last_name)", "plan": "plan", "seats": "seats", "health": "health",
            "last_seen": "last_seen",
        },
        settings={"batch_size": "10"}, rows=5_000,
    )  # fmt: skip

    def __init__(self, seed: int = 1) -> None:
        super().__init__(seed)
        self.held: dict[str, dict[str, dict[str, Any]]] = {}
        self.known: set[str] = set()
        """Ids of events that were applied."""
        self.repeated = 0

    def routes(self, router: web.UrlDispatcher) -> None:
        router.add_post("/{path:.*}", self._event)

    def records(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        return self.held

    def notes(self) -> Mapping[str, str]:
        return {"signing secret": self.secret, "events that came again": f"{self.repeated:,}"}

    def writes(self, request: web.Request) -> bool:
        return True

    def admit(self, request: web.Request) -> web.Response | None:
        return None

    def refusal(self, status: int, code: str = "", retry_after: float | None = None) -> web.Response:
        answer = web.json_response({"error": code or web.Response(status=status).reason}, status=status)
        if status == 429 and retry_after is not None:
            answer.headers["Retry-After"] = f"{retry_after:g}"
        return answer

    async def _event(self, request: web.Request) -> web.Response:
        body = await request.read()
        if (fault := self._unsigned(request.headers, body)) is not None:
            return self.refusal(401, fault)
        event = orjson.loads(body)
        records = event["data"] if isinstance(event["data"], list) else [event["data"]]
        request[RECORDS] = len(records)
        keys = [str(next(iter(record.values()))) for record in records]
        if self.faults.poison_key in keys or any(self.refuses(key) for key in keys):
            return self.refusal(400, "a record is not welcome")
        if request.headers["webhook-id"] in self.known:
            self.repeated += 1
        else:
            self._apply(event["type"], dict(zip(keys, records, strict=True)))
            self.known.add(request.headers["webhook-id"])
        return web.Response(status=204)

    def _unsigned(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """What is wrong with the signature."""
        names = ("webhook-id", "webhook-timestamp", "webhook-signature")
        event, sent, marks = (headers.get(name, "") for name in names)
        if not event or not sent.isdecimal() or not marks:
            return "webhook-id, webhook-timestamp and webhook-signature are required"
        if abs(time.time() - int(sent)) > _TOLERANCE:
            return "the event is too old, or of the future"
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        mark = base64.b64encode(hmac.digest(key, f"{event}.{sent}.".encode() + body, hashlib.sha256)).decode()
        good = any(hmac.compare_digest(one, f"v1,{mark}") for one in marks.split(" "))
        return None if good else "no signature matches"

    def _apply(self, kind: str, records: Mapping[str, dict[str, Any]]) -> None:
        name, _, happened = kind.rpartition(".")
        held = self.held.setdefault(name, {})
        for key, record in records.items():
            if happened == "deleted":
                held.pop(key, None)
            else:
                held[key] = held.get(key, {}) | record
