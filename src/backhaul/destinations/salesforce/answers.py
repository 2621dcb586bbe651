"""What Salesforce's answers say: of each record, and of the request as a whole.

Shapes are recorded ones: an error of a request is a list of `errorCode` and `message`; an answer to a collection has one
result a record in the order of the request (REST API guide: sObject Collections), whose errors have a `statusCode`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from backhaul.destinations.kit import Answer, class_of, classify_status, refusal_table, said_by
from backhaul.errors import BackhaulError, Expired, Halt, NotApplied, Refused, Throttled
from backhaul.types import Delivered, Gone, Left, Outcome, Outcomes, RefusalClass, Rejected, Retry

DAY = 86_400.0
"""Seconds of the quota, a rolling window."""
_USED_UP = 5400.0
"""Seconds after which a quota that is used up is looked at again: it frees call by call, and no answer says when. It is longer
than a run waits, so that a run ends and leaves the rest to a later one."""
_USAGE = re.compile(r"(per-app-)?api-usage=(\d+)/(\d+)")
_GONE = ("ENTITY_IS_DELETED", "NOT_FOUND")
_LACKS = "REQUIRED_FIELD_MISSING"
BUSY = ("UNABLE_TO_LOCK_ROW", "ALL_OR_NONE_OPERATION_ROLLED_BACK", "PROCESSING_HALTED", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT",
        "UNKNOWN_EXCEPTION")  # fmt: skip
"""Codes of a record that was not applied, and may be later."""
_BUSY_WORDS = ("unable to obtain exclusive access to this record", "Too many SOQL queries")
"""The same, in the words of a trigger's failure (issue threads of dlrs; rudder-transformer)."""
_HALTS = {
    "API_DISABLED_FOR_ORG": "the edition or the user has no API access",
    "API_CURRENTLY_DISABLED": "ask Salesforce's support why",
    "INVALID_AUTH_HEADER": "check the destination's credentials in backhaul.yml",
    "INVALID_TYPE": "give the object's API name, custom ones end in __c; the app's user must be allowed to see it",
    "UNSUPPORTED_API_VERSION": "set api_version to one that the org offers",
}
FIXES = {
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": "a validation rule of your org says no: mend the value, or leave the row out",
    "DUPLICATES_DETECTED": "a duplicate rule says no: merge the records, or set save_duplicates: true where it only warns",
    "DUPLICATE_VALUE": "another record has this value of a unique field: make it unique in the model, or merge the two",
    "CLEARING_TEXT": "write another text in the model, or set bulk_above higher than a plan has rows",
    "DUPLICATE_EXTERNAL_ID": "make the external id field unique in Salesforce, and merge the records that share it",
    "INVALID_FIELD_FOR_INSERT_UPDATE": "give the app's user the right to edit the field, or take it out of the mapping",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": "send a value of the picklist (its API name), or add it in Salesforce",
    "CANNOT_UPDATE_CONVERTED_LEAD": "the lead was converted: leave the row out, or sync to the contact",
    "NOT_FOUND": "it was deleted in Salesforce: use mode upsert to have it made again, or leave the row out",
}
"""By an error's code."""
REFUSALS = refusal_table(
    record=(
        "CANNOT_EXECUTE_FLOW_TRIGGER", "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", "CANNOT_UPDATE_CONVERTED_LEAD", "CLEARING_TEXT",
        "DELETE_FAILED", "DUPLICATES_DETECTED", "DUPLICATE_EXTERNAL_ID", "ENTITY_IS_DELETED", "ENTITY_IS_LOCKED",
        "FIELD_CUSTOM_VALIDATION_EXCEPTION", "FIELD_FILTER_VALIDATION_EXCEPTION", "FIELD_INTEGRITY_EXCEPTION",
        "INACTIVE_OWNER_OR_USER",
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY", "INSUFFICIENT_ACCESS_OR_READONLY", "INVALID_EMAIL_ADDRESS",
        "INVALID_ID_FIELD",
        "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST", "JSON_PARSER_ERROR", "MALFORMED_ID", "NOT_FOUND", "NUMBER_OUTSIDE_VALID_RANGE",
        "REQUIRED_FIELD_MISSING", "STRING_TOO_LONG",
    ),
    configuration=("INVALID_FIELD", "INVALID_FIELD_FOR_INSERT_UPDATE", *_HALTS),
    capacity=("LICENSE_LIMIT_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "STORAGE_LIMIT_EXCEEDED"),
    reference_missing=("INVALID_CROSS_REFERENCE_KEY",),
    conflict=("DUPLICATE_VALUE",),
    transient=BUSY,
    credential=("INVALID_LOGIN", "INVALID_SESSION_ID"),
)  # fmt: skip
_SHORT_ID, _SIGNS = 15, "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_NO_PARENT = "Foreign key external ID"
"""How the words begin where a lookup's external id finds no record; the code is INVALID_FIELD."""


def classify(answer: Answer) -> BackhaulError | None:
    """What an answer means for the request as a whole. A 404 is left to who asked."""
    if 200 <= answer.status < 300 or answer.status == 404:
        return None
    code, said = _said(answer)
    if answer.status == 401 and code == "INVALID_SESSION_ID":
        return Expired("Salesforce does not accept the access token any more")
    if code == "REQUEST_LIMIT_EXCEEDED":
        used_up = "TotalRequests" in said or 0 in _left(answer)
        return Throttled(said, code=code, after=_USED_UP if used_up else None)
    if code in _HALTS:
        return Halt(f"Salesforce refuses this: {said}", hint=_HALTS[code])
    if answer.status == 300 or code in BUSY or any(words in said for words in _BUSY_WORDS):
        return Refused(said, code=code or "300") if answer.status == 300 else NotApplied(said, code=code)
    if class_of(REFUSALS, code) in (RefusalClass.CAPACITY, RefusalClass.RECORD):
        return Refused(said, code=code)  # its status is 403 too
    error = classify_status(answer, said)
    return (
        Refused(said, code=code or str(answer.status), kind=error.kind)
        if isinstance(error, Refused)
        else error
    )


def _said(answer: Answer) -> tuple[str, str]:
    """The code and the words of an error; of a 300 the records that it lists."""
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return "", f"HTTP {answer.status}: {said_by(answer)}"
    if answer.status == 300:
        return "", f"HTTP 300: several records have this external id: {orjson.dumps(body).decode()}"
    return _of_error(answer.status, body, said_by(answer))


def _of_error(status: int, body: Any, otherwise: str) -> tuple[str, str]:
    first = body[0] if isinstance(body, list) and body and isinstance(body[0], dict) else {}
    code = str(first.get("errorCode") or "")
    message = str(first.get("message") or otherwise)
    return code, f"HTTP {status}: {code}: {message}" if code else f"HTTP {status}: {message}"


def whole(status: int, body: Any) -> Refused:
    """The error that the body of a subrequest is."""
    code, said = _of_error(status, body, "refused without a message")
    return Refused(said, code=code or str(status))


def refused(answer: Answer) -> Refused:
    """The error for an answer that is none to what was asked."""
    code, said = _said(answer)
    return Refused(said, code=code or str(answer.status))


def full_id(record_id: str) -> str:
    """An id of 15 characters with the 3 that say which of them are capitals (Salesforce help: 000385585); another as it is."""
    if len(record_id) != _SHORT_ID:
        return record_id
    parts = (record_id[low : low + 5] for low in range(0, _SHORT_ID, 5))
    capitals = (sum(1 << place for place, sign in enumerate(part) if sign.isupper()) for part in parts)
    return record_id + "".join(map(_SIGNS.__getitem__, capitals))


def outcomes(answer: Answer, keys: Sequence[str]) -> Outcomes:
    """One outcome for each record, by its place. Where there are not as many results as records, their places say nothing.

    Raises:
        Refused: the answer is an error of the request.
    """
    results = answer.json()
    if answer.status == 404 or not isinstance(results, list):
        raise refused(answer)
    return Outcomes(tuple(each(results, keys)))


def each(results: Sequence[Any], keys: Sequence[str]) -> Iterator[Outcome]:
    """What the results of a collection say, by their places."""
    if len(results) != len(keys):
        return
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, dict) and "success" in result:
            yield _outcome(key, result)


