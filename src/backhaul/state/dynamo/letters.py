"""Statements about dead letters: one item a record, under its scope and key."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backhaul.state.dynamo.table import Item, Table, Write, change, delete

Values = Mapping[str, Any]
Rows = Sequence[Sequence[Any]]
_LONG = 900
"""Bytes of a key, beyond which its hash stands for it: a sort key has at most 1,024."""
_LARGE = 300_000
"""Bytes of a payload that is kept: an item has at most 400 KB."""
_MORE = 1000
"""Letters that are sealed anew at once."""
_REFUSALS = 5
_NAMES = ("scope", "key", "op", "code", "message", "attempts", "first_failed_at", "last_failed_at", "payload", "hash",
          "by_mapping", "plan", "field", "seal", "class", "tries", "status", "mapping", "shape")  # fmt: skip
_OPEN, _CLOSED = ("dead", "replay", "waiting"), ("discarded", "expired")
_EMPTY = {"message": "", "payload": "", "seal": "", "shape": ""}
_GROUPED = ("sk", "id", "scope", "code", "field", "shape", "status", "first_failed_at", "last_failed_at")
_THERE = "attribute_exists(pk)"


def _place(scope: str, key: str) -> str:
    short = (
        key
        if len(key.encode("utf-8", "replace")) <= _LONG
        else f"#{hashlib.sha256(key.encode()).hexdigest()}"
    )
    return f"{scope}/{short}"


def bury(table: Table, rows: Rows) -> list[Write]:
    letters: dict[str, dict[str, Any]] = {}
    for row in rows:
        letter = dict(zip(_NAMES, row, strict=True))
        place = _place(letter["scope"], letter["key"])
        if earlier := letters.get(place):
            letter["attempts"] += earlier["attempts"]
            letter["first_failed_at"] = earlier["first_failed_at"]
        letters[place] = letter
    number = table.numbers("letters", len(letters)) if letters else 0
    return [_burial(place, letter, number + at) for at, (place, letter) in enumerate(letters.items())]


def _burial(place: str, letter: dict[str, Any], number: int) -> Write:
    if len(letter["payload"].encode("utf-8", "replace")) > _LARGE:
        letter |= {"payload": "", "seal": ""}  # it is read from the plan, as long as that is kept
    first = {"first_failed_at": letter.pop("first_failed_at"), "id": number}
    attempts = {"attempts": letter.pop("attempts")}
    return change("letters", place, letter, first=first, add=attempts)


def raise_(table: Table, rows: Rows) -> list[Write]:
    return [delete("letters", _place(scope, key)) for scope, key in rows]


def void_refusals(table: Table, given: Values) -> list[Write]:
    plan = table.get(f"plan/{given['plan']}", "plan")
    return [
        delete("letters", item["sk"])
        for item in table.query("letters", f"{plan['scope']}/" if plan else "")
        if (item["plan"], item["code"], item["by_mapping"]) == (given["plan"], given["code"], 0)
        and item["first_failed_at"] == item["last_failed_at"]
    ]


def replay_letters(table: Table, rows: Rows) -> list[Write]:
    return [_changed(item, {"status": "replay"}) for item in _numbered(table, [row[0] for row in rows])]


def return_letters(table: Table, given: Values) -> list[Write]:
    return [
        _changed(item, {"status": "dead"}) for item in letters(table, given) if item["status"] == "replay"
    ]


def discard_letters(table: Table, rows: Rows) -> list[Write]:
    found = _numbered(table, [row[0] for row in rows])
    return [_changed(item, {"status": "discarded", **_EMPTY}) for item in found]


def expire_letters(table: Table, given: Values) -> list[Write]:
    return [
        _changed(item, {"status": "expired", **_EMPTY})
        for item in letters(table, given)
        if item["status"] == "dead" and item["last_failed_at"] < given["before"]
    ]


def seal_letters(table: Table, rows: Rows) -> list[Write]:
    fresh = {row[0]: row[1:] for row in rows}
    return [
        _changed(item, {"message": message, "payload": payload, "seal": seal})
        for item in _numbered(table, list(fresh))
        for was, message, payload, seal in [fresh[item["id"]]]
        if item["seal"] == was
    ]


def _changed(item: Item, values: Mapping[str, Any]) -> Write:
    return replace(change("letters", item["sk"], values, condition=_THERE), told=Item(id=item["id"]))


def _numbered(table: Table, numbers: Iterable[int]) -> list[Item]:
    """The letters of these numbers, wherever they are."""
    wanted = set(numbers)
    if not wanted <= table.letters.keys():
        _remember(table, table.query("letters"))
    found = table.all_of(("letters", table.letters[number]) for number in wanted & table.letters.keys())
    return sorted((item for item in found.values() if item["id"] in wanted), key=lambda item: int(item["id"]))


def _remember(table: Table, items: Iterable[Item]) -> list[Item]:
    kept = list(items)
    table.letters.update({item["id"]: item["sk"] for item in kept})
    return kept


def letters(table: Table, given: Values) -> list[Item]:
    return _remember(table, table.query("letters", f"{given['scope']}/"))


def refused(table: Table, given: Values) -> list[Item]:
    return [item for item in letters(table, given) if item["status"] not in ("replay", "waiting")]


def dead_keys(table: Table, given: Values) -> list[Item]:
    return [item for item in letters(table, given) if item["status"] != "waiting"]


def letter_of(table: Table, given: Values) -> list[Item]:
    found = table.get("letters", _place(given["scope"], given["key"]))
    return [found] if found else []


def with_status(statuses: Sequence[str]) -> Callable[[Table, Values], list[Item]]:
    """Reads the letters in any of these states, of one scope or all, or the one of a number."""

    def read(table: Table, given: Values) -> list[Item]:
        scope, number = given["scope"], given["id"]
        known = _remember(table, table.query("letters", f"{scope}/" if scope is not None else ""))
        found = [item for item in known if item["status"] in statuses and number in (None, item["id"])]
        return sorted(found, key=lambda item: (item["scope"], item["id"]))

    return read


def _fitting(table: Table, given: Values, names: Sequence[str] = ()) -> list[Item]:
    """Letters of a scope or of all, with everything that is asked for; `names`: only these values are read."""
    prefix = f"{given['scope']}/" if given.get("scope") is not None else ""
    wanted = {name: given[name] for name in ("id", "code", "field", "shape") if given.get(name) is not None}
    closed = given.get("closed")
    return [
        item
        for item in _remember(table, table.query("letters", prefix, names=names))
        if all(item[name] == value for name, value in wanted.items())
        and (closed is None or (item["status"] in _CLOSED) == bool(closed))
    ]


def chosen_letters(table: Table, given: Values) -> list[Item]:
    found = sorted(_fitting(table, given), key=lambda item: (item["scope"], item["id"]))
    return found[: given["limit"]]


def letter_numbers(table: Table, given: Values) -> list[Item]:
    return [Item(id=number) for number in sorted(item["id"] for item in _fitting(table, given, _GROUPED))]


def letter_groups(table: Table, given: Values) -> list[Item]:
    groups: dict[tuple[Any, ...], list[Item]] = {}
    for item in _fitting(table, {"closed": 0}, _GROUPED):
        groups.setdefault((item["scope"], item["code"], item["field"], item["shape"]), []).append(item)
    found = [
        Item(
            scope=scope, code=code, field=field, shape=shape, letters=len(items), id=min(item["id"] for item in items),
            first_failed_at=min(item["first_failed_at"] for item in items),
            last_failed_at=max(item["last_failed_at"] for item in items),
        )
        for (scope, code, field, shape), items in groups.items()
    ]  # fmt: skip
    found.sort(key=lambda group: int(group["id"]))
    return sorted(found, key=lambda group: str(group["last_failed_at"]), reverse=True)


def seals(table: Table, given: Values) -> list[Item]:
    counts = Counter(item["seal"] for item in letters(table, given) if item["status"] == "dead")
    return [Item(seal=seal, letters=counts[seal]) for seal in sorted(counts) if seal not in ("", "plain")]


def letters_to_seal(table: Table, given: Values) -> list[Item]:
    done = ("", given["seal"])
    found = [item for item in letters(table, given) if item["status"] == "dead" and item["seal"] not in done]
    return sorted(found, key=lambda item: int(item["id"]))[:_MORE]


def refusals_of(table: Table, given: Values) -> list[Item]:
    groups: dict[tuple[str, str | None, str], list[int]] = {}
    for item in letters(table, given):
        if item["plan"] == given["plan"] and item["status"] == "dead":
            groups.setdefault((item["code"], item["field"], item["class"]), []).append(item["id"])
    found = [
        Item(code=code, field=field, **{"class": kind}, records=len(ids), id=min(ids))
        for (code, field, kind), ids in groups.items()
    ]
    return sorted(found, key=lambda group: (-group["records"], group["code"], group["field"] or ""))[
        :_REFUSALS
    ]


READS = {
    "refused": refused,
    "letters": letters,
    "dead_keys": dead_keys,
    "letter_of": letter_of,
    "dead_letters": with_status(_OPEN),
    "closed_letters": with_status(_CLOSED),
    "chosen_letters": chosen_letters,
    "letter_numbers": letter_numbers,
    "letter_groups": letter_groups,
    "seals": seals,
    "letters_to_seal": letters_to_seal,
    "refusals_of": refusals_of,
}
WRITES = {"void_refusals": void_refusals, "return_letters": return_letters, "expire_letters": expire_letters}
LISTS = {
    "bury": bury,
    "raise": raise_,
    "replay_letters": replay_letters,
    "discard_letters": discard_letters,
    "seal_letters": seal_letters,
}
