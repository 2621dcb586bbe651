"""What Zendesk's answers say: of a request as a whole, of one record, and of the minute's window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from backhaul.destinations.kit import Answer, classify_status, listed, said_by
from backhaul.errors import BackhaulError, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.types import Delivered, Gone, Left, Outcome, RefusalClass, Rejected, Retry

MINUTE = 60.0
_ONE_RECORD = "updating a single unique"
"""Recorded: 429 as plain text, while the account's window is far from used up."""


def said(answer: Answer) -> tuple[str, str]:
    """The code and the words of an error; details name each attribute (recorded: RecordInvalid)."""
    body = answer.members()
    if not body:
        return "", said_by(answer)
    error = body.get("error")
    if isinstance(error, dict):
        return str(error.get("title") or ""), str(error.get("message") or "")
    return str(error or ""), _words(body)


def _words(body: Mapping[str, Any]) -> str:
    details = body.get("details")
    if isinstance(details, Mapping):
        each = [
            str(item.get("description") or item)
            for items in details.values()
            for item in (items if isinstance(items, list) else [items])
            if isinstance(item, dict)
        ]
        if each:
            return "; ".join(each)
    return str(details or body.get("description") or body.get("message") or "")


def _details(answer: Answer) -> Any:
    return answer.members().get("details")


def body_of(answer: Answer) -> dict[str, Any]:
    """Raises: Unsettled where a 2xx is no JSON object; Refused where it is an error after all."""
    body = answer.json()
    if not isinstance(body, dict):
        raise Unsettled(f"HTTP {answer.status} with JSON that is not an object")
    if body.get("error") and len(body) <= 3:
        code, words = said(answer)
        raise Refused(words or code, code=code)
    return body


_NO_ORGANIZATION = re.compile(r"organization\b.*(not (exist|found)|invalid|cannot be blank)", re.IGNORECASE)
_TAKEN = re.compile(r"already (being used|exists|been taken)|has already", re.IGNORECASE)


def about(words: str, details: Any = None) -> RefusalClass | None:
    """What a refusal is about where its code, which is RecordInvalid for all of these, leaves it open: the attributes and codes
    of its details say so (`organization` and DuplicateValue: issues 353 of zendesk_api_client_php and 457 of
    zendesk_api_client_rb), and its words where a job's row has no more."""
    errors = [
        (name, item.get("error"))
        for name in (details if isinstance(details, dict) else ())
        for item in listed(details, name)
    ]
    if any(name in ("organization", "organization_id") for name, _ in errors):
        return RefusalClass.REFERENCE
    if any(code == "DuplicateValue" for _, code in errors):
        return RefusalClass.CONFLICT
    if _NO_ORGANIZATION.search(words):
        return RefusalClass.REFERENCE
    return RefusalClass.CONFLICT if _TAKEN.search(words) else None


def of_one_record(answer: Answer) -> bool:
    """Whether a 429 is about one record that was written too often."""
    return answer.status == 429 and _ONE_RECORD in said_by(answer)


def not_now(key: str, answer: Answer) -> Retry:
    return Retry(key, said_by(answer), answer.retry_after())


def classify(answer: Answer) -> BackhaulError | None:
    """What an answer means for the request as a whole. None: read by its body, among them 403 (the connector knows whether
    it may go on without a bulk endpoint), a record that is not there, and one that is written too often."""
    status = answer.status
    code, words = said(answer)
    missing = status == 404 and code == "RecordNotFound"
    if 200 <= status < 300 or status == 403 or missing or of_one_record(answer):
        return None
    text = f"HTTP {status}: {code} {words}".strip()
    if status == 429:
        return Throttled(text, code=code or "429", after=answer.retry_after() or _resets(answer))
    if status == 401:
        return Halt(
            f"Zendesk does not accept the credentials: {words or code or 'HTTP 401'}",
            hint="an API token goes with its agent's e-mail; a password is never taken",
        )
    if status == 409:
        return NotApplied(text, code=code or "409")
    error = classify_status(answer, f"{code} {words}".strip())
    return (
        Refused(words or text, code=code or str(status), kind=error.kind or about(words, _details(answer)))
        if isinstance(error, Refused)
        else error
    )


def _resets(answer: Answer) -> float | None:
    for name in ("ratelimit-reset", "rate-limit-reset"):
        value = answer.headers.get(name, "")
        if value.isdecimal():
            return float(value)
    return None


def left_in_minute(answer: Answer) -> Mapping[float, Left]:
    """What the account, with all its apps, has left of this minute."""
    headers = answer.headers
    left = headers.get("ratelimit-remaining") or headers.get("x-rate-limit-remaining") or ""
    return {MINUTE: Left(int(left), _resets(answer) or MINUTE)} if left.isdecimal() else {}


def without_organization(key: str, code: str, words: str) -> Rejected:
    """A user was to be made or updated, by whatever it is found, and something is not there: its organization (issue 115 of
    zendesk-java-client)."""
    return Rejected(key, code, f"{words or code}: is its organization there?", RefusalClass.REFERENCE)


def of_row(key: str, row: Mapping[str, Any]) -> Outcome | None:
    """What a row of a job's results says of the record it is about; None where it says nothing that is known."""
    if row.get("error") or str(row.get("status")).lower() == "failed" or row.get("success") is False:
        code, words = str(row.get("error") or "Failed"), _words(row) or "refused without a message"
        return (Gone if code == "RecordNotFound" else Rejected)(
            key, code, words, about(words, row.get("details"))
        )
    done = str(row.get("status")).lower() in ("created", "updated", "deleted") or row.get("success") is True
    # what was created in bulk has its id and its place alone (reference: job statuses, "Bulk create")
    done = done or ("index" in row and not {"status", "success", "errors"} & row.keys())
    return Delivered(key, str(row["id"])) if done and row.get("id") is not None else None
