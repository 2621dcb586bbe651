"""What HubSpot's answers say: of each record, and of the request as a whole.

An input is found by the `objectWriteTraceId` it was sent with, its place in the batch; results come in no order, and
the values of an error's context are lists (OpenAPI: StandardError).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from backhaul.destinations.hubspot.fields import RECORD_ID
from backhaul.destinations.kit import Answer, classify_status, inner, listed, said_by
from backhaul.errors import BackhaulError, Forbidden, Halt, Refused, Throttled, Unsettled
from backhaul.types import Delivered, Gone, Left, Outcome, Rejected, Retry

DAY = 86_400.0
"""Seconds of the daily window."""
_INTERVAL = 10.0
"""Seconds of the burst window, where the answer does not name it."""
_LOCKED = 2.0
"""Seconds to leave records alone that too many writes want at once."""
OTHER_EMAILS = "hs_additional_emails"
_MERGED_IDS = "hs_merged_object_ids"
NOT_THERE = "OBJECT_NOT_FOUND"
"""The category of an input whose record does not exist, or not any more."""
_BUSY = ("RATE_LIMIT", "RATE_LIMITS")
_BROKEN = ("INTERNAL_ERROR", "INTERNAL_SERVER_ERROR", "TIMEOUT")
"""Categories that leave open whether an input was applied."""


def body_of(answer: Answer) -> dict[str, Any]:
    """An answer's JSON object.

    Raises:
        Unsettled: it is none.
        Refused: it is an error of the request as a whole.
    """
    body = answer.json()
    if not isinstance(body, dict):
        raise Unsettled(f"HTTP {answer.status} with JSON that is not an object")
    if body.get("status") == "error":
        raise Refused(
            str(body.get("message") or "refused without a message"), code=str(body.get("category") or "")
        )
    return body


def context(error: Mapping[str, Any], name: str) -> list[str]:
    value = inner(error, "context", name)
    return [str(item) for item in value] if isinstance(value, list) else []


@dataclass(frozen=True, slots=True)
class Sent:
    """The records of one request: their keys, and the values of the property `by` they were sent under, folded."""

    by: str
    keys: Sequence[str]
    values: Sequence[str]
    fold: Callable[[Any], str]

    def traced(self, traces: Iterable[Any]) -> list[int]:
        """Places by their traces."""
        texts = [str(trace) for trace in traces]
        return [int(text) for text in texts if text.isdecimal() and int(text) < len(self.keys)]

    def valued(self, values: Iterable[Any]) -> list[int]:
        """Places by the values they were sent under."""
        places = {value: place for place, value in enumerate(self.values)}
        texts = [self.fold(value) for value in values if value is not None]
        return [places[text] for text in texts if text in places]

    def of_result(self, result: Mapping[str, Any]) -> list[int]:
        trace = result.get("objectWriteTraceId")
        if trace is not None:
            return self.traced([trace])
        held = result.get("id") if self.by == RECORD_ID else inner(result, "properties", self.by)
        return self.valued([held, *self._former(result)])

    def _former(self, result: Mapping[str, Any]) -> list[str]:
        """What else a record answers to: ids of contacts that were merged into it, or its other e-mails."""
        name = _MERGED_IDS if self.by == RECORD_ID else OTHER_EMAILS if self.by == "email" else ""
        return [one for one in str(inner(result, "properties", name) or "").split(";") if one]

    def of_error(self, error: Mapping[str, Any]) -> list[int]:
        traces = context(error, "objectWriteTraceId")
        return self.traced(traces) if traces else self.valued(context(error, "ids"))


def outcomes(body: Mapping[str, Any], sent: Sent) -> list[Outcome]:
    """One outcome for each record that the answer names. Errors that name nobody are those of the records that are
    left, where they are as many and of one kind. A result that names nobody is that of the one record that is left: of a
    contact that was merged into another, the answer has the other's id and no trace."""
    named: dict[int, Outcome] = {}
    strange: list[str] = []
    for result in listed(body, "results"):
        record_id = None if result.get("id") is None else str(result["id"])
        places = sent.of_result(result)
        named.update({place: Delivered(sent.keys[place], record_id) for place in places})
        strange += [record_id] if record_id is not None and not places else []
    errors = {place: error for error in listed(body, "errors") for place in sent.of_error(error)}
    nameless = [error for error in listed(body, "errors") if not sent.of_error(error)]
    silent = set(range(len(sent.keys))) - set(named) - set(errors)
    if len(nameless) == len(silent) and len({str(error.get("category")) for error in nameless}) == 1:
        said = "; ".join(dict.fromkeys(str(error.get("message") or "") for error in nameless))
        errors |= {place: {**nameless[0], "message": said} for place in silent}
    elif len(strange) == len(silent) == 1 and not nameless:
        (place,) = silent
        named[place] = Delivered(sent.keys[place], strange[0])
    delivered = [outcome for place, outcome in named.items() if place not in errors]
    return [
        *delivered,
        *(outcome for place, error in errors.items() for outcome in refused(sent.keys[place], error)),
    ]


