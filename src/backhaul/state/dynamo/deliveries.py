"""Statements about what is on its way and what became of it. Lists are rows of values, as the journal gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backhaul.state.dynamo.table import Item, Table, Write, delete, put

Values = Mapping[str, Any]
Rows = Sequence[Sequence[Any]]
_INTENT = ("low", "high", "op", "idempotency_key", "at", "job", "encoding", "clock")
_OUTCOME = ("low", "high", "remote_ids", "rejected", "unknown", "pending", "left_at", "answered_at",
            "reasons")  # fmt: skip


def _row(low: int) -> str:
    return f"{low:012d}"


def intend(table: Table, rows: Rows) -> list[Write]:
    return [
        put(f"plan/{plan}", f"intent/{_row(rest[0])}", dict(zip(_INTENT, rest, strict=True)))
        for plan, *rest in rows
    ]


def settle(table: Table, rows: Rows) -> list[Write]:
    return [
        put(f"plan/{plan}", f"outcome/{_row(rest[0])}", dict(zip(_OUTCOME, rest, strict=True)))
        for plan, *rest in rows
    ]


def end_intent(table: Table, rows: Rows) -> list[Write]:
    return [delete(f"plan/{plan}", f"intent/{_row(low)}") for plan, low in rows]


def intents(table: Table, given: Values) -> list[Item]:
    return list(table.query(f"plan/{given['plan']}", "intent/"))


def outcomes(table: Table, given: Values) -> list[Item]:
    return list(table.query(f"plan/{given['plan']}", "outcome/"))


def answers(table: Table, given: Values) -> list[Item]:
    held = list(_holding(table, given, "outcome/"))
    return [min(held, key=lambda item: item["high"] - item["low"])] if held else []


def intent_of(table: Table, given: Values) -> list[Item]:
    return list(_holding(table, given, "intent/"))


def _holding(table: Table, given: Values, kind: str) -> Iterator[Item]:
    row = given["row"]
    return (item for item in table.query(f"plan/{given['plan']}", kind) if item["low"] <= row < item["high"])


def drop_plan_intents(table: Table, given: Values) -> list[Write]:
    return [delete(item["pk"], item["sk"]) for item in table.query(f"plan/{given['id']}", "intent/")]


def drop_plan_outcomes(table: Table, given: Values) -> list[Write]:
    return [delete(item["pk"], item["sk"]) for item in table.query(f"plan/{given['id']}", "outcome/")]


READS = {"intents": intents, "outcomes": outcomes, "answers": answers, "intent_of": intent_of}
WRITES = {"drop_plan_intents": drop_plan_intents, "drop_plan_outcomes": drop_plan_outcomes}
LISTS = {"intend": intend, "settle": settle, "end_intent": end_intent}
