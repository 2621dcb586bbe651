"""What Marketo's answers say: of the request as a whole, and of each record.

Nearly every answer is HTTP 200 (Adobe's REST guide: Error Codes). `success: false` is about the request; a record that was left
out is `skipped`, with `reasons`. Results are in the order of the request, which that page promises; those of custom objects
have a `seq`, those of lists the lead's id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta, timezone
from typing import Any

from backhaul.destinations.kit import Answer, classify_status, refusal_table
from backhaul.errors import BackhaulError, Expired, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.types import Delivered, Gone, Left, Outcome, Rejected, Retry

Item = Mapping[str, Any]

DAY = 86_400.0
"""Seconds of the daily quota."""
_CENTRAL = timezone(timedelta(hours=-6))
"""The quota begins anew at "12:00AM CST". In summer that may be an hour after the clocks of Chicago say so, never before."""
_WINDOW = 20.0
"""Seconds of the window whose limit 606 is about."""
_SECONDS = re.compile(r"in '?([\d.]+)'? sec")
_EXPIRED = ("601", "602")
_ABSENT = ("702", "1013")
"""What was asked for is not there."""
_NOT_NOW = ("608", "614")
_OPEN = ("604", "611", "713", "719")
"""It ran into something; whether before it was applied is not said of each."""
_HALTS = {
    "600": "the API user's role, or the address, is not what the request needs",
    "603": "give the API user's role this permission, and this machine's address a place on the IP allowlist",
    "605": "is base_url that of the REST endpoint?",
    "610": "is base_url that of the REST endpoint?",
    "612": "a proxy on the way may change the request's headers: Marketo takes application/json",
    "616": "the subscription has no such API",
    "703": "the subscription has no such feature",
    "1006": "a field was renamed or removed: `backhaul check` compares the mapping with Marketo",
    "1011": "identify by a field that Marketo can search by",
    "1018": "a CRM is connected, which has these records in its own hands",
    "1026": "custom objects are not enabled for this subscription",
}
FIXES = {
    "1003": "mend the value in the model: Marketo does not take it for this field",
    "1007": "merge the leads in Marketo, or identify by a field that only one lead has",
    "1008": "give the API user's role the workspace of this partition",
    "1010": "the lead is in another partition: leave the row out, or set `partition`",
    "1021": "company fields cannot be set through leads: leave them out of the mapping",
    "import": "mend the value in the model: Marketo's import does not take the row, for the reason that it gives",
    "comma": "Marketo takes values in lists with commas between: leave the comma out of the identifier",
}
"""By a reason's code."""
REFUSALS = refusal_table(
    record=("1001", "1002", "1003", "1004", "1005", "1007", "1008", "1010", "1015", "1020", "1021", "1022", "1036", "609",
            "skipped", "import",
            "comma"),
    configuration=_HALTS,
    capacity=("607", "1029"),
    transient=("604", "606", "608", "611", "614", "615", "713", "719", "1016", "1019"),
    credential=_EXPIRED,
)  # fmt: skip
_LATER = ("1016", "1019")
"""Not applied because of imports that go on: said of a record, or of one more import."""
_QUEUE = 30.0
"""Seconds after which another import may have come to its end."""
_DONE = ("created", "updated", "deleted", "added", "removed")


def classify(answer: Answer) -> BackhaulError | None:
    """What an answer means for the request as a whole; None where it succeeded, is not understood, or says that something is
    not there."""
    if answer.status != 200:
        return classify_status(answer)
    code, said = _error(answer)
    if not code or code in _ABSENT:
        return None
    text = f"{code}: {said}"
    if code in _EXPIRED:
        return Expired(f"Marketo does not accept the access token any more ({text})")
    if code == "606":
        return Throttled(text, code=code, after=_window(said))
    if code == "607":
        return Throttled(text, code=code, after=answer.until_midnight(_CENTRAL))
    if code == "615":
        return Throttled(text, code=code)
    if code in _HALTS:
        return Halt(f"Marketo refuses this: {text}", hint=_HALTS[code])
    if code in _LATER:
        return Throttled(text, code=code, after=_QUEUE)
    if code in _NOT_NOW:
        return NotApplied(text, code=code)
    refused = code not in _OPEN and code[:1] in "71" and len(code) in (3, 4)
    return Refused(text, code=code) if refused or code == "609" else Unsettled(text, code=code)


