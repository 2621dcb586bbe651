"""Desired records minus acknowledged ones: finds the candidates in one pass, and freezes the changes as a plan file."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import duckdb

from backhaul.changes import Stage, code, named
from backhaul.engine import in_order, number, spill_folder
from backhaul.errors import RunError, SourceError
from backhaul.ledger import nameless
from backhaul.ledger.duplicates import Duplicates, Found, count_candidates, key_json
from backhaul.ledger.elsewhere import is_elsewhere
from backhaul.ledger.ledger import LedgerView
from backhaul.ledger.plan import (
    CHANGES,
    DELETE,
    FORGET,
    KEEP,
    LEAVE,
    MOVE,
    REFUSE,
    SEND,
    Plan,
    Segment,
    freezing,
    rows_of,
)
from backhaul.ledger.refused import find_refused, find_stale
from backhaul.ledger.remapping import APPROVED, remapped, resent
from backhaul.ledger.replaced import identity, is_replaced, with_replacements
from backhaul.ledger.suppression import NOTHING_FORGOTTEN, Forgotten, is_wanted, suppress
from backhaul.ledger.tally import Tally, tally_of
from backhaul.ledger.unfilled import unfilled
from backhaul.mapping.fingerprint import fingerprints
from backhaul.mapping.mapping import SEPARATOR, Mapping
from backhaul.next_steps import Offer, is_resent
from backhaul.sql import ident, literal
from backhaul.types import Mode, Nulls, Op

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
    """`moves`: the operation that changes a record's identifier, as in the kit's Destination. `refused` holds the dead letters
    as (key as JSON, hash, made by the mapping).
    `set_aside`: keys that are NULL or occur twice are refused one by one, and not the model."""

    mode: Mode
    incremental: bool = False
    moves: Op | None = None
    refused: Sequence[tuple[str, str, bool]] = ()
    forgotten: Forgotten = NOTHING_FORGOTTEN
    set_aside: bool = False
    offer: Offer = Offer.NONE
    elsewhere: bool = False
    """temp.elsewhere has the identifiers of records that other syncs hold: they are not deleted."""


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
        self.rows = self.suppressed = self._nameless = 0
        self.found = Found()
        self._claims = self._twins = self._replaced = 0
        """Rows of temp.claimed and temp.twins; records whose identifier changes and that others take the place of."""

    def find(self, relation: RelationLike) -> None:
        """Fills temp.candidates with the rows that may differ, in one pass over the model.

        Raises:
            SourceError: a key is NULL or occurs twice, and such rows are not set aside; names samples.
        """
        self._join(relation)
        if hashes := self.options.forgotten.hashes:
            columns = f"*{self._nothing_known()}"
            salted = self.options.forgotten.salted(self.mapping)
            self.suppressed = suppress(self.engine, hashes, salted, columns)
        self.rows = (
            self._one(f"SELECT count(*) FROM {relation.sql}") if relation.repeatable else relation.rows or 0
        )
        self.found = count_candidates(self.engine, self.mapping, self.view)
        self._check_nulls()
        self._check_duplicates(relation)

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
            file = spill_folder(self.engine) / "candidates.parquet"
            self._copy(
                f"SELECT m.*, {known}, l._hash AS _was FROM ({desired}) AS m {kind} JOIN "
                f"(SELECT {', '.join(self.keys)}, _hash FROM ({self.view.current(self.mapping)})) AS l ON {on} {where}",
                file,
            )
        finally:
            self.engine.execute("RESET disabled_optimizers")
        self._show(file)

    def _nothing_known(self) -> str:
        """The ledger's columns of candidates that were laid out without one."""
        nothing = "".join(f", NULL::{key.storage} AS l{key.column}" for key in self.mapping.keys)
        return f"{nothing}, NULL::UBIGINT AS _was" if self.view is None else ""

    def _lay_out(self, desired: str) -> None:
        """Everything is new: the rows are written in the shape of a plan, so that clean ones need not be written again."""
        old = [f"NULL::{field.storage} AS {ident('o.' + field.name)}" for field in self.mapping.fields]
        names = [*self.keys, "_hash", *self._values("f."), *old, "NULL::VARCHAR AS _remote_id", "_error"]
        kind = f"{SEND} AS _segment, {self._creates()} AS _change"
        file = spill_folder(self.engine) / "candidates.parquet"
        self._copy(f"SELECT {kind}, {', '.join(names)}, NULL::UTINYINT AS _again FROM ({desired})", file)
        self._show(file)

    def _show(self, file: Path) -> None:
        """Makes a file temp.candidates; a table of so many wide rows would fill the memory."""
        self.engine.execute(
            f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT *{self._nothing_known()} FROM read_parquet({literal(str(file))})"
        )

    def _copy(self, select: str, file: Path) -> None:
        self.engine.execute(
            f"COPY ({select}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION snappy, ROW_GROUP_SIZE {ROW_GROUP})"
        )

    def _check_nulls(self) -> None:
        count, names = self.found.nameless, ", ".join(key.name for key in self.mapping.keys)
        if count and not self.options.set_aside:
            have = f"{count:,} row{'s have' if count > 1 else ' has'} {nameless.lacking(self.mapping)}"
            raise SourceError(f"{have} in the primary key ({names}){nameless.samples(self.engine, self.mapping)}",
                              hint="filter them out in the model, choose a key that is always there, or have such rows set "
                              "aside with `duplicates: reject`; nothing was sent")  # fmt: skip
        if count:
            nameless.set_aside(self.engine, self.mapping)
            self._nameless = count
            self.found = count_candidates(self.engine, self.mapping, self.view)

    def _check_duplicates(self, relation: RelationLike) -> None:
        rows, whole = self.rows - self.suppressed - self._nameless, not self.options.incremental
        duplicates = Duplicates(self.engine, self.mapping, self.view, rows, self.found, whole=whole)
        said = duplicates.found(relation)
        if said and not self.options.set_aside:
            raise SourceError(said, hint="make the model give one row a key, or have such rows set aside with "
                              "`duplicates: reject`; nothing was sent")  # fmt: skip
        if said:
            duplicates.set_aside(
                relation,
                is_wanted(self.options.forgotten.salted(self.mapping)) if self.suppressed else "true",
            )
            self.found = count_candidates(self.engine, self.mapping, self.view)

    def write(self, plan_id: str, sync: str, path: Path, watermark: str | None = None) -> Plan:
        """Freezes the changes in a plan file: durable, sorted by segment, and records of one parent together."""
        self._find_refused()
        self._find_twins()
        ready = self._is_plan()
        with freezing(path) as part:
            if ready:
                shutil.move(spill_folder(self.engine) / "candidates.parquet", part)
                tally = self._tally(part)
            else:
                tally = self._write_sorted(part)
            self._check_deletes(tally)
        if ready:
            self._show(path)
        return self._describe(plan_id, sync, path, tally, watermark)

    def _is_plan(self) -> bool:
        """Whether the laid out rows are the changes already: the common first sync of clean rows."""
        lacking = unfilled(self.mapping, self.options.mode)
        bad = f"coalesce(_error, {lacking}) IS NOT NULL" if lacking else "_error IS NOT NULL"
        return (
            self.view is None
            and not self.options.refused
            and not self.suppressed
            and not self._twins
            and not self._parents()
            and not self._one(f"SELECT count(*) FROM temp.main.candidates AS c WHERE {bad}")
        )

    def _write_sorted(self, part: Path) -> list[Tally]:
        """The changes by segment: each is picked out of an unsorted file, which a sort of wide rows would spill anyway."""
        if not self.found.all:
            self._copy(self._no_change(), part)
            return []
        unsorted = spill_folder(self.engine) / "changes.parquet"
        self._copy(f"SELECT * FROM ({self._changes()}) WHERE _segment IS NOT NULL", unsorted)
        tally = self._tally(unsorted)
        segments = sorted({row.segment for row in tally})
        file = f"read_parquet({literal(str(unsorted))})"
        if parents := self._parents():
            with in_order(self.engine):
                self._copy(f"SELECT * FROM {file} ORDER BY {', '.join(['_segment', *parents])}", part)
            unsorted.unlink()
        elif len(segments) > 1:
            picks = [f"SELECT * FROM {file} WHERE _segment = {segment}" for segment in segments]
            with in_order(self.engine):
                self._copy(" UNION ALL ".join(picks), part)
            unsorted.unlink()
        else:
            shutil.move(unsorted, part)
        return tally

    def _parents(self) -> list[str]:
        """SQL of what the destination locks with a record; of one that is deleted, what it belonged to."""
        return [
            f"coalesce({ident(field.column)}, {ident('o.' + field.name)})"
            for field in self.mapping.fields
            if field.field.parent
        ]

    def _tally(self, file: Path) -> list[Tally]:
        before = [] if self.view is None else [*self._values("o."), "_remote_id"]
        return tally_of(self.engine, file, self.mapping, before)

    def _no_change(self) -> str:
        """A plan without rows."""
        old = [f"NULL::{field.storage} AS {ident('o.' + field.name)}" for field in self.mapping.fields]
        names = [*self.keys, "_hash", *self._values("f."), *old, "NULL::VARCHAR AS _remote_id", "_error"]
        return (
            f"SELECT {SEND} AS _segment, 0 AS _change, {', '.join(names)}, NULL::UTINYINT AS _again "
            "FROM temp.main.candidates LIMIT 0"
        )

    def _find_refused(self) -> None:
        if self.options.refused:
            find_refused(self.engine, self.options.refused)

    def _key(self, prefix: str) -> str:
        """The primary key of a candidate as JSON, whether it is in the model or in the ledger alone."""
        gone, there = key_json(self.mapping, prefix + "l"), key_json(self.mapping, prefix)
        return f"CASE WHEN {self._is_gone(prefix)} THEN {gone} ELSE {there} END"

    def _is_gone(self, prefix: str) -> str:
        """SQL: the candidate is in the ledger alone."""
        return f"({prefix}{self.keys[0]} IS NULL AND {prefix}l{self.keys[0]} IS NOT NULL)"

    def stale(self, letters: Sequence[tuple[str, str]]) -> list[str]:
        """Of dead letters (key as JSON, hash) the keys of those that mean nothing any more: the record is as acknowledged
        again, or has left the model. Only a read of the whole model can say so."""
        if not letters or self.options.incremental:
            return []
        if not self.found.all:
            return [key for key, _ in letters]
        reason = f"(NOT {self._is_gone('c.')} OR n.hash = {literal(NO_HASH)})"
        return find_stale(self.engine, letters, self._key("c."), reason)

    def _find_twins(self) -> None:
        """temp.twins: keys that claim an identifier which another key claims or holds; temp.claimed: every claim. Neither is
        made where there can be none."""
        if not self.found.all or self.mapping.identifies_by_key:
            return
        keys, norm = ", ".join(self.keys), identity(self.mapping)
        self._claims = self._make(
            "claimed",
            f"SELECT {keys}, {norm} AS n FROM temp.main.candidates WHERE {self.keys[0]} IS NOT NULL AND _error IS NULL",
        )
        if not self._claims:
            return
        more = "SELECT n FROM temp.main.claimed GROUP BY n HAVING count(*) > 1"
        twins = f"SELECT {keys} FROM temp.main.claimed WHERE n IN ({more})"
        if self.view is not None:
            mine = " AND ".join(f"h.{key} = c.{key}" for key in self.keys)
            moving = " AND ".join(f"x.l{key} = h.{key}" for key in self.keys)
            twins += (
                f" UNION SELECT {', '.join('c.' + key for key in self.keys)} FROM temp.main.claimed AS c JOIN "
                f"(SELECT {keys}, {norm} AS n FROM ({self.view.current(self.mapping)})) AS h ON h.n = c.n "
                f"WHERE NOT ({mine}) AND NOT EXISTS (SELECT 1 FROM temp.main.candidates AS x WHERE {moving})"
            )
        self._twins = self._make("twins", twins)

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
        changes = f"SELECT {self._segment()} AS _segment, {self._change()} AS _change, {', '.join(names)}"
        if not self._may_replace():
            return f"{changes} FROM ({self._joined()})"
        replaced = is_replaced(self.mapping, self._moved())
        changes = (
            f"{changes}, {replaced} AS replaced FROM ({self._joined()}) WHERE NOT ({replaced} AND undeleted)"
        )
        self._replaced = self._one(f"SELECT count(*) FROM ({changes}) WHERE replaced AND _segment = {SEND}")
        delete = DELETE if self.options.mode is Mode.MIRROR else None
        spared = is_elsewhere(identity(self.mapping, "o.")) if self.options.elsewhere else "false"
        return with_replacements(changes, self.mapping, send=SEND, delete=delete, spared=spared)

    def _may_replace(self) -> bool:
        return self.view is not None and self._claims > 0 and self.options.mode in (Mode.MIRROR, Mode.UPSERT)

    def _values(self, prefix: str) -> list[str]:
        return [ident(prefix + field.name) for field in self.mapping.fields]

    def _joined(self) -> str:
        both = [(key, f"l{key}") for key in self.keys]
        parts = [f"coalesce(c.{new}, c.{old}) AS {new}" for new, old in both]
        parts += [f"{self._is_gone('c.')} AS gone", f"c.{both[0][1]} IS NULL AS unheld", "c._hash", "c._was"]
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
        errors, dead = ["c._error"], "false"
        if lacking := unfilled(self.mapping, self.options.mode):
            new = f"c.{both[0][1]} IS NULL" + ("" if self.view is None else " OR h._at IS NULL")
            errors.append(f"CASE WHEN c.{both[0][0]} IS NOT NULL AND ({new}) THEN {lacking} END")
        if self._twins:
            twin = " AND ".join(f"t.{key} = c.{key}" for key in self.keys)
            name = self.mapping.identifiers[0].name
            why = f"another record of the model has the same {name}"
            said = literal(f"{name}{SEPARATOR}duplicate{SEPARATOR}{why}")
            joins += f" LEFT JOIN (SELECT DISTINCT * FROM temp.main.twins) AS t ON {twin}"
            errors.append(f"CASE WHEN t.{self.keys[0]} IS NOT NULL THEN {said} END")
        error = f"coalesce({', '.join(errors)})"
        if self.options.refused:
            hashed = f"coalesce(CAST(c._hash AS VARCHAR), {literal(NO_HASH)})"
            joins += f" LEFT JOIN temp.main.refused AS r ON r.hash = {hashed} AND r.key = {self._key('c.')}"
            dead = f"r.key IS NOT NULL AND (r.by_mapping IS FALSE OR {error} IS NOT NULL)"
        undeleted = "false"
        if self.options.refused and self._may_replace():
            letters = f"SELECT key FROM temp.main.refused WHERE hash = {literal(NO_HASH)}"
            undeleted = f"{self._key('c.')} IN ({letters})"
        parts += [f"{error} AS _error", f"{dead} AS dead", f"{undeleted} AS undeleted"]
        return f"SELECT {', '.join(parts)} FROM temp.main.candidates AS c{joins}"

    def _segment(self) -> str:
        mode, again = self.options.mode, is_resent(self.options.mode, self.options.offer)
        gone = "NULL"
        if mode is Mode.MIRROR:
            kept = (
                f"WHEN {is_elsewhere(identity(self.mapping))} THEN {KEEP} " if self.options.elsewhere else ""
            )
            gone = f"CASE WHEN _again = {code(Stage.QUARANTINED)} THEN NULL {kept}ELSE {DELETE} END"
        if self._claims:
            claimed = f"{identity(self.mapping)} IN (SELECT n FROM temp.main.claimed)"
            gone = f"CASE WHEN {claimed} THEN {FORGET} ELSE {gone} END"
        if self.options.incremental:
            gone = "NULL"
        elif mode is Mode.INSERT:
            gone = f"CASE WHEN _again = {code(Stage.RETRY)} THEN {FORGET} END"
        elif mode is not Mode.MIRROR:
            gone = f"coalesce({gone}, CASE WHEN {again} THEN {LEAVE} END)"
        undecided = f"_again = {code(Stage.QUARANTINED)}"
        held = f"CASE WHEN {again} THEN {SEND} END" if mode is Mode.INSERT else (
            f"CASE WHEN _was IS NOT NULL AND NOT ({self._differs()}) THEN NULL WHEN {self._moved()} THEN {MOVE} ELSE {SEND} END"
        )  # fmt: skip
        return (
            f"CASE WHEN dead THEN NULL WHEN gone THEN {gone} WHEN {undecided} THEN NULL WHEN _error IS NOT NULL THEN {REFUSE} "
            f"WHEN unheld THEN {SEND} ELSE {held} END"
        )

    def _change(self) -> str:
        gone, update = CHANGES.index("delete"), CHANGES.index("update")
        if self.options.mode is Mode.INSERT:
            return f"CASE WHEN gone THEN {gone} ELSE {self._creates()} END"
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
        if self.options.moves is None or self.view is None:
            return "false"
        pairs = [f"{ident(field.column)} <> {ident('o.' + field.name)}" for field in self.mapping.identifiers]
        known = "_remote_id IS NOT NULL AND " if self.options.moves is Op.UPDATE else ""
        return f"{known}NOT never AND ({' OR '.join(pairs)})"

    def _segments(self, tally: list[Tally]) -> Iterator[Segment]:
        low = 0
        for segment in sorted({row.segment for row in tally if row.segment <= SEND}):
            high = low + sum(row.count for row in tally if row.segment == segment)
            yield Segment(self._op(segment), low, high)
            low = high

    def _describe(
        self, plan_id: str, sync: str, path: Path, tally: list[Tally], watermark: str | None
    ) -> Plan:
        sent = [row for row in tally if row.segment <= SEND]
        changes = {
            name: sum(row.count for row in sent if row.change == number)
            for number, name in enumerate(CHANGES)
        }
        causes, caused = resent(self.engine, rows_of(path), self.mapping, remapped(self.view, self.mapping))
        again: Counter[int] = Counter()
        for row in sent:
            if row.again is not None:
                again[row.again] += row.count
        names = {
            Stage.ACKNOWLEDGED: "mapping",
            Stage.UNKNOWN: "unknown",
            Stage.DETECTED: "reset",
            Stage.RETRY: "absent",
        }
        reasons = {names[named(state)]: count for state, count in again.items()}
        if self._replaced:
            reasons["replaced" if self.options.mode is Mode.MIRROR else "left_behind"] = self._replaced
        return Plan(
            id=plan_id, sync=sync, path=path, rows=self.rows, changes=changes, segments=tuple(self._segments(tally)),
            refused=sum(row.count for row in tally if row.segment == REFUSE),
            forgotten=sum(row.count for row in tally if row.segment in (KEEP, LEAVE, FORGET)),
            digest=f"{sum(int(row.digest) for row in tally):x}", first=self.view is None, incremental=self.options.incremental,
            reasons=reasons | ({"mapping": caused} if caused else {}), shape=self.mapping.shape,
            mapping=fingerprints(self.mapping), remapped=causes,
            unapproved=remapped(self.view, self.mapping, APPROVED), after=None if self.view is None else self.view.last_folded(),
            watermark=watermark, compared=self.view is not None and self.view.meta.get("values") != "no",
        )  # fmt: skip

    def _check_deletes(self, tally: list[Tally]) -> None:
        """A delete without an identifier must not leave: who knows what it would take away."""
        count = sum(row.nameless for row in tally if row.segment == DELETE)
        if count:
            raise RunError(
                f"{count:,} known records that left the model cannot be deleted: `identify` is new or of another type, "
                "and how they are identified was never acknowledged",
                hint="run once with `identify` as it was; nothing was sent",
            )

    def _op(self, segment: int) -> Op:
        if segment == DELETE:
            return Op.DELETE
        if segment == MOVE:
            return self.options.moves or Op.UPDATE
        return Op.UPSERT if self.options.mode is Mode.MIRROR else Op(self.options.mode.value)

    def _make(self, name: str, select: str) -> int:
        """Makes a table, and says how many rows it has."""
        return self._one(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")

    def _one(self, query: str) -> int:
        return number(self.engine, query)
