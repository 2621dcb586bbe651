"""One story told to every kind of state: each statement answers what SQLite answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from backhaul.state.opening import open_state
from backhaul.state.protocol import State
from backhaul.state.statements import queries


def at(minute: int) -> str:
    return f"2026-01-01T00:{minute:02d}:00.000Z"


def begun(run: str, sync: str, minute: int) -> tuple[str, Any]:
    return "start_run", {"id": run, "sync": sync, "started_at": at(minute)}


def ended(
    run: str, status: str, plan: str | None, *, incremental: int = 0, rows: int = 0, scope: str | None = "a1"
) -> tuple[str, Any]:
    return "finish_run", {"id": run, "scope": scope, "status": status, "error": None, "finished_at": at(30), "plan": plan, "rows": rows,
                          "incremental": incremental, "report": "{}" * 2000}  # fmt: skip


def planned(plan: str, scope: str, status: str, minute: int) -> tuple[str, Any]:
    return "add_plan", {"id": plan, "scope": scope, "file": f"{plan}.parquet", "header": '{"a": 1}', "status": status,
                        "created_at": at(minute)}  # fmt: skip


def letter(scope: str, key: str, code: str, plan: str, minute: int, **more: Any) -> list[Any]:
    seal, field, by_mapping = more.get("seal", ""), more.get("field"), more.get("by_mapping", 0)
    return [scope, key, "upsert", code, "nö", 2, at(minute), at(minute), "{}", f"h{key}", by_mapping, plan, field, seal, "conflict", 0, more.get("status", "dead"), f"m{minute}", more.get("shape", code)]  # fmt: skip


def chosen(**asked: Any) -> dict[str, Any]:
    return {**dict.fromkeys(("scope", "id", "code", "field", "shape")), "closed": 0, **asked}


SCOPES: Sequence[tuple[str, Any]] = [
    ("sync", {"project": "p", "name": "a"}),
    *(("keep_sync", {"id": made, "project": project, "name": name})
      for made, project, name in (("a", "p", "x"), ("b", "p", "y"), ("z", "p", "x"), ("c", "q", "x"))),
    *(("sync", {"project": project, "name": "x"}) for project in "pqr"), ("syncs", {"project": "p"}),
    ("rename_sync", {"project": "p", "was": "x", "name": "z"}), ("rename_sync", {"project": "p", "was": "nobody", "name": "w"}),
    ("syncs", {"project": "p"}), ("sync", {"project": "p", "name": "x"}), ("sync", {"project": "p", "name": "z"}),
    ("drop_sync", {"project": "p", "name": "y"}), ("syncs", {"project": "p"}), ("drop_sync", {"project": "p", "name": "nobody"}),
    *(("keep_scope", {"id": made, "project": project, "sync": sync, "account": f"hubspot:{label}", "label": label, "object": "o",
                      "place": "o", "made_at": at(minute)})
      for made, project, sync, label, minute in (("b", "p", "b", "1", 3), ("a", "p", "a", "1", 2), ("c", "q", "c", "2", 1), ("a", "p", "a", "3", 9))),
    *(("scopes", {"project": project}) for project in "pqr"),
    *(("keep_account", {"project": "p", "destination": name, "address": address, "stated": "1", "account": account, "label": "L", "at": at(minute)})
      for name, address, account, minute in (("d", "h1", "x", 3), ("d", "h2", "y", 2), ("d", "h1", "z", 4), ("d2", "", "x", 1))),
    *(("accounts", {"project": project, "destination": name}) for project, name in (("p", "d"), ("p", "d2"), ("q", "d"))),
]  # fmt: skip
RUNS: Sequence[tuple[str, Any]] = [
    begun("r1", "a", 1), begun("r2", "b", 1), begun("r3", "a", 2),
    ("interrupted_runs", {"sync": "a", "id": "r3", "at": at(3)}),
    ended("r2", "failed", None), ended("r3", "partial", "p1", rows=70), begun("r4", "a", 4),
    ended("r4", "succeeded", "p1", incremental=1, rows=9, scope=None), ended("nobody", "failed", "p1"),
    *(("runs", {"sync": sync, "limit": limit}) for sync in "abc" for limit in (1, 3, 1 << 40)),
    *(("last_full_rows", {"sync": sync, "scope": scope}) for sync in "abc" for scope in ("a1", "a2")),
    ("run", {"id": "r3"}), ("run", {"id": "r9"}), ("run_of_plan", {"plan": "p1"}), ("run_of_plan", {"plan": "p2"}),
    ("rewrite_run", {"id": "r1", "error": None, "report": "[]"}), ("rewrite_run", {"id": "r9", "error": None, "report": "[]"}),
    *(("runs_of_project", {"project": project, "limit": 9}) for project in ("p", "q", "r")),
]  # fmt: skip
PLANS: Sequence[tuple[str, Any]] = [
    planned("p1", "a", "delivering", 2), planned("p2", "a", "held", 9), planned("p3", "b", "reviewed", 8),
    planned("p0", "a", "delivering", 7), planned("p4", "a", "folded", 1),
    ("set_plan_status", {"id": "p2", "status": "reviewed"}), ("set_plan_status", {"id": "p9", "status": "held"}),
    *(("plans_with_status", {"scope": "a", "status": status}) for status in ("delivering", "held", "reviewed")),
    ("plan", {"id": "p2"}), ("plan", {"id": "p9"}), ("plans_of", {"scope": "a"}),
    *(("old_plans", {"project": project, "before": at(9)}) for project in ("p", "q")),
    ("intend", [["p1", 0, 10, "upsert", "k", at(5), None, "{}", 1.5], ["p1", 10, 20, "insert", "", at(5), "j1", "e", 2.0],
                ["p0", 0, 5, "delete", "x", at(5), None, "{}", 1.5]]),
    ("settle", [["p1", 0, 10, '["x"]', "[1]", None, None, at(5), at(6), None], ["p1", 2, 4, None, None, "[2]", "[3]", None, at(7), "[]"]]),
    *(("answers", {"plan": "p1", "row": row}) for row in (0, 3, 9, 10)),
    *(("intent_of", {"plan": "p1", "row": row}) for row in (9, 19, 20)),
    ("end_intent", [["p1", 0], ["p1", 77]]), ("intents", {"plan": "p1"}), ("outcomes", {"plan": "p1"}),
    ("keep_history", {"id": "p1", "at": at(20)}), ("keep_history", {"id": "p1", "at": at(21)}), ("keep_history", {"id": "p4", "at": at(10)}),
    ("drop_plan_intents", {"id": "p1"}), ("drop_plan", {"id": "p1"}), ("drop_plan", {"id": "p9"}), ("drop_plan", {"id": "p4"}),
    ("history", {"project": "p"}), ("history", {"project": "q"}), ("plans_of", {"scope": "a"}), ("plans_of", {"scope": "b"}), ("intents", {"plan": "p1"}), ("outcomes", {"plan": "p1"}),
    ("drop_plan_outcomes", {"id": "p1"}), ("drop_history", {"id": "p1"}), ("history", {"project": "p"}), ("history", {"project": "q"}), ("outcomes", {"plan": "p1"}),
]  # fmt: skip
LETTERS: Sequence[tuple[str, Any]] = [
    ("bury", [letter("a", "1", "bad", "p1", 1), letter("a", "2", "bad", "p1", 2, field="f"), letter("b", "1", "worse", "p3", 3), letter("b", "2", "worse", "p3", 3, status="waiting")]),
    ("bury", [letter("a", "1", "bad", "p2", 4, field="f"), letter("a", "3", "null", "p2", 4, by_mapping=1),
              letter("a", "4", "bad", "p2", 5, seal="k1"), letter("a", "5", "bad", "p2", 5, seal="k2"), letter("a", '"ü"', "bad", "p2", 1)]),
    *((name, {"scope": sync}) for name in ("letters", "refused", "dead_keys", "seals") for sync in "abc"),
    *(("dead_letters", {"scope": sync, "id": None}) for sync in (None, "a", "c")),
    ("letter_groups", ()), ("letter_numbers", chosen(closed=None)), ("letter_numbers", chosen(scope="a", code="bad", field="f")),
    ("chosen_letters", chosen(limit=2)), ("chosen_letters", chosen(scope="a", shape="bad", limit=9)),
    ("refusals_of", {"scope": "a", "plan": "p2"}), ("letters_to_seal", {"scope": "a", "seal": "k1"}),
    *(("letter_of", {"scope": "a", "key": key}) for key in ("1", "9")),
    ("replay_letters", ["a/2", "b/1"]), ("return_letters", {"scope": "b"}), ("dead_letters", {"scope": "b", "id": None}), ("discard_letters", ["a/1"]), ("seal_letters", ["a/5", "k2", "", "sealed", "k1"]),
    ("seal_letters", ["a/4", "k9", "", "sealed", "k9"]),
    ("expire_letters", {"scope": "a", "before": at(2)}), ("raise", [["a", "3"], ["a", "77"]]),
    ("void_refusals", {"plan": "p3", "code": "worse"}), ("void_refusals", {"plan": "p2", "code": "null"}),
    *((name, {"scope": None, "id": None}) for name in ("dead_letters", "closed_letters")),
    *((name, {"scope": "a"}) for name in ("letters", "refused", "seals")),
    ("letter_groups", ()), ("letter_numbers", chosen(closed=1)), ("chosen_letters", chosen(closed=1, limit=9)),
    ("refusals_of", {"scope": "a", "plan": "p2"}), ("bury", [letter("a", "1", "bad", "p4", 9)]), ("dead_letters", {"scope": "a", "id": None}),
]  # fmt: skip
FACTS: Sequence[tuple[str, Any]] = [
    ("salt", ()), ("keep_salt", {"value": b"1"}), ("keep_salt", {"value": b"2"}), ("salt", ()),
    ("bucket", {"bucket": "b"}), ("keep_bucket", {"bucket": "b", "body": b"{}"}), ("keep_bucket", {"bucket": "b", "body": b"[]"}),
    ("bucket", {"bucket": "b"}), ("boot", {"boot": "x"}), ("keep_boot", {"boot": "x", "began": 1.5}),
    ("keep_boot", {"boot": "x", "began": 2.5}), ("boot", {"boot": "x"}),
    ("schema", {"scope": "a"}), ("keep_schema", {"scope": "a", "body": "{}"}), ("keep_schema", {"scope": "a", "body": "[" * 9000}),
    ("schema", {"scope": "a"}), ("keep_ledger", {"scope": "a"}), ("keep_ledger", {"scope": "a"}), ("ledger", {"scope": "a"}),
    ("forget_ledger", {"scope": "a"}), ("ledger", {"scope": "a"}),
    *(("keep_model_schema", {"scope": "a", "version": version, "at": at(number), "taken": 1, "columns": "[]", "changes": "[]"})
      for number, version in enumerate((1, 10, 2, 2))),
    ("model_schemas", {"scope": "a"}),
    *(("keep_forgotten", {"place": "o", "sync": sync, "hash": one, "kind": "key", "record": one, "salt": f"s{number}",
                          "at": at(9 - number), "answer": "ok", "actor": "ada"}) for number, (one, sync) in enumerate(("xa", "ya", "xa", "xb"))),
    ("keep_forgotten", {"place": "o", "sync": "a", "hash": "z", "kind": "identifier", "record": "y", "salt": "s", "at": at(9),
                        "answer": "ok", "actor": "ada"}),
    ("forgotten", {"place": "o"}), ("lift_forgotten", {"place": "o", "sync": "a", "record": "y"}), ("forgotten", {"place": "o"}),
    ("forgotten", {"place": "other"}),
]  # fmt: skip
_BY_NUMBER = ("replay_letters", "discard_letters", "seal_letters")


def told(state: State, story: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any, list[Any]]]:
    for name, values in story:
        given = values
        if name in _BY_NUMBER:
            numbers = {
                f"{row['scope']}/{row['key']}": row["id"]
                for row in state.do("dead_letters", {"scope": None, "id": None})
            }
            given = [[numbers[values[0]], *values[1:]]] if name == "seal_letters" else [[numbers[at]] for at in values]  # fmt: skip
        if isinstance(given, list):
            state.do_all(name, given)
            yield name, values, []
        else:
            yield name, values, list(state.do(name, given))


def columns(row: Any) -> Mapping[str, Any]:
    """What a row says, but for the numbers of letters, which each state gives in its own way."""
    return {name: row[name] for name in row.keys() if name != "id" or isinstance(row["id"], str)}  # noqa: SIM118 - sqlite3.Row


@pytest.mark.parametrize("other", ["postgres_db", "dynamodb_state"])
def test_every_statement_says_what_sqlite_says(
    request: pytest.FixtureRequest, tmp_path: Path, other: str
) -> None:
    states = open_state(tmp_path / "state"), open_state(request.getfixturevalue(other))
    asked = set()
    for story in (SCOPES, RUNS, PLANS, LETTERS, FACTS):
        for (name, values, wanted), (_, _, found) in zip(
            *(told(state, story) for state in states), strict=True
        ):
            asked.add(name)
            rows = [columns(row) for row in wanted]
            said = [{column: row[column] for column in names} for names, row in zip(rows, found, strict=True)]
            assert said == rows, (name, values)
    assert asked == {*queries("?")}, "a statement that nobody compares"
    for state in states:
        state.close()