def _error(answer: Answer) -> tuple[str, str]:
    """The code and the words of the first error; '' where the answer is not `success: false`."""
    body = answer.members()
    if body.get("success") is not False:
        return "", ""
    errors = body.get("errors") or [{}]
    first = errors[0] if isinstance(errors, list) and isinstance(errors[0], dict) else {}
    return str(first.get("code") or "?"), str(first.get("message") or "no message")


def _window(said: str) -> float:
    found = _SECONDS.search(said)
    return float(found[1]) if found else _WINDOW


def left_today(answer: Answer, quota: int, ours: Callable[[int, int], int]) -> Mapping[float, Left]:
    """What the instance has left of a day of so many calls, where an answer says how many all its callers have made (guide:
    Usage). No other answer says anything of it."""
    found = answer.members().get("result") if b'"users"' in answer.body else None
    today = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    total = today.get("total")
    if not isinstance(total, int) or not isinstance(today.get("users"), list):
        return {}
    return {DAY: Left(ours(max(quota - total, 0), quota), answer.until_midnight(_CENTRAL))}


def page(answer: Answer) -> tuple[list[dict[str, Any]], str]:
    """What was found, and the token of the next page, '' where there is none; nothing where Marketo says that it is not there.

    Raises:
        Unsettled: the answer is of another form.
    """
    code, _ = _error(answer)
    if code in _ABSENT:
        return [], ""
    body = answer.json()
    if not isinstance(body, dict) or body.get("success") is not True:
        raise Unsettled("Marketo's answer does not say whether it succeeded")
    found = body.get("result") or []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise Unsettled("Marketo's answer has no list of results")
    more = bool(found) and body.get("moreResult") is not False
    return found, str(body.get("nextPageToken") or "") if more else ""


def results(answer: Answer) -> list[dict[str, Any]]:
    """One result for each record.

    Raises:
        Halt: what was to be written to is not there.
        Unsettled: the answer is of another form.
    """
    code, said = _error(answer)
    if code:
        raise Halt(f"Marketo has no such object or list ({code}: {said})")
    return page(answer)[0]


Read = Callable[[str, Item], Outcome | None]
"""A result, and the key of the record that it is about."""


def reading(gone: Collection[str], id_field: str = "id") -> Read:
    """How a result is read; `gone`: codes that say that the record itself is not there."""

    def read(key: str, item: Item) -> Outcome | None:
        status = item.get("status")
        if status in _DONE:
            own = item.get(id_field)
            return Delivered(key, None if own is None else str(own), status == "created")
        if status != "skipped":
            return None
        reasons = [reason for reason in item.get("reasons") or () if isinstance(reason, dict)]
        code = str(reasons[0].get("code")) if reasons else "skipped"
        said = "; ".join(str(reason.get("message")) for reason in reasons) or "skipped without a reason"
        if code in gone:
            return Gone(key, code, said)
        refused = code == "skipped" or (len(code) == 4 and code.startswith("1") and code not in _LATER)
        return Rejected(key, code, said) if refused else Retry(key, f"{code}: {said}")

    return read


def by_place(
    found: Sequence[Item], keys: Sequence[str], read: Read, ids: Sequence[str] = ()
) -> list[Outcome]:
    """Outcomes of results that are in the order of the records. Where there are not as many, places say nothing; a result with
    another id than was sent (`ids`) says nothing of its record."""
    if len(found) != len(keys):
        return []
    outcomes = [
        None if ids and str(item.get("id", ids[place])) != ids[place] else read(keys[place], item)
        for place, item in enumerate(found)
    ]
    return [outcome for outcome in outcomes if outcome is not None]


def by_number(found: Sequence[Item], keys: Sequence[str], read: Read) -> list[Outcome]:
    """Outcomes of results that say themselves, by `seq`, which record they are about."""
    named = {item.get("seq"): item for item in found}
    outcomes = [read(key, named[place]) for place, key in enumerate(keys) if place in named]
    return [outcome for outcome in outcomes if outcome is not None]


def by_id(found: Sequence[Item], ids: Mapping[str, str], read: Read) -> list[Outcome]:
    """Outcomes of results that name their lead; `ids` are those of the keys."""
    named = {str(item.get("id")): item for item in found}
    outcomes = [read(key, named[own]) for key, own in ids.items() if own in named]
    return [outcome for outcome in outcomes if outcome is not None]
