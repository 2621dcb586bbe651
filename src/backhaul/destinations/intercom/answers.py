"""What Intercom's answers say: `error.list` bodies (OpenAPI document: error), and its ten-second windows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backhaul.destinations.kit import Answer, classify_status, listed
from backhaul.errors import BackhaulError, Forbidden, Halt, Refused, Throttled, Unsettled
from backhaul.types import Left

WINDOW = 10.0
"""Seconds. The limit of a minute is spread over windows of ten seconds (vendor page: rate limiting)."""
_OF_RECORDS = (404, 409, 410)
"""Statuses that are about one record, where the body is an `error.list`."""
_EXISTING = re.compile(r"\bid=([0-9A-Za-z-]+)")
_OF_THE_VERSION = "intercom_version_invalid"
_OF_NO_ATTRIBUTE = "does not exist"


def error_of(answer: Answer) -> tuple[str, str]:
    """The code of the first error and the words of all; ('', '') where the body is no `error.list`."""
    errors = _errors(answer)
    words = "; ".join(dict.fromkeys(_words(error) for error in errors))
    return (str(errors[0].get("code") or ""), words) if errors else ("", "")


def _words(error: Mapping[str, Any]) -> str:
    said, field = str(error.get("message") or error.get("code") or "no message"), error.get("field")
    return f"{field}: {said}" if field and str(field) not in said else said


def _errors(answer: Answer) -> list[dict[str, Any]]:
    body = answer.members()
    return listed(body, "errors") if body.get("type") == "error.list" else []


def record_of(answer: Answer) -> dict[str, Any]:
    """The JSON object of a 2xx.

    Raises:
        Unsettled: it is none.
        Refused: it is an error after all.
    """
    body = answer.json()
    if not isinstance(body, dict):
        raise Unsettled(f"HTTP {answer.status} with JSON that is not an object")
    if body.get("type") == "error.list":
        code, said = error_of(answer)
        raise Refused(said, code=code)
    return body


def existing(said: str) -> str | None:
    """The id of the contact that a 409 says is there already (recorded: `… already exists with id=…`)."""
    found = _EXISTING.search(said)
    return found.group(1) if found else None


def classify(answer: Answer) -> BackhaulError | None:
    """What an answer means for the request as a whole; one that says a record is missing or there already is read by
    its body."""
    status, (code, said) = answer.status, error_of(answer)
    if 200 <= status < 300 or (status in _OF_RECORDS and code):
        return None
    if status == 429:
        after = answer.reset_after()
        return Throttled(f"HTTP 429: {said or 'rate limit'}", code=code or "429", after=after)
    if code == "api_plan_restricted":
        return Halt(f"Intercom refuses this: HTTP {status}: {said}", hint="does the plan include this?")
    if status == 403:
        return Forbidden(f"Intercom refuses this: HTTP 403: {said}", hint="does the app have the permission?")
    if status == 401:
        return Halt(
            f"Intercom does not accept the access token: {said or 'HTTP 401'}",
            hint="is it current, and base_url the region of its workspace?",
        )
    if status == 406 or code == _OF_THE_VERSION:
        return Halt(f"Intercom does not speak this version: {said}", hint="set api_version to one it has")
    if status == 400 and "custom attribute" in said.lower() and _OF_NO_ATTRIBUTE in said:
        return Halt(
            f"Intercom has no such attribute: {said}", hint="was it archived since the plan was made?"
        )
    error = classify_status(answer, said)
    return (
        Refused(said or str(error), code=code or str(status), kind=error.kind)
        if isinstance(error, Refused)
        else error
    )


def left_in_window(answer: Answer) -> Mapping[float, Left]:
    """What is left of the current ten seconds, which end at X-RateLimit-Reset (Unix time), by the answer's own clock."""
    remaining = answer.headers.get("x-ratelimit-remaining", "")
    reset = answer.headers.get("x-ratelimit-reset", "")
    if not remaining.isdecimal() or not reset.isdecimal():
        return {}
    ends = int(reset) - answer.moment()
    return {WINDOW: Left(int(remaining), min(ends, WINDOW))} if ends > 0 else {}
