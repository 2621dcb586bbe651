"""What Iterable's answers say, record by record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from backhaul.destinations.kit import Answer, Batch, inner
from backhaul.errors import Halt, Refused, Unsettled
from backhaul.types import Delivered, Gone, Op, Outcome, Rejected

WHO = ("email", "userId")
"""What a person goes by."""
_SAID = {
    "invalid": "Iterable does not take this address or user id",
    "notFound": "Iterable has no such user, and does not make one",
    "forgotten": "Iterable was told to forget this user, and takes nothing of it",
    "conflict": "address and user id belong to different users",
    "invalidData": "Iterable does not take a value of this record",
}


def member(answer: Answer, name: str, kind: type) -> Any:
    """Raises: Unsettled: the answer has no such member."""
    body = answer.json()
    found = body.get(name) if isinstance(body, dict) else None
    if not isinstance(found, kind):
        raise Unsettled(f"Iterable's answer has no {name}")
    return found


def code(answer: Answer) -> str:
    return str(answer.members().get("code") or "")


def outcomes(batch: Batch, answer: Answer) -> Iterator[Outcome]:
    """Iterable names those that failed, by address or user id, and counts the others: only a count that is theirs makes them
    delivered.

    Raises:
        Unsettled: the answer is of another form.
        Halt: the project does not take events of this name.
        Refused: of several records of one person some failed, and nobody knows which.
    """
    counted = member(answer, "successCount", int)
    body = answer.json()
    if disallowed := body.get("disallowedEventNames"):
        raise Halt(f"the project does not take events named {disallowed[0]!r}", hint="allow it in Iterable")
    failed = dict(_failed(batch, body))
    for key, reason in failed.items():
        gone = batch.op is Op.DELETE and reason == "notFound"
        yield (Gone if gone else Rejected)(key, reason, _SAID.get(reason, f"Iterable says {reason}"))
    if counted + len(failed) != len(batch):
        return
    dropped = list(body.get("filteredOutFields") or ())
    for key, record in zip(batch.keys, batch.records(), strict=True) if dropped else ():
        if key not in failed and (
            lost := [name for name in dropped if inner(record, *name.split(".")) is not None]
        ):
            failed[key] = "filteredOutFields"
            yield Rejected(
                key,
                "filteredOutFields",
                f"Iterable left out {', '.join(lost)}: the project has no such field",
            )
    for key in batch.keys:
        if key not in failed:
            yield Delivered(key)


def _failed(batch: Batch, body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and reason of each record that failed."""
    sent: dict[tuple[str, str], list[str]] = {}
    for key, record in zip(batch.keys, batch.records(), strict=True):
        for who in WHO:
            if value := record.get(who):
                sent.setdefault((who, _fold(who, value)), []).append(key)
    for name, values in {**body, **(body.get("failedUpdates") or {})}.items():
        for who, ending in (("email", "Emails"), ("userId", "UserIds")):
            reason = name.removesuffix(ending)
            if reason != name and reason != "noOp" and isinstance(values, list):
                for value, count in Counter(_fold(who, value) for value in values).items():
                    keys = sent.get((who, value), ())
                    if count < len(keys):
                        raise Refused(f"{count} of {len(keys)} records of one person failed", code=reason)
                    yield from ((key, reason) for key in keys)


def _fold(who: str, value: Any) -> str:
    return str(value).lower() if who == "email" else str(value)
