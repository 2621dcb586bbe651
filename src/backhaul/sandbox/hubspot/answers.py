"""The words of HubSpot's answers: errors of a request, errors of one input, batches.

Shapes are those of recorded answers and of the OpenAPI documents' Error and StandardError; every context is a list.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

STATUS = {"CONFLICT": 409, "OBJECT_ALREADY_EXISTS": 409, "OBJECT_NOT_FOUND": 404}
"""Categories of a refused request whose status is not 400."""


class Refusal(Exception):
    """What HubSpot says to a request, or to one input of a batch, that it does not take."""

    def __init__(
        self, category: str, message: str, *, errors: Sequence[Mapping[str, Any]] = (),
        context: Mapping[str, Sequence[str]] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.category = category
        self.errors = list(errors)
        self.context = dict(context or {})


def stamp(milliseconds: float | None = None) -> str:
    """ISO 8601 with milliseconds and Z; of now, or of milliseconds since 1970."""
    moment = datetime.now(UTC) if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    data = orjson.dumps(body)
    return web.Response(
        body=data, status=status, content_type="application/json", charset="utf-8", headers=headers
    )


def problem(
    status: int, category: str, message: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> web.Response:
    """A request refused as a whole."""
    body = {
        "status": "error",
        "message": message,
        "correlationId": str(uuid.uuid4()),
        **more,
        "category": category,
    }
    return answer(body, status, headers)


def refused(refusal: Refusal) -> web.Response:
    more: dict[str, Any] = {"errors": refusal.errors} if refusal.errors else {}
    if refusal.context:
        more["context"] = refusal.context
    return problem(STATUS.get(refusal.category, 400), refusal.category, str(refusal), **more)


def rate_limited(policy: str, retry_after: float | None = None) -> web.Response:
    """A 429 that names its policy: TEN_SECONDLY_ROLLING or DAILY."""
    body = {
        "status": "error", "message": f"You have reached your {policy.lower()} limit.", "errorType": "RATE_LIMIT",
        "correlationId": str(uuid.uuid4()), "policyName": policy,
    }  # fmt: skip
    return answer(body, 429, None if retry_after is None else {"Retry-After": f"{retry_after:g}"})


def secondly() -> web.Response:
    """The 429 of search as recorded: no policy, no time to wait."""
    return problem(429, "RATE_LIMITS", "You have reached your secondly limit.")


def not_found() -> web.Response:
    """The recorded answer to a record that is not there is a page, though everything else is JSON."""
    page = "<html><head><title>Error 404</title></head><body><h2>HTTP ERROR 404</h2><p>Resource not found</p></body></html>"
    return web.Response(status=404, text=page, content_type="text/html", charset="iso-8859-1")


def input_error(refusal: Refusal, item: Mapping[str, Any]) -> dict[str, Any]:
    """The error of one input, found by its trace where the client gave one, else by its id."""
    context = dict(refusal.context)
    if item.get("objectWriteTraceId") is not None:
        context["objectWriteTraceId"] = [str(item["objectWriteTraceId"])]
    elif "id" in item:
        context["ids"] = [str(item["id"])]
    return {
        "status": "error", "category": refusal.category, "message": str(refusal), "context": context,
        "errors": refusal.errors, "links": {},
    }  # fmt: skip
