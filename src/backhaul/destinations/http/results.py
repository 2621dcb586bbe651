"""Answers of a declared API: per-record outcomes, and the successes that are none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson

from backhaul.destinations.http.config import Results
from backhaul.destinations.kit import Answer
from backhaul.errors import Unsettled
from backhaul.types import Delivered, Gone, Outcome, Outcomes, Rejected, Retry


def outcomes_of(results: Results, answer: Answer, keys: Sequence[str]) -> Outcomes:
    """What the answer says about each key. A key it does not name, or contradicts itself about, is left out.

    Raises:
        Unsettled: the answer is not JSON.
    """
    body = answer.json()
    items = results.each.of(body)
    if items is None and results.success and results.success.of(body) is True:
        return Outcomes(everything=True)
    if not isinstance(items, dict if results.map else list) or (results.index and len(items) != len(keys)):
        return Outcomes()
    pairs = list(zip(keys, items, strict=True) if results.index else named(results, items))
    delivered, others, torn = sorted_out(results, pairs, set(keys))
    if results.unnamed == "delivered":
        delivered |= unnamed(pairs, keys, len(items))
    if len(delivered) == len(keys) and not others and not torn:
        return Outcomes(everything=True)
    taken: list[Outcome] = [Delivered(key) for key in delivered if key not in torn]
    return Outcomes((*taken, *(other for key, other in others.items() if key not in torn)))


def unnamed(pairs: Sequence[tuple[str, Any]], keys: Sequence[str], items: int) -> set[str]:
    """The keys that an answer which lists failures alone does not name; none where some failure is about no key that was
    sent: it may be about any of them."""
    about = {key for key, _ in pairs}
    return set(keys) - about if len(pairs) == items and about <= set(keys) else set()


def named(results: Results, items: Any) -> Iterator[tuple[str, Any]]:
    if results.map:
        yield from items.items()
        return
    assert results.key is not None  # noqa: S101 - the configuration has either a key or an index
    key_of = results.key.of
    for item in items:
        key = key_of(item)
        if type(key) is str:
            yield key, item
        elif key is not None:
            yield (str(key).lower() if type(key) is bool else str(key)), item


def sorted_out(
    results: Results, pairs: Iterable[tuple[str, Any]], sent: set[str]
) -> tuple[set[str], dict[str, Outcome], set[str]]:
    """The keys that were delivered, the outcomes of the others, and the keys with two different verdicts."""
    delivered: set[str] = set()
    others: dict[str, Outcome] = {}
    torn: set[str] = set()
    verdict_of = results.delivered.of if results.delivered else lambda item: False
    for key, item in pairs:
        if key not in sent:
            continue
        verdict = verdict_of(item)
        if verdict == 1:
            delivered.add(key)
            if key in others:
                torn.add(key)
        elif verdict == 0:
            other = refusal(results, key, item)
            if key in delivered or type(others.setdefault(key, other)) is not type(other):
                torn.add(key)
        else:
            torn.add(key)
    return delivered, others, torn


def refusal(results: Results, key: str, item: Any) -> Outcome:
    code, message = said(results.error.of(item) if results.error else None)
    if results.retryable and results.retryable.of(item) == 1:
        return Retry(key, message)
    if results.gone and results.gone.of(item) == 1:
        return Gone(key, "gone" if code == "rejected" else code, message)
    return Rejected(key, code, message)


def said(error: Any) -> tuple[str, str]:
    """Code and message of one error: a text, an object that has them, or a list of either."""
    while isinstance(error, list) and error:
        error = error[0]
    if isinstance(error, dict):
        code = first(error, ("code", "error_code", "errorCode", "type", "name", "status")) or "rejected"
        message = first(error, ("message", "detail", "description", "error", "reason", "title"))
        return code, message or orjson.dumps(error).decode()
    if error is None or error == "" or error == []:
        return "rejected", "the destination gave no reason"
    return "rejected", error if isinstance(error, str) else orjson.dumps(error).decode()


def first(error: dict[str, Any], names: Iterable[str]) -> str:
    """The first of these that is a text or a number, as text."""
    for name in names:
        value = error.get(name)
        if isinstance(value, str | int | float) and value != "":
            return str(value)
    return ""


def html(answer: Answer) -> Unsettled | None:
    """A page where an answer was expected: a proxy, a login form or a wrong address."""
    start = answer.body[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    claimed = "html" in answer.headers.get("content-type", "")
    if (claimed and start) or start.startswith((b"<!doctype", b"<html")):
        return Unsettled(f"HTTP {answer.status} with an HTML page instead of an answer; is base_url right?")
    return None


def believe(answer: Answer) -> Outcomes:
    """A success for the whole batch, unless the body claims to be JSON and is not.

    Raises:
        Unsettled: it is not.
    """
    if answer.body and "json" in answer.headers.get("content-type", ""):
        answer.json()
    return Outcomes(everything=True)