def _outcome(key: str, result: Mapping[str, Any]) -> Outcome:
    if result["success"]:
        record_id = result.get("id")
        own = None if record_id is None else full_id(str(record_id))
        return Delivered(key, own, bool(result.get("created")))
    errors = [error for error in result.get("errors") or () if isinstance(error, dict)]
    codes = [str(error.get("statusCode") or error.get("errorCode") or "ERROR") for error in errors]
    said = "; ".join(str(error.get("message") or "refused without a message") for error in errors)
    fields = [str(name) for error in errors for name in error.get("fields") or ()]
    return refusal(key, codes[0] if codes else "ERROR", said or "refused without a message", fields)


def refusal(key: str, code: str, said: str, fields: Sequence[str] = ()) -> Outcome:
    """What the error of one record means. A record that its own id does not find is named by no field."""
    if code in BUSY or any(words in said for words in _BUSY_WORDS):
        return Retry(key, f"{code}: {said}")
    if code in _GONE or (code == "INVALID_CROSS_REFERENCE_KEY" and not fields):
        return Gone(key, code, said)
    named = [name for name in fields if name not in said]
    kind = RefusalClass.REFERENCE if said.startswith(_NO_PARENT) else None
    return Rejected(key, code, f"{said} ({', '.join(named)})" if named else said, kind)


def missed(parts: Sequence[str], said: Outcomes) -> Outcomes:
    """The outcomes, where a record of which only some fields were sent lacks others: it is not there any more, and was to be
    made of those fields alone."""
    changed = frozenset(parts)
    if not changed:
        return said
    return Outcomes(
        tuple(
            Gone(item.key, item.code, item.message)
            if isinstance(item, Rejected) and item.code == _LACKS and item.key in changed
            else item
            for item in said.items
        ),
        said.everything,
    )


def left(answer: Answer, ours: Callable[[int, int], int]) -> Mapping[float, Left]:
    """What `Sforce-Limit-Info` leaves of the org's quota, which others draw on as well, and of the app's own where it has one."""
    found = [rest if own else ours(rest, most) for own, rest, most in _usages(answer)]
    return {DAY: Left(min(found), _USED_UP)} if found else {}


def _left(answer: Answer) -> list[int]:
    return [rest for _, rest, _ in _usages(answer)]


def _usages(answer: Answer) -> Iterator[tuple[bool, int, int]]:
    """Of each quota: whether it is the app's own, what is left of it, and all of it."""
    for own, used, most in _USAGE.findall(answer.headers.get("sforce-limit-info", "")):
        yield bool(own), max(int(most) - int(used), 0), int(most)
