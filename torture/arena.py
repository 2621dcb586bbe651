"""One project under torture: its files, its model, its destination, and what must be true of them in the end."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import duckdb

from torture.figures import Figures
from torture.processes import Command, idle
from torture.witness import Witness

RESULTS = {"each": "results", "key": "id", "delivered": "status == 'ok'", "error": "error"}
OPEN = "JOIN {0}plans p ON p.id = i.plan WHERE p.status IN ('delivering', 'folded')"
"""A folded plan has intents while creates of it are in doubt, and a run that dies may have just sent them again."""
INTENTS = f"SELECT i.plan, i.low, i.high FROM {{0}}intents i {OPEN}"
UNKNOWN = f"SELECT i.plan, i.unknown FROM {{0}}outcomes i {OPEN} AND i.unknown IS NOT NULL"
APART = 1_000_000
"""Between the first ids of two syncs."""
DEADLINE = 120.0
"""Seconds after which a run that nothing disturbs is called stuck."""


@dataclass
class Arena:
    """`syncs` syncs of `rows` rows each into one destination. `mode` is theirs. `state` is a DSN, or a folder."""

    name: str
    root: Path
    context: ForkServerContext
    rng: random.Random
    figures: Figures
    witness: Witness | None = None
    destination: dict[str, Any] = field(default_factory=dict)
    mode: str = "mirror"
    syncs: int = 1
    rows: int = 600
    state: str = ".backhaul"
    settings: dict[str, Any] = field(default_factory=dict)
    _turn: int = 0

    @property
    def names(self) -> list[str]:
        return [f"s{number}" for number in range(self.syncs)]

    def build(self) -> Arena:
        """Writes the project's files, and the first rows of each model."""
        (self.root / "syncs").mkdir(parents=True)
        warehouse = {"type": "sqlite", "path": "w.db"}
        config = {"project": "torture", "state": self.state, "warehouses": {"w": warehouse},
                  "destinations": {"d": self.destination}, **self.settings}  # fmt: skip
        (self.root / "backhaul.yml").write_text(json.dumps(config))  # JSON is YAML
        with closing(self._warehouse()) as db:
            db.execute("PRAGMA journal_mode = wal")
            for number, name in enumerate(self.names):
                sync = {
                    "name": name, "destination": "d", "object": "users", "mode": self.mode, "identify": {"id": "id"},
                    "model": {"warehouse": "w", "table": name, "primary_key": "id"}, "fields": {"name": "name", "score": "v"},
                    "guards": {"max_deletes": "off", "max_drop": "off"}, "freshness": {"sample": 0 if self.syncs > 1 else 3},
                }  # fmt: skip
                (self.root / "syncs" / f"{name}.yml").write_text(json.dumps(sync))
                db.execute(
                    f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, name TEXT NOT NULL, v REAL NOT NULL)"
                )
                first = number * APART
                rows = [(first + i, f"n{i}", i * 1.5) for i in range(self.rows)]
                db.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)
                self.figures.changes += len(rows)
        return self

    def _warehouse(self) -> sqlite3.Connection:
        return sqlite3.connect(self.root / "w.db", timeout=30, isolation_level=None)

    def change(self, share: float) -> None:
        """Some rows change, leave and come, in one transaction a sync; an append-only model only grows."""
        self._turn += 1
        before = self.model()
        with closing(self._warehouse()) as db:
            for number, name in enumerate(self.names):
                db.execute("BEGIN IMMEDIATE")
                self._change(db, name, number * APART, share)
                db.execute("COMMIT")
        after = self.model()
        self.figures.changes += sum(before.get(key) != after.get(key) for key in before.keys() | after.keys())

    def _change(self, db: sqlite3.Connection, name: str, first: int, share: float) -> None:
        some = max(int(self.rows * share / 10), 1)
        new = first + 10_000 + self._turn * 200
        rows = [(new + i, f"t{self._turn}", float(i)) for i in range(some)]
        db.executemany(f"INSERT INTO {name} VALUES (?, ?, ?)", rows)
        if self.mode == "insert":
            return
        part = self.rng.randrange(100)
        db.execute(
            f"UPDATE {name} SET v = v + 1, name = ? WHERE id % 100 BETWEEN ? AND ?",
            (f"t{self._turn}", part, part + int(share * 100)),
        )
        db.execute(f"DELETE FROM {name} WHERE id IN (SELECT id FROM {name} ORDER BY random() LIMIT {some})")

    def model(self) -> dict[str, dict[str, Any]]:
        """What the destination should hold."""
        with closing(self._warehouse()) as db:
            rows = [row for name in self.names for row in db.execute(f"SELECT id, name, v FROM {name}")]
        return {str(key): {"id": key, "name": name, "score": value} for key, name, value in rows}

    def start(self, *names: str) -> Command:
        """`backhaul run` of these syncs, or of all."""
        self.figures.runs += 1
        return Command(self.context, self.root, "run", *names)

    def excuse(self) -> None:
        """Tells the witness which rows were in flight when a process was stopped or killed."""
        if self.witness is None:
            return
        idle(0.03)
        self.witness.excuse(self.in_flight())

    def in_flight(self) -> set[str]:
        """Keys of the rows whose intent has no outcome, or an unknown one that a repetition was to settle; from the state and
        the plans' files."""
        keys: set[str] = set()
        for plan, low, high in self._intents():
            file = self.root / ".backhaul" / "plans" / f"{plan}.parquet"
            rows = f"read_parquet('{file}', file_row_number = true)"
            where = f"file_row_number >= {low} AND file_row_number < {high}"
            with suppress(duckdb.IOException), duckdb.connect() as db:
                keys |= {str(key) for (key,) in db.execute(f"SELECT k0 FROM {rows} WHERE {where}").fetchall()}
        return keys

    def _intents(self) -> list[tuple[str, int, int]]:
        if "://" in self.state:
            import psycopg

            with psycopg.connect(self.state) as shared:
                return _in_doubt(shared.execute, "backhaul.")
        file = self.root / ".backhaul" / "state.db"
        if not file.exists():
            return []
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)) as state:
            if not state.execute("SELECT 1 FROM sqlite_master WHERE name = 'intents'").fetchall():
                return []
            return _in_doubt(state.execute, "")

    def holds(self) -> dict[str, dict[str, Any]]:
        """What the destination holds."""
        if self.witness is not None:
            return dict(self.witness.records)
        import psycopg

        with psycopg.connect(self.destination["dsn"]) as db:
            rows = db.execute("SELECT id, name, score FROM users").fetchall()
        return {str(key): {"id": key, "name": name, "score": score} for key, name, score in rows}

    def converge(self) -> bool:
        """Runs until a run sends nothing. Whether that came about."""
        for _ in range(8):
            before = len(self.witness.seen) if self.witness else 0
            process = self.start()
            code = process.wait(DEADLINE)
            if code is None:
                process.kill()
                return self.figures.violation(self.name, "a run that nothing disturbed did not end")
            if code in (0, 3) and self.witness and len(self.witness.seen) == before:
                return True
            if code == 0 and not self.witness:
                return True
        return self.figures.violation(
            self.name, f"no quiet end after 8 runs; the last one's exit code is {code}"
        )

    def judge(self) -> None:
        """Compares destination and model; takes what the witness saw into the figures."""
        expected, held = self.model(), self.holds()
        if self.witness is not None:
            expected = {key: record for key, record in expected.items() if not self.witness.refused(key)}
        wrong = sorted(key for key in expected.keys() | held.keys() if expected.get(key) != held.get(key))
        self.figures.lost += len(wrong)
        if wrong:
            self.figures.violation(
                self.name, f"{len(wrong)} records differ from the model: {', '.join(wrong[:5])}"
            )
        if self.witness is not None:
            self._judge_requests(self.witness)

    def _judge_requests(self, witness: Witness) -> None:
        if witness.appends:
            twice = sorted(key for key, count in witness.creates.items() if count > 1)
            self.figures.duplicates += len(twice)
            if twice:
                self.figures.violation(
                    self.name, f"{len(twice)} records were created twice: {', '.join(twice[:5])}"
                )
                witness.creates.clear()
        for what, keys in (
            ("sent again, not in flight", witness.needless),
            ("in two requests at once", witness.overlaps),
        ):
            if keys:
                self.figures.needless += len(keys)
                self.figures.violation(self.name, f"{len(keys)} records {what}: {', '.join(keys[:5])}")
                keys.clear()
        self.figures.sends += witness.sends
        witness.sends = 0


def _in_doubt(execute: Callable[[str], Any], schema: str) -> list[tuple[str, int, int]]:
    """Plan and rows [low, high)."""
    found: list[tuple[str, int, int]] = list(execute(INTENTS.format(schema)).fetchall())
    for plan, rows in execute(UNKNOWN.format(schema)).fetchall():
        found += [(plan, row, row + 1) for row in json.loads(rows)]
    return found
