"""Desired records minus acknowledged ones: finds the candidates in one pass, and freezes the changes as a plan file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb
import orjson
import pyarrow as pa

from backhaul.engine import number, spill_folder
from backhaul.errors import RunError, SourceError
from backhaul.ledger.ledger import LedgerView, RowState
from backhaul.ledger.plan import CHANGES, Plan, Segment, make_durable
from backhaul.mapping.mapping import SEPARATOR, Mapping
from backhaul.mapping.wire import key_text
from backhaul.sql import ident, literal
from backhaul.types import Mode, Nulls, Op

DELETE, MOVE, SEND, FORGET, REFUSE = 0, 1, 2, 8, 9
"""`_segment`, in the order of sending: what left the model goes first, so that a unique value it held is free again."""

ROW_GROUP = 61_440
NO_HASH = "None"
"""What stands for the hash of a delete: its record has no value."""


class RelationLike(Protocol):
    @property
    def sql(self) -> str: ...
    @property
    def repeatable(self) -> bool: ...
    @property
    def rows(self) -> int | None: ...
    def again(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """`moves`: the destination can change a record's identifier by its own id. `refused` holds the dead letters as
    (key as JSON, hash, made by the mapping)."""

    mode: Mode
    incremental: bool = False
    moves: bool = False
    refused: Sequence[tuple[str, str, bool]] = ()


def key_json(mapping: Mapping, prefix: str = "") -> str:
    """SQL of the primary key as JSON: a scalar, or a list of scalars where the key is composite."""
    columns = [prefix + key.column for key in mapping.keys]
    inner = columns[0] if len(columns) == 1 else f"json_array({', '.join(columns)})"
    return f"CAST(to_json({inner}) AS VARCHAR)"


def identity(mapping: Mapping) -> str:
    """SQL of a record's identifier as the destination compares it."""
    text = key_text(mapping.identifiers)
    folds = any(field.field.case_insensitive for field in mapping.identifiers)
    return f"lower(trim({text}))" if folds else text


