"""HTTP answers, and the reading of them that holds for most APIs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import orjson

from backhaul.errors import BackhaulError, Forbidden, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.types import RefusalClass


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, read whole. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    mask: Callable[[str], str] = field(default=str, repr=False, compare=False)
    """Takes secrets out of what the answer says, which may echo its request: before it is cut."""

    def json(self) -> Any:
        """The body as JSON.

        Raises:
            Unsettled: the body is empty, HTML, cut short or otherwise not JSON.
        """
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            kind = self.headers.get("content-type", "no content type")
            raise Unsettled(
                f"HTTP {self.status} with a body that is not JSON ({kind}, {len(self.body)} bytes)"
            ) from None

    def members(self) -> dict[str, Any]:
        """The body where it is a JSON object, {} where it is anything else: for what an error says of itself."""
        try:
            body = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return body if isinstance(body, dict) else {}

    def moment(self) -> float:
        """When it was given, in Unix time, by its own date: this machine's clock may be wrong."""
        import time
        from email.utils import parsedate_to_datetime

        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError):
            return time.time()

    def retry_after(self) -> float | None:
        """Seconds of a Retry-After header: a number (also a fraction) or an HTTP date (RFC 9110, 10.2.3), which is
        read against the answer's own Date where it has one."""
        from email.utils import parsedate_to_datetime

        value = self.headers.get("retry-after", "").strip()
        if not value:
            return None
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - self.moment()
            except (ValueError, TypeError):
                return None
        return max(seconds, 0.0) if seconds < float("inf") else None

    def reset_after(self) -> float | None:
        """Seconds until a used-up window opens: Retry-After, else RateLimit-Reset in seconds
        (draft-ietf-httpapi-ratelimit-headers-07, 5.3), else X-RateLimit-Reset where it can only be a moment (Unix time)."""
        after = self.retry_after()
        if after is not None:
            return after
        for name, least, most in (("ratelimit-reset", 0.0, 1e6), ("x-ratelimit-reset", 1e9, 1e10)):
            try:
                value = float(self.headers.get(name, ""))
            except ValueError:
                continue
            if least <= value <= most:
                return value if least == 0 else max(value - self.moment(), 0.0)
        return None

    def until_midnight(self, zone: tzinfo = UTC) -> float:
        """Seconds from when it was given to the end of the day in a zone: a daily quota begins anew then."""
        now = datetime.fromtimestamp(self.moment(), zone)
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight - now).total_seconds()


def listed(members: Any, name: str) -> list[dict[str, Any]]:
    """The objects in a list of an object; none where there is no list."""
    found = inner(members, name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def listing(body: Any, name: str) -> list[dict[str, Any]]:
    """The objects of a list that an answer has to have.

    Raises:
        Unsettled: there is no such list: that is no answer, and no empty one.
    """
    if not isinstance(inner(body, name), list):
        raise Unsettled(f"the answer has no list of {name}")
    return listed(body, name)


def inner(held: Any, *names: str) -> Any:
    """A member of a member; None where there is none."""
    for name in names:
        held = held.get(name) if isinstance(held, dict) else None
    return held


def classify_status(answer: Answer, message: str = "") -> BackhaulError | None:
    """The reading of a status code that holds for most HTTP APIs (RFC 9110; RFC 6585 for 429)."""
    status = answer.status
    if 200 <= status < 300:
        return None
    said = message or said_by(answer)
    text = f"HTTP {status}: {said}" if said else f"HTTP {status}"
    after = answer.retry_after()
    if status == 429:
        return Throttled(text, code=str(status), after=answer.reset_after())
    if status == 503 and after is not None:
        return Throttled(text, code=str(status), after=after)
    if status == 401:
        return Halt(f"the destination refuses our credentials or permission: {text}")
    if status == 403:
        return Forbidden(f"the destination refuses our credentials or permission: {text}")
    if 300 <= status < 400:
        place = answer.headers.get("location", "somewhere else")
        return Halt(
            f"the destination redirects to {place}, which is not followed: {text}",
            hint="set base_url to the final address",
        )
    if status in (408, 425) or (status >= 500 and status != 507):
        return Unsettled(text, code=str(status))
    if status == 423:
        return NotApplied(text, code=str(status))
    full = status in (402, 507)  # payment, or storage
    return Refused(text, code=str(status), kind=RefusalClass.CAPACITY if full else None)


_READ = 16_384
"""Bytes of an answer that is no JSON in which its words are looked for."""


def said_by(answer: Answer, limit: int = 300) -> str:
    """The answer's own words, one line, at most `limit` characters; '' where it has none."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return (
            ""
            if b"<" in answer.body[:200]
            else " ".join(answer.mask(answer.body[:_READ].decode("utf-8", "replace")).split())[:limit]
        )
    while isinstance(body, list) and body:
        body = body[0]
    if isinstance(body, dict):
        for name in ("message", "error_description", "detail", "error", "errors", "title"):
            if body.get(name):
                said = body[name]
                return answer.mask(said if isinstance(said, str) else orjson.dumps(said).decode())[:limit]
    return answer.mask(orjson.dumps(body).decode())[:limit] if body else ""