def refused(key: str, error: Mapping[str, Any]) -> Iterator[Outcome]:
    """The outcome of a record that an error names; none where that leaves open whether it was applied."""
    category = str(error.get("category") or "ERROR")
    message = str(error.get("message") or "refused without a message")
    if category in _BUSY:
        yield Retry(key, message)
    elif category not in _BROKEN:
        yield (Gone if category == NOT_THERE else Rejected)(key, category, message)


def classify(answer: Answer) -> BackhaulError | None:
    """What an answer means for the request as a whole; a 404 that says so of records is read by its body."""
    if 200 <= answer.status < 300:
        return None
    body, message = answer.members(), said_by(answer)
    category = str(body.get("category") or body.get("errorType") or "")
    said = f"HTTP {answer.status}: {message}" if message else f"HTTP {answer.status}"
    if answer.status == 429:
        return Throttled(said, code=str(body.get("policyName") or category or 429), after=_wait(answer, body))
    if answer.status in (423, 477):
        wait = answer.retry_after() or (_LOCKED if answer.status == 423 else _INTERVAL)
        return Throttled(said, code=category or str(answer.status), after=wait)
    if answer.status == 401:
        return Halt(
            f"HubSpot does not accept the access token: {category or said}",
            hint="is it current, and of this account?",
        )
    if answer.status == 403:
        return Forbidden(f"HubSpot refuses this: {said}", hint=_scopes(body))
    if answer.status == 404 and category == "OBJECT_NOT_FOUND":
        return None
    if message.startswith("Unable to infer object type"):
        return Halt(
            f"HubSpot knows no such object: {message}", hint="custom objects go by 2-… or their full name"
        )
    error = classify_status(answer, message)
    return (
        Refused(said, code=category or str(answer.status), kind=error.kind)
        if isinstance(error, Refused)
        else error
    )


def _wait(answer: Answer, body: Mapping[str, Any]) -> float:
    """Seconds: what the answer says, else until midnight for the daily limit, else the burst window."""
    after = answer.retry_after()
    if after is not None:
        return after
    if body.get("policyName") == "DAILY" or "daily" in str(body.get("message", "")).lower():
        return answer.until_midnight()
    interval = answer.headers.get("x-hubspot-ratelimit-interval-milliseconds", "")
    return int(interval) / 1000 if interval.isdecimal() else _INTERVAL


def left_today(answer: Answer, ours: Callable[[int, int], int]) -> Mapping[float, Left]:
    """The account's daily quota, which all its private apps share; answers to OAuth requests do not name it. No answer names
    the account's zone."""
    quota, said = (answer.headers.get(f"x-hubspot-ratelimit-daily{of}", "") for of in ("", "-remaining"))
    if not said.isdecimal():
        return {}
    rest = ours(int(said), int(quota)) if quota.isdecimal() else int(said)
    return {DAY: Left(rest, answer.until_midnight())}


def _scopes(body: Mapping[str, Any]) -> str:
    """What to do about a 403: the scopes it asks for, at most five."""
    needed = [scope for error in listed(body, "errors") for scope in context(error, "requiredGranularScopes")]
    named = ", ".join(needed[:5]) or "crm.objects.*.read, crm.objects.*.write and crm.schemas.*.read"
    return (
        f"give the private app the scope it lacks, of {named}"
        if len(needed) != 1
        else f"give the private app the scope {named}"
    )
