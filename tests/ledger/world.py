"""A model, a ledger and a destination in one process: plans are carried out row by row, each row with its own fate."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backhaul.changes import Stage
from backhaul.config.sync import SyncConfig
from backhaul.engine import in_order, open_engine
from backhaul.ledger.diff import Diff, DiffOptions
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.fold import Settlement, fold
from backhaul.ledger.ledger import Ledger
from backhaul.ledger.plan import DELETE, MOVE, REFUSE, SEND, Plan
from backhaul.mapping.mapping import Mapping as Compiled
from backhaul.mapping.mapping import compile_mapping
from backhaul.mapping.wire import json_text, key_text
from backhaul.sql import ident, literal
from backhaul.types import Field, ObjectSchema, Op
from backhaul.warehouses.protocol import Column

OK, LOST, APPLIED, REFUSED, WAITING = "ok", "lost", "applied", "refused", "waiting"
"""Delivered; unknown and not applied; unknown and applied; rejected; never left."""


def sync(mode: str = "mirror", fields: Mapping[str, Any] | None = None, **keys: Any) -> SyncConfig:
    told: dict[str, Any] = {
        "name": "s", "model": {"warehouse": "main", "table": "t", "primary_key": "id"}, "destination": "d", "object": "o",
        "mode": mode, "identify": {"email": "email"}, "file": "syncs/s.yml",
    } | keys  # fmt: skip
    given = {"a": "a"} if fields is None else fields
    told["fields"] = {
        name: value if isinstance(value, Mapping) else {"value": value} for name, value in given.items()
    }
    return SyncConfig.model_validate(told)


@dataclass
class Table:
    """Implements the ledger's RelationLike over a table of the engine."""

    sql: str = "memory.main.t"
    repeatable: bool = True
    rows: int | None = None

    def again(self) -> Table:
        return self


@dataclass
class Destination:
    """Holds records by its own id; a record's identifier is unique in it."""

    identifier: str = "email"
    records: dict[str, dict[str, Any]] = field(default_factory=dict)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def find(self, value: Any) -> str | None:
        return next(
            (rid for rid, held in self.records.items() if str(held[self.identifier]) == str(value)), None
        )

    def upsert(self, record: dict[str, Any]) -> str:
        rid = self.find(record[self.identifier]) or f"r{next(self._ids)}"
        self.records.setdefault(rid, {}).update(record)
        return rid

    def move(self, rid: str, record: dict[str, Any]) -> bool:
        other = self.find(record[self.identifier])
        if rid not in self.records or other not in (None, rid):
            return False
        self.records[rid].update(record)
        return True

    def delete(self, value: Any) -> None:
        rid = self.find(value)
        if rid is not None:
            del self.records[rid]

    def by_identifier(self) -> dict[Any, dict[str, Any]]:
        return {held[self.identifier]: held for held in self.records.values()}


