"""Queries of the simulated org: SELECT fields FROM one object, WHERE fields equal or are IN values, LIMIT."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backhaul.sandbox.salesforce.answers import Whole
from backhaul.sandbox.salesforce.field import NUMBERS
from backhaul.sandbox.salesforce.store import Record, SObject

_QUERY = re.compile(
    r"\s*SELECT\s+(?P<fields>(?:[\w., ]|TYPEOF.+?END)+?)\s+FROM\s+(?P<object>\w+)(\s+WHERE\s+(?P<where>.+?))?"
    r"(\s+LIMIT\s+(?P<limit>\d+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_TYPEOF = re.compile(r"TYPEOF\s+(\w+)\s+(WHEN.+?)\s*END", re.IGNORECASE | re.DOTALL)
_VALUE = r"'(?:[^'\\]|\\.)*'|-?\d+(?:\.\d+)?|null|true|false"
_CONDITION = re.compile(
    rf"\s*(\w+)\s*(?:=\s*({_VALUE})|IN\s*\(((?:\s*(?:{_VALUE})\s*,?)+)\))\s*", re.IGNORECASE
)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


@dataclass(frozen=True, slots=True)
class Query:
    fields: tuple[str, ...]
    kind: SObject
    conditions: tuple[tuple[str, tuple[Any, ...]], ...]
    limit: int | None

    def records(self) -> list[Record]:
        found = list(self.kind.records.values())
        for number, (name, values) in enumerate(self.conditions):
            if number == 0:
                every = {
                    r.id: r for value in values if value is not None for r in self.kind.matching(name, value)
                }
                found = list(every.values())
            else:
                kept = {
                    r.id for value in values if value is not None for r in self.kind.matching(name, value)
                }
                found = [record for record in found if record.id in kept]
        return found[: self.limit]


def parse(text: str, kinds: Mapping[str, SObject]) -> Query:
    """Raises: Whole."""
    match = _QUERY.fullmatch(text)
    if match is None:
        raise Whole("MALFORMED_QUERY", f"unexpected token: '{text[:40]}'")
    kind = kinds.get(match["object"])
    if kind is None:
        raise Whole(
            "INVALID_TYPE",
            f"sObject type '{match['object']}' is not supported. If you are attempting to use a custom object, be sure to "
            "append the '__c' after the entity name.",
        )
    fields = tuple(_fields(match["fields"]))
    for name in fields:
        target, _, path = name.rpartition(":")
        relationship, dot, inner = path.partition(".")
        if dot:
            targets = kind.reference(relationship).targets
            if len(targets) > 1 and not target:
                raise Whole("INVALID_FIELD", f"No such column '{inner}' on entity 'Name'")
            kinds[target or targets[0]].known(inner)
        else:
            kind.known(name)
    conditions = tuple(_conditions(match["where"] or "", kind))
    return Query(fields, kind, conditions, int(match["limit"]) if match["limit"] else None)


def _fields(text: str) -> Iterator[str]:
    """The names in a SELECT; those of a TYPEOF as `Contact:Who.External_Id__c`."""
    for relationship, cases in _TYPEOF.findall(text):
        for target, names in re.findall(
            r"WHEN\s+(\w+)\s+THEN\s+([\w., ]+?)\s*(?=WHEN|$)", cases, re.IGNORECASE
        ):
            yield from (f"{target}:{relationship}.{name.strip()}" for name in names.split(","))
    yield from filter(None, (name.strip() for name in _TYPEOF.sub("", text).split(",")))


def _conditions(text: str, kind: SObject) -> list[tuple[str, tuple[Any, ...]]]:
    found, place = [], 0
    while place < len(text):
        match = _CONDITION.match(text, place)
        if match is None:
            raise Whole("MALFORMED_QUERY", f"unexpected token: '{text[place : place + 40]}'")
        name, one, several = match.groups()
        values = re.findall(_VALUE, one or several, re.IGNORECASE)
        found.append((name, tuple(_value(kind, name, value) for value in values)))
        place = match.end()
        joined = re.compile(r"AND\s", re.IGNORECASE).match(text, place)
        if place < len(text) and joined is None:
            raise Whole("MALFORMED_QUERY", f"unexpected token: '{text[place : place + 40]}'")
        place = joined.end() if joined else place
    return found


def _value(kind: SObject, name: str, text: str) -> Any:
    """Raises: Whole where the value is of another type than the field."""
    field, quoted = kind.known(name), text.startswith("'")
    if text.lower() == "null":
        return None
    if quoted is not (field.type not in (*NUMBERS, "boolean", "date", "datetime")):
        should = "should not" if quoted else "should"
        raise Whole(
            "INVALID_FIELD",
            f"value of filter criterion for field '{name}' must be of type {field.type} and {should} be enclosed in quotes",
        )
    return (
        re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text[1:-1], flags=re.DOTALL) if quoted else text
    )
