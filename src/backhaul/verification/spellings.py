"""Values that a destination stores otherwise than they were sent, such as `R&amp;D` for `R&D`.

A difference is sent again once. Where the read-back after that shows the same difference, it is how the destination spells
the value: it is remembered with the record in the ledger, named once, and not sent again until the value changes. A field
that lost its value, or still holds the value from before, is no spelling: such a record stays a difference. Null for an
empty text, or the other way round, is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import orjson
import pyarrow as pa

from backhaul.changes import Stage, code
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.ledger import ALIAS, LedgerView
from backhaul.mapping.mapping import Mapping
from backhaul.types import Mode
from backhaul.verification.verify import Expected, Mismatch, Verified, mark_doubtful

_SHOWN = 120
"""Characters that are kept of a value, to be shown."""
Spelled = dict[str, dict[str, Any]]
"""By field: digests of what was sent (`of`) and of what is held (`as`), both to be shown where values are kept, whether the
spelling is `known`, and whether it was held `before` another value was sent."""


def take_verified(
    view: LedgerView, mapping: Mapping, checked: Sequence[Expected], verified: Verified, mode: Mode
) -> Verified:
    """Marks records that differ to be sent again, in a ledger to write; an insert never changes a record, so only one that is
    not there is marked. Returns what `without_spellings` does."""
    view.upgrade()
    judged, spelled = without_spellings(view, mapping, checked, verified)
    _store(view, mapping, spelled)
    wrong = [one for one in judged.mismatches if one.missing or mode is not Mode.INSERT]
    if wrong:
        keys = [mismatch.pk for mismatch in wrong]
        mark_doubtful(view, mapping, keys)
    return judged


def without_spellings(
    view: LedgerView, mapping: Mapping, checked: Sequence[Expected], verified: Verified
) -> tuple[Verified, dict[str, Spelled]]:
    """What was read back without the spellings that are known, and what is to be remembered by key (JSON)."""
    known = _load(view, mapping)
    differing = {mismatch.pk: mismatch for mismatch in verified.mismatches}
    wrong, respelled, spelled = list[Mismatch](), list[Mismatch](), dict[str, Spelled]()
    for record in checked:
        was, resent = known.get(record.pk, ({}, False))
        mismatch = differing.get(record.pk)
        now = _judge(record, mismatch, was, resent)
        if now != was:
            spelled[record.pk] = now
        if mismatch is None:
            continue
        real = {name: pair for name, pair in mismatch.fields.items() if not now.get(name, {}).get("known")}
        if mismatch.missing or real:
            wrong.append(replace(mismatch, fields=real))
        elif any(not was[name]["known"] for name in mismatch.fields):
            respelled.append(mismatch)
    return replace(verified, mismatches=tuple(wrong), respelled=tuple(respelled)), spelled


def _judge(record: Expected, mismatch: Mismatch | None, was: Spelled, resent: bool) -> Spelled:
    """What is remembered of a record that was read back; `resent`: since `was` was written."""
    found: Spelled = {}
    for name, (sent, held) in (mismatch.fields if mismatch else {}).items():
        entry = was.get(name, {})
        digests = {"of": _digest(sent), "as": _digest(held)}
        if digests.items() <= entry.items():
            found[name] = {**entry, "known": entry["known"] or (resent and not entry["before"])}
        elif _is_empty(sent) == _is_empty(held):
            before = not _is_empty(held) and digests["as"] in (
                entry.get("as"),
                _digest(record.before.get(name)),
            )
            shown = {"sent": _shown(sent), "held": _shown(held)}
            found[name] = {**digests, **shown, "before": before, "known": False}
    return found


def unsettled_spellings(view: LedgerView | None, mapping: Mapping, most: int) -> list[str]:
    """Keys (JSON) of acknowledged records with a difference that was seen once and is not judged."""
    if view is None or view.empty or view.format < 3:
        return []
    rows = view.engine.execute(
        f"SELECT {key_json(mapping)} FROM {ALIAS}.acked WHERE _spelled LIKE '%\"known\":false%' "
        f"AND _state = {code(Stage.ACKNOWLEDGED)} LIMIT {most}"
    ).fetchall()
    return [key for (key,) in rows]


def has_spellings(view: LedgerView | None) -> bool:
    """Whether any difference is remembered."""
    if view is None or view.empty or view.format < 3:
        return False
    return bool(
        view.engine.execute(f"SELECT 1 FROM {ALIAS}.acked WHERE _spelled IS NOT NULL LIMIT 1").fetchall()
    )


def known_spellings(text: str | None) -> dict[str, list[str]]:
    """Field -> [what was sent, how the destination stores it], of a ledger row's `_spelled`."""
    spelled: Spelled = orjson.loads(text) if text else {}
    return {name: [entry["sent"], entry["held"]] for name, entry in spelled.items() if entry["known"]}


def describe_spellings(destination: str, verified: Verified) -> str:
    """One sentence on spellings that became known, with an example."""
    one = verified.respelled[0]
    name, pair = next(iter(one.fields.items()))
    sent, held = map(_shown, pair)
    count = len(verified.respelled)
    records = "1 record" if count == 1 else f"{count:,} records"
    return (
        f"{destination} stores values of {records} in its own spelling, for example {name}: {sent!r} as {held!r}; "
        f"they are accepted, and not sent again until they change"
    )


def _load(view: LedgerView, mapping: Mapping) -> dict[str, tuple[Spelled, bool]]:
    """What is remembered of records by key (JSON), and whether each was acknowledged again since."""
    if view.empty or view.format < 3:
        return {}
    rows = view.engine.execute(
        f"SELECT {key_json(mapping)}, _spelled, _state = {code(Stage.ACKNOWLEDGED)} FROM {ALIAS}.acked "
        f"WHERE _spelled IS NOT NULL"
    ).fetchall()
    return {key: (orjson.loads(text), settled) for key, text, settled in rows}


def _store(view: LedgerView, mapping: Mapping, spelled: dict[str, Spelled]) -> None:
    if not spelled:
        return
    if view.meta.get("values") == "no":
        plain = ("sent", "held")
        spelled = {
            key: {name: {**entry, **dict.fromkeys(plain, "")} for name, entry in fields.items()}
            for key, fields in spelled.items()
        }
    table = pa.table({
        "pk": pa.array(list(spelled), pa.string()),
        "text": pa.array([orjson.dumps(one).decode() if one else None for one in spelled.values()], pa.string()),
    })  # fmt: skip
    view.engine.register("spelled_now", table)
    keys = ", ".join(key.column for key in mapping.keys)
    view.touch(f"SELECT {keys} FROM {ALIAS}.acked WHERE {key_json(mapping)} IN (SELECT pk FROM spelled_now)")
    view.engine.execute(
        f"UPDATE {ALIAS}.acked SET _spelled = s.text FROM spelled_now AS s WHERE s.pk = {key_json(mapping, 'acked.')}"
    )
    view.engine.unregister("spelled_now")


def _is_empty(value: Any) -> bool:
    return value in (None, "", [], {})


def _digest(value: Any) -> str:
    return blake2b(orjson.dumps(value, default=str), digest_size=12).hexdigest()


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