class World:
    def __init__(self, folder: Path, *, columns: str = "id BIGINT, email VARCHAR, a INTEGER, b VARCHAR",
                 values: bool = True, moves: bool = False, ids: bool = True, case_insensitive: bool = False) -> None:  # fmt: skip
        self.folder = folder
        self.engine = open_engine(1 << 30, folder / "spill")
        self.engine.execute(f"CREATE TABLE memory.main.t ({columns})")
        self.ledger = Ledger(folder / "ledgers" / "s.duckdb", values=values)
        self.schema = ObjectSchema(
            "o", {"email": Field("email", case_insensitive=True)} if case_insensitive else {}, open=True
        )
        self.destination = Destination()
        self.moves, self.ids = Op.UPDATE if moves else None, ids
        self.letters: dict[str, tuple[str, bool]] = {}
        self._numbers = itertools.count(1)

    def close(self) -> None:
        self.engine.close()

    def put(self, *rows: Sequence[Any]) -> World:
        """Replaces the model's rows."""
        self.engine.execute("DELETE FROM memory.main.t")
        for row in rows:
            self.engine.execute(f"INSERT INTO memory.main.t VALUES ({', '.join('?' * len(row))})", list(row))
        return self

    def compiled(self, sync: SyncConfig) -> Compiled:
        columns = [Column(row[0], row[1]) for row in self.engine.execute("DESCRIBE memory.main.t").fetchall()]
        return compile_mapping(sync, columns, self.schema, self.engine)

    def plan(self, sync: SyncConfig, *, incremental: bool = False, watermark: str | None = None) -> Plan:
        mapping = self.compiled(sync)
        refused = [(key, hashed, by_mapping) for key, (hashed, by_mapping) in self.letters.items()]
        with self.ledger.reading(self.engine) as view:
            diff = Diff(self.engine, mapping, view, DiffOptions(sync.mode, incremental, self.moves, refused))
            diff.find(Table())
            number = next(self._numbers)
            return diff.write(f"p{number}", "s", self.folder / f"p{number}.parquet", watermark)

    def rows(self, plan: Plan) -> list[dict[str, Any]]:
        """Every row of a plan: number, segment, change, key, hash, identifier, remote id, record."""
        mapping = Compiled.from_shape(plan.shape)
        with in_order(self.engine):
            found = self.engine.execute(
                f"SELECT file_row_number, _segment, _change, {key_json(mapping)}, CAST(_hash AS VARCHAR), {key_text(mapping.identifiers)}, "
                f"_remote_id, {json_text(mapping.fields)}, _error FROM read_parquet({literal(str(plan.path))}, file_row_number = true)"
            ).fetchall()
        names = ("number", "segment", "change", "key", "hash", "identifier", "remote_id", "record", "error")
        rows = [dict(zip(names, row, strict=True)) for row in found]
        return [row | {"record": json.loads(row["record"][:-1])} for row in rows]

    def carry_out(
        self, plan: Plan, fate: Callable[[dict[str, Any]], str] = lambda row: OK
    ) -> list[Settlement]:
        """Sends the plan's rows in order; gives what a journal would say."""
        settled, undeleted = [], set[str]()
        for row in self.rows(plan):
            if row["segment"] != DELETE and row["key"] in undeleted:
                continue
            if row["segment"] == REFUSE:
                self.letters[row["key"]] = (row["hash"], True)
            if row["segment"] > SEND:
                continue
            what, number = fate(row), row["number"]
            if row["segment"] == DELETE and what != OK:
                undeleted.add(row["key"])
            rid = self._apply(row) if what in (OK, APPLIED) else None
            if what == OK and rid == "":
                what = REFUSED
            if what == OK:
                settled.append(
                    Settlement(
                        Stage.ACKNOWLEDGED,
                        number,
                        number + 1,
                        remote_ids=json.dumps([rid]) if self.ids else None,
                    )
                )
                self.letters.pop(row["key"], None)
            elif what in (LOST, APPLIED):
                settled.append(Settlement(Stage.UNKNOWN, number, number + 1))
            elif what == REFUSED:
                self.letters[row["key"]] = (row["hash"], False)
        return settled

    def _apply(self, row: dict[str, Any]) -> str | None:
        """The remote id; None of a delete; '' where the destination refuses."""
        if row["segment"] == DELETE:
            return self.destination.delete(row["identifier"])
        if row["segment"] == MOVE:
            return row["remote_id"] if self.destination.move(row["remote_id"], row["record"]) else ""
        return self.destination.upsert(row["record"])

    def run(self, sync: SyncConfig, fate: Callable[[dict[str, Any]], str] = lambda row: OK) -> Plan:
        plan = self.plan(sync)
        self.settle(plan, self.carry_out(plan, fate))
        return plan

    def settle(self, plan: Plan, settled: list[Settlement], *, complete: bool = True) -> None:
        fold(self.engine, self.ledger, Compiled.from_shape(plan.shape), plan, settled, complete=complete)

    def held(self) -> dict[str, dict[str, Any]]:
        """The ledger's rows by key (JSON)."""
        with self.ledger.reading(self.engine) as view:
            if view is None or view.empty:
                return {}
            names = ["_hash", "_state", "_remote_id", *(f"f.{name}" for name in view.shape["fields"])]
            rows = self.engine.execute(
                f"SELECT k0, {', '.join(map(ident, names))} FROM _backhaul_ledger.acked"
            ).fetchall()
        return {str(row[0]): dict(zip(names, row[1:], strict=True)) for row in rows}