class Diff:
    """One comparison of a model with a ledger, on one engine."""

    def __init__(
        self,
        engine: duckdb.DuckDBPyConnection,
        mapping: Mapping,
        view: LedgerView | None,
        options: DiffOptions,
    ) -> None:
        self.engine = engine
        self.mapping = mapping
        self.view = view if view is not None and not view.empty else None
        self.options = options
        self.keys = [key.column for key in mapping.keys]
        self.rows = 0

    def find(self, relation: RelationLike) -> None:
        """Fills temp.candidates with the rows that may differ, in one pass over the model.

        Raises:
            SourceError: a key is NULL or occurs twice; names samples.
        """
        self._join(relation)
        self.rows = (
            self._one(f"SELECT count(*) FROM {relation.sql}") if relation.repeatable else relation.rows or 0
        )
        self._check_nulls()
        self._check_duplicates(relation)
        self._check_spellings()

    def _join(self, relation: RelationLike) -> None:
        desired = self.mapping.desired(relation.sql)
        known = ", ".join(f"l.{key} AS l{key}" for key in self.keys)
        if self.view is None:
            self._lay_out(desired)
            return
        on = " AND ".join(f"m.{key} = l.{key}" for key in self.keys)
        kind, where = (
            ("LEFT", "") if self.options.incremental else ("FULL", "WHERE (m._hash = l._hash) IS NOT TRUE")
        )
        # the ledger's (key, hash) is the side to hold in memory; the model with all its columns only streams past
        self.engine.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'")
        try:
            self._make(
                "candidate_rows",
                f"SELECT m.*, {known}, l._hash AS _was FROM ({desired}) AS m {kind} JOIN "
                f"(SELECT {', '.join(self.keys)}, _hash FROM ({self.view.current(self.mapping)})) AS l ON {on} {where}",
            )
        finally:
            self.engine.execute("RESET disabled_optimizers")
        self.engine.execute("CREATE OR REPLACE TEMP VIEW candidates AS SELECT * FROM temp.candidate_rows")

    def _lay_out(self, desired: str) -> None:
        """Everything is new: the rows go to a file in the shape of a plan, since a table of them would be spilled as it is
        and written again."""
        old = [f"NULL::{field.storage} AS {ident('o.' + field.name)}" for field in self.mapping.fields]
        names = [*self.keys, "_hash", *self._values("f."), *old, "NULL::VARCHAR AS _remote_id", "_error"]
        self._laid_out = spill_folder(self.engine) / "candidates.parquet"
        kind = f"{SEND} AS _segment, {self._creates()} AS _change"
        self._copy(
            f"SELECT {kind}, {', '.join(names)}, NULL::UTINYINT AS _again FROM ({desired})", self._laid_out
        )
        self._show(self._laid_out)

    def _show(self, file: Path) -> None:
        nothing = ", ".join(f"NULL::{key.storage} AS l{key.column}" for key in self.mapping.keys)
        self.engine.execute(
            f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT *, {nothing}, NULL::UBIGINT AS _was "
            f"FROM read_parquet({literal(str(file))})"
        )

    def _copy(self, select: str, file: Path) -> None:
        self.engine.execute(
            f"COPY ({select}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP})"
        )

    def _check_nulls(self) -> None:
        missing = " AND ".join(f"l{key} IS NULL" for key in self.keys)
        null = " OR ".join(f"{key} IS NULL" for key in self.keys)
        count = self._one(f"SELECT count(*) FROM temp.candidates WHERE ({null}) AND {missing}")
        if count:
            names = ", ".join(key.name for key in self.mapping.keys)
            raise SourceError(f"{count:,} row{'s have' if count > 1 else ' has'} NULL in the primary key ({names})",
                              hint="filter them out in the model, or choose a key that is always there")  # fmt: skip

    def _check_duplicates(self, relation: RelationLike) -> None:
        keys = ", ".join(self.keys)
        if self.view is None or self.options.incremental:
            twice = self._pairs("temp.candidates")
        else:
            new = self._one(f"SELECT count(*) FROM temp.candidates WHERE l{self.keys[0]} IS NULL")
            gone = self._one(f"SELECT count(*) FROM temp.candidates WHERE {self.keys[0]} IS NULL")
            twice = self._pairs(f"temp.candidates WHERE l{self.keys[0]} IS NULL")
            # every ledger key is there once: more matched model rows than matched ledger rows means duplicates
            if not twice and self.rows - new > self.view.count() - gone:
                desired = self.mapping.desired(relation.again().sql)
                twice = self._pairs(f"(SELECT {keys} FROM ({desired}))")
                if not twice:
                    raise SourceError(
                        "the model gave different rows when read twice, so its duplicate keys cannot be named"
                    )
        if twice:
            self._refuse(f"the primary key is not unique: {twice}")

    def _pairs(self, source: str) -> str:
        keys = ", ".join(self.keys)
        table, _, where = source.partition(" WHERE ")
        rows = self.engine.execute(
            f"SELECT {key_json(self.mapping)}, count(*) AS n FROM {table} {'WHERE ' + where if where else ''} "
            f"GROUP BY {keys} HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT 3"
        ).fetchall()
        return ", ".join(f"{mask(key)} ({count} rows)" for key, count in rows)

    def _check_spellings(self) -> None:
        """Keys that differ only in case, outer spaces or Unicode form are duplicates too; keys of the ledger were
        checked when they came in, so only new ones are looked at."""
        if not any(key.storage == "VARCHAR" for key in self.mapping.keys):
            return
        folded = [
            f"lower(trim(nfc_normalize({key.column})))" if key.storage == "VARCHAR" else key.column
            for key in self.mapping.keys
        ]
        new = f"temp.candidates WHERE l{self.keys[0]} IS NULL"
        among = f"SELECT list({key_json(self.mapping)}) AS pair FROM {new} GROUP BY {', '.join(folded)} HAVING count(*) > 1"
        rows = self.engine.execute(f"{among} LIMIT 3").fetchall()
        if not rows and self.view is not None and self._one(f"SELECT count(*) FROM {new}"):
            names = ", ".join(f"{sql} AS n{number}" for number, sql in enumerate(folded))
            on = " AND ".join(f"a.n{number} = b.n{number}" for number in range(len(folded)))
            stays = " AND ".join(f"gone.l{key} = held.{key}" for key in self.keys)
            rows = self.engine.execute(
                f"SELECT [a.j, b.j] FROM (SELECT {names}, {key_json(self.mapping)} AS j FROM {new}) AS a JOIN "
                f"(SELECT {names}, {key_json(self.mapping)} AS j FROM ({self.view.current(self.mapping)}) AS held "
                f"WHERE NOT EXISTS "
                f"(SELECT 1 FROM temp.candidates AS gone WHERE gone.{self.keys[0]} IS NULL AND {stays})) AS b ON {on} LIMIT 3"
            ).fetchall()
        if rows:
            pairs = ", ".join(" and ".join(mask(key) for key in pair[:2]) for (pair,) in rows)
            self._refuse(f"primary keys differ only in case, spaces or Unicode form: {pairs}")

    def _refuse(self, message: str) -> None:
        raise SourceError(message, hint="make the model give one row a key; nothing was sent")

    def write(self, plan_id: str, sync: str, path: Path, watermark: str | None = None) -> Plan:
        """Freezes the changes in a plan file: durable, sorted by segment."""
        self._find_refused()
        self._find_twins()
        part = path.with_suffix(".part")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        ready = self._is_plan()
        if ready:
            shutil.move(self._laid_out, part)
        else:
            changes = f"SELECT * FROM ({self._changes()}) WHERE _segment IS NOT NULL"
            self._copy(f"{changes} ORDER BY _segment", part)
        part.chmod(0o600)
        part.replace(path)
        make_durable(path)
        if ready:
            self._show(path)
        return self._describe(plan_id, sync, path, watermark)

    def _is_plan(self) -> bool:
        """Whether the laid out rows are the changes already: the common first sync of clean rows."""
        bad = "SELECT 1 FROM temp.candidates WHERE _error IS NOT NULL UNION ALL SELECT 1 FROM temp.twins"
        return (
            self.view is None and not self.options.refused and not self._one(f"SELECT count(*) FROM ({bad})")
        )

    def _find_refused(self) -> None:
        """temp.refused: what dead letters say is not to be sent again as it is."""
        rows = self.options.refused
        table = pa.table({
            "key": pa.array([row[0] for row in rows], pa.string()),
            "hash": pa.array([row[1] for row in rows], pa.string()),
            "by_mapping": pa.array([row[2] for row in rows], pa.bool_()),
        })  # fmt: skip
        self.engine.register("refused_now", table)
        self._make("refused", "SELECT * FROM refused_now")
        self.engine.unregister("refused_now")

    def _key(self, prefix: str) -> str:
        """The primary key of a candidate as JSON, whether it is in the model or in the ledger alone."""
        gone, there = key_json(self.mapping, prefix + "l"), key_json(self.mapping, prefix)
        return f"CASE WHEN {prefix}{self.keys[0]} IS NULL THEN {gone} ELSE {there} END"

    def stale(self, letters: Sequence[tuple[str, str]]) -> list[str]:
        """Of dead letters (key as JSON, hash) the keys of those that mean nothing any more: the record is as acknowledged
        again, or has left the model. Only a read of the whole model can say so."""
        if not letters or self.options.incremental:
            return []
        keys, hashes = zip(*letters, strict=True)
        self.engine.register(
            "letters_now",
            pa.table({"key": pa.array(keys, pa.string()), "hash": pa.array(hashes, pa.string())}),
        )
        reason = f"(c.{self.keys[0]} IS NOT NULL OR n.hash = {literal(NO_HASH)})"
        rows = self.engine.execute(
            f"SELECT key FROM letters_now AS n WHERE NOT EXISTS "
            f"(SELECT 1 FROM temp.candidates AS c WHERE {self._key('c.')} = n.key AND {reason})"
        ).fetchall()
        self.engine.unregister("letters_now")
        return [key for (key,) in rows]

    def _find_twins(self) -> None:
        """temp.twins: keys that claim an identifier which another key claims or holds; temp.claimed: every claim."""
        keys = ", ".join(self.keys)
        if {field.expr.strip('"').lower() for field in self.mapping.identifiers} == {
            key.name.lower() for key in self.mapping.keys
        }:
            self._make("claimed", f"SELECT {keys}, ''::VARCHAR AS n FROM temp.candidates LIMIT 0")
            self._make("twins", f"SELECT {keys} FROM temp.claimed")
            return
        norm = identity(self.mapping)
        self._make(
            "claimed",
            f"SELECT {keys}, {norm} AS n FROM temp.candidates WHERE {self.keys[0]} IS NOT NULL AND _error IS NULL",
        )
        twins = f"SELECT {keys} FROM temp.claimed WHERE n IN (SELECT n FROM temp.claimed GROUP BY n HAVING count(*) > 1)"
        if self.view is not None:
            mine = " AND ".join(f"h.{key} = c.{key}" for key in self.keys)
            moving = " AND ".join(f"x.l{key} = h.{key}" for key in self.keys)
            twins += (
                f" UNION SELECT {', '.join('c.' + key for key in self.keys)} FROM temp.claimed AS c JOIN "
                f"(SELECT {keys}, {norm} AS n FROM ({self.view.current(self.mapping)})) AS h ON h.n = c.n "
                f"WHERE NOT ({mine}) AND NOT EXISTS (SELECT 1 FROM temp.candidates AS x WHERE {moving})"
            )
        self._make("twins", twins)

    def _changes(self) -> str:
        """The SELECT of a plan file's rows; `_segment` NULL is a candidate that is no change."""
        names = [
            *self.keys,
            "_hash",
            *self._values("f."),
            *self._values("o."),
            "_remote_id",
            "_error",
            "_again",
        ]
        return f"SELECT {self._segment()} AS _segment, {self._change()} AS _change, {', '.join(names)} FROM ({self._joined()})"

    def _values(self, prefix: str) -> list[str]:
        return [ident(prefix + field.name) for field in self.mapping.fields]

    def _joined(self) -> str:
        both = [(key, f"l{key}") for key in self.keys]
        parts = [f"coalesce(c.{new}, c.{old}) AS {new}" for new, old in both]
        parts += [f"c.{both[0][0]} IS NULL AS gone", f"c.{both[0][1]} IS NULL AS unheld", "c._hash", "c._was"]
        joins = ""
        if self.view is None:
            parts += [f"c.{ident(field.column)}" for field in self.mapping.fields]
            parts += [f"NULL::{field.storage} AS {ident('o.' + field.name)}" for field in self.mapping.fields]
            parts += ["NULL::VARCHAR AS _remote_id", "NULL::UTINYINT AS _again", "false AS never"]
        else:
            on = " AND ".join(f"c.{old} = h.{new}" for new, old in both)
            joins += f" LEFT JOIN ({self.view.current(self.mapping)}) AS h ON {on}"
            for field in self.mapping.fields:
                column = ident(field.column)
                value = (
                    f"CASE WHEN c.{both[0][0]} IS NULL THEN h.{column} ELSE c.{column} END"
                    if field.identifier
                    else f"c.{column}"
                )
                parts += [f"{value} AS {column}", f"h.{column} AS {ident('o.' + field.name)}"]
            parts += ["h._remote_id", "CASE WHEN c._was IS NULL THEN h._state END AS _again",
                      f"c.{both[0][1]} IS NOT NULL AND h._at IS NULL AS never"]  # fmt: skip
        twin = " AND ".join(f"t.{key} = c.{key}" for key in self.keys)
        name = self.mapping.identifiers[0].name
        said = literal(
            f"{name}{SEPARATOR}duplicate{SEPARATOR}another record of the model has the same {name}"
        )
        parts += [f"coalesce(c._error, CASE WHEN t.{self.keys[0]} IS NOT NULL THEN {said} END) AS _error"]
        refused_now = f"(c._error IS NOT NULL OR t.{self.keys[0]} IS NOT NULL)"
        parts += [f"r.key IS NOT NULL AND (r.by_mapping IS FALSE OR {refused_now}) AS dead"]
        joins += f" LEFT JOIN (SELECT DISTINCT * FROM temp.twins) AS t ON {twin}"
        hashed = f"coalesce(CAST(c._hash AS VARCHAR), {literal(NO_HASH)})"
        joins += f" LEFT JOIN temp.refused AS r ON r.hash = {hashed} AND r.key = {self._key('c.')}"
        return f"SELECT {', '.join(parts)} FROM temp.candidates AS c{joins}"

    def _segment(self) -> str:
        mode = self.options.mode
        otherwise = DELETE if mode is Mode.MIRROR else "NULL"
        claimed = f"{identity(self.mapping)} IN (SELECT n FROM temp.claimed)"
        gone = f"CASE WHEN {claimed} THEN {FORGET} ELSE {otherwise} END"
        if mode is Mode.INSERT or self.options.incremental:
            gone = "NULL"
        held = "NULL" if mode is Mode.INSERT else (
            f"CASE WHEN _was IS NOT NULL AND NOT ({self._differs()}) THEN NULL WHEN {self._moved()} THEN {MOVE} ELSE {SEND} END"
        )  # fmt: skip
        return (
            f"CASE WHEN dead THEN NULL WHEN gone THEN {gone} WHEN _error IS NOT NULL THEN {REFUSE} "
            f"WHEN unheld THEN {SEND} ELSE {held} END"
        )

    def _change(self) -> str:
        gone, update = CHANGES.index("delete"), CHANGES.index("update")
        return f"CASE WHEN gone THEN {gone} WHEN unheld OR never THEN {self._creates()} ELSE {update} END"

    def _creates(self) -> int:
        return CHANGES.index("update" if self.options.mode is Mode.UPDATE else "create")

    def _differs(self) -> str:
        """Whether the payload really changes: a NULL that is skipped changes nothing."""
        if self.view is not None and self.view.meta.get("values") == "no":
            return "_hash IS DISTINCT FROM _was"
        rules = []
        for field in self.mapping.fields:
            new, old = ident(field.column), ident("o." + field.name)
            rule = f"{new} IS DISTINCT FROM {old}"
            rules.append(f"({new} IS NOT NULL AND {rule})" if field.nulls is Nulls.SKIP else rule)
        return " OR ".join(rules)

    def _moved(self) -> str:
        if not self.options.moves or self.view is None:
            return "false"
        pairs = [f"{ident(field.column)} <> {ident('o.' + field.name)}" for field in self.mapping.identifiers]
        return f"_remote_id IS NOT NULL AND NOT never AND ({' OR '.join(pairs)})"

    def _describe(self, plan_id: str, sync: str, path: Path, watermark: str | None) -> Plan:
        file = f"read_parquet({literal(str(path))}, file_row_number = true)"
        rows = self.engine.execute(
            f"SELECT _segment, _change, count(*), min(file_row_number), max(file_row_number) + 1 FROM {file} "
            "GROUP BY ALL ORDER BY 4"
        ).fetchall()
        self._check_deletes(file, path)
        sent = [row for row in rows if row[0] <= SEND]
        changes = {
            name: sum(row[2] for row in sent if row[1] == number) for number, name in enumerate(CHANGES)
        }
        segments = tuple(
            Segment(self._op(number), min(row[3] for row in some), max(row[4] for row in some))
            for number in sorted({row[0] for row in sent})
            if (some := [row for row in sent if row[0] == number])
        )
        shape = literal(orjson.dumps(self.mapping.shape).decode())
        digest = self._one(
            f"SELECT sum(hash(_segment, _change, {', '.join(self.keys)}, _hash, {shape})::HUGEINT) FROM {file}"
        )
        again = dict(
            self.engine.execute(
                f"SELECT _again, count(*) FROM {file} WHERE _again IS NOT NULL AND _segment <= {SEND} GROUP BY 1"
            ).fetchall()
        )
        names = {RowState.ACKED: "mapping", RowState.UNKNOWN: "unknown", RowState.KNOWN: "reset"}
        return Plan(
            id=plan_id, sync=sync, path=path, rows=self.rows, changes=changes, segments=segments,
            refused=sum(row[2] for row in rows if row[0] == REFUSE), forgotten=sum(row[2] for row in rows if row[0] == FORGET),
            digest=f"{digest or 0:x}", first=self.view is None, incremental=self.options.incremental,
            reasons={names[RowState(state)]: count for state, count in again.items()}, shape=self.mapping.shape,
            watermark=watermark,
        )  # fmt: skip

    def _check_deletes(self, file: str, path: Path) -> None:
        """A delete without an identifier must not leave: who knows what it would take away."""
        none = " OR ".join(f"{ident(field.column)} IS NULL" for field in self.mapping.identifiers)
        count = self._one(f"SELECT count(*) FROM {file} WHERE _segment = {DELETE} AND ({none})")
        if count:
            path.unlink()
            raise RunError(
                f"{count:,} known records that left the model cannot be deleted: `identify` is new or of another type, "
                "and how they are identified was never acknowledged",
                hint="run once with `identify` as it was; nothing was sent",
            )

    def _op(self, segment: int) -> Op:
        if segment == DELETE:
            return Op.DELETE
        if segment == MOVE:
            return Op.UPDATE
        return Op.UPSERT if self.options.mode is Mode.MIRROR else Op(self.options.mode.value)

    def _make(self, name: str, select: str) -> None:
        self.engine.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")

    def _one(self, query: str) -> int:
        return number(self.engine, query)


def mask(key: str) -> str:
    """A key as it may stand in a message: long text keeps its ends only."""
    return key if len(key) <= 8 else f"{key[:4]}…{key[-3:]}"
