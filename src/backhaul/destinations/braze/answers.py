"""What Braze's answers say: of the objects of a request, by their place in it, and of the request as a whole."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backhaul.destinations.kit import Answer, classify_status, listed, said_by
from backhaul.errors import BackhaulError, Forbidden, Halt, Refused, Throttled, Unsettled
from backhaul.types import Delivered, Left, Outcome, Outcomes, Rate, Rejected

_INDEX = re.compile(r"\bindex:? (\d+)")


def body_of(answer: Answer) -> dict[str, Any]:
    """Raises: Unsettled where a 2xx is not what Braze says when it took a request."""
    body = answer.json()
    if not isinstance(body, dict) or body.get("message") not in ("success", "queued"):
        raise Unsettled(f"HTTP {answer.status}, but not with Braze's message of success: {said_by(answer)}")
    return body


def outcomes(answer: Answer, array: str, keys: Sequence[str]) -> Outcomes:
    """One outcome for each object of `array`, whose keys are given in its order.

    Errors name the array and the place in it (`input_array`, `index`); the others are counted, and only where that count
    is theirs are they delivered. `queued` is the answer while Braze is down for maintenance: all is kept (api/errors page).
    """
    body = body_of(answer)
    said = body.get("errors") or []
    errors: list[Any] = said if isinstance(said, list) else [said]
    refused: dict[int, str] = {}
    for error in errors:
        place, words = _place_and_words(error, array, keys)
        if place is not None:
            refused[place] = f"{refused[place]}; {words}" if place in refused else words
    queued = body["message"] == "queued" and not errors
    taken = queued or body.get(f"{array}_processed", 0) == len(keys) - len(refused)
    if taken and not errors:
        return Outcomes(everything=True)
    found: list[Outcome] = [Rejected(keys[place], words, words) for place, words in refused.items()]
    if taken:
        found += [Delivered(key) for place, key in enumerate(keys) if place not in refused]
    return Outcomes(tuple(found))


def _place_and_words(error: Any, array: str, keys: Sequence[str]) -> tuple[int | None, str]:
    """The place of the object that an error is about, None where it names none, and its words. An error may lack its array,
    which is the only one of the request, or be a plain text that names a place or an id."""
    if isinstance(error, dict):
        place, words = (
            error.get("index"),
            str(error.get("type") or error.get("message") or "refused without a reason"),
        )
        if error.get("input_array", array) != array:
            return None, words
    else:
        place, words = None, str(error)
    if place is None and (found := _INDEX.search(words)):
        place = int(found[1])
    if place is None:
        named = [
            at for at, key in enumerate(keys) if re.search(rf"(?<![\w@.-]){re.escape(key)}(?![\w@-])", words)
        ]
        place = named[0] if len(named) == 1 else None
    fits = type(place) is int and 0 <= place < len(keys)
    return (place if fits else None), words


def classify(answer: Answer) -> BackhaulError | None:
    """Braze has no codes: the status decides (api/errors page), and catalogs name an `id`. There is no Retry-After: windows
    end at X-RateLimit-Reset (Unix time)."""
    if 200 <= answer.status < 300:
        return None
    code, words = _said(answer)
    said = f"HTTP {answer.status}: {words}" if words else f"HTTP {answer.status}"
    if answer.status == 429:
        return Throttled(said, code=code or "429", after=answer.reset_after())
    if answer.status == 401:
        return Halt(
            f"Braze does not accept the API key: {said}",
            hint="has it the permission for this endpoint, and is base_url your instance's REST endpoint?",
        )
    if answer.status == 403:
        return Forbidden(
            f"Braze refuses this: {said}", hint="is this machine on the API key's list of addresses?"
        )
    if answer.status == 404:
        return Halt(f"Braze has no such place: {said}", hint="is base_url your instance's REST endpoint?")
    error = classify_status(answer, words)
    return (
        Refused(words or said, code=code or str(answer.status), kind=error.kind)
        if isinstance(error, Refused)
        else error
    )


def _said(answer: Answer) -> tuple[str, str]:
    """The `id` of the first error where there is one, and the words of the message and of all errors."""
    body = answer.members()
    if not body:
        return "", said_by(answer)
    errors = listed(body, "errors")
    each = [str(item.get("message") or item.get("type") or item) for item in errors]
    words = "; ".join(dict.fromkeys([str(body.get("message") or ""), *each])).strip("; ")
    return next((str(item["id"]) for item in errors if item.get("id")), ""), words


def left(answer: Answer, limits: Sequence[Rate]) -> Mapping[float, Left]:
    """What is left of the window whose limit the answer names: each endpoint has a limit of its own, and only those that are
    kept by this connection count."""
    said = [answer.headers.get(f"x-ratelimit-{name}", "") for name in ("limit", "remaining")]
    if not all(text.isdecimal() for text in said):
        return {}
    after = answer.reset_after()
    found = (
        rate for rate in limits if rate.count == int(said[0]) and after is not None and 0 < after <= rate.per
    )
    return {rate.per: Left(int(said[1]), after or 0.0) for rate in found}
