"""Keys that several rows of a model claim: refused, or set aside with all of their rows. None of them is ever picked."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import duckdb

from backhaul.engine import number, spill_folder
from backhaul.errors import SourceError
from backhaul.ledger.ledger import LedgerView
from backhaul.mapping.mapping import SEPARATOR, KeyColumn, Mapping
from backhaul.sql import ident, literal

_SPELLING = "another key differs from this one only in case, spaces or Unicode form"


def key_json(mapping: Mapping, prefix: str = "") -> str:
    """SQL of the primary key as JSON: a scalar, or a list of scalars where the key is composite; `null` where there is none."""
    columns = [prefix + key.column for key in mapping.keys]
    if len(columns) == 1:
        return f"coalesce(CAST(to_json({columns[0]}) AS VARCHAR), 'null')"
    return f"CAST(to_json(json_array({', '.join(columns)})) AS VARCHAR)"


def key_is(mapping: Mapping, keys: Iterable[str], prefix: str = "") -> str:
    """SQL: the key is one of these (as JSON). Compares the columns as they are stored too, so that the engine reads only those
    parts of a file in which they can be."""
    rules = []
    for key in keys:
        stored = " AND ".join(
            f"{prefix}{column.column} = TRY_CAST({literal(text)} AS {column.storage})"
            if text is not None else f"{prefix}{column.column} IS NULL"
            for column, text in key_texts(mapping, key)
        )  # fmt: skip
        if stored:
            rules.append(f"({stored} AND {key_json(mapping, prefix)} = {literal(key)})")
    return f"({' OR '.join(rules) or 'false'})"


def key_texts(mapping: Mapping, key: str) -> list[tuple[KeyColumn, str | None]]:
    """The value of each column of a key (as JSON), as text; none where it has another number of columns."""
    parts = json.loads(key, parse_int=str, parse_float=str)
    parts = parts if isinstance(parts, list) else [parts]
    if len(parts) != len(mapping.keys):
        return []
    texts = [part if part is None or isinstance(part, str) else json.dumps(part) for part in parts]
    return list(zip(mapping.keys, texts, strict=True))


def mask(key: str) -> str:
    """A key as it may stand in a message: long text keeps its ends only."""
    return key if len(key) <= 8 else f"{key[:4]}…{key[-3:]}"


def has_key(mapping: Mapping, prefix: str = "") -> str:
    """SQL: no part of the key is NULL."""
    return " AND ".join(f"{prefix}{key.column} IS NOT NULL" for key in mapping.keys)


def is_nameless(mapping: Mapping, prefix: str = "") -> str:
    """SQL: the candidate is a row of the model that lacks a part of its key."""
    return f"{prefix}lk0 IS NULL AND NOT ({has_key(mapping, prefix)})"


@dataclass(frozen=True, slots=True)
class Found:
    """How many candidates there are: all, those with a key that is not in the ledger, or not in the model, and those
    without a key; and how many rows the ledger has."""

    all: int = 0
    new: int = 0
    gone: int = 0
    nameless: int = 0
    held: int = 0


def count_candidates(engine: duckdb.DuckDBPyConnection, mapping: Mapping, view: LedgerView | None) -> Found:
    rules = (
        f"lk0 IS NULL AND {has_key(mapping)}",
        "k0 IS NULL AND lk0 IS NOT NULL",
        is_nameless(mapping),
    )
    counts = ", ".join(f"count(*) FILTER (WHERE {rule})" for rule in rules)
    rows = engine.execute(f"SELECT count(*), {counts} FROM temp.main.candidates").fetchall()
    every, new, gone, nameless = rows[0]
    return Found(every, new, gone, nameless, view.count() if view is not None else 0)


class Duplicates:
    """The keys of temp.candidates, on one engine. `rows`: how many with a key the model has; `whole`: it was read completely."""

    def __init__(
        self,
        engine: duckdb.DuckDBPyConnection,
        mapping: Mapping,
        view: LedgerView | None,
        rows: int,
        found: Found,
        *,
        whole: bool,
    ) -> None:
        self.engine, self.mapping, self.view, self.rows, self.whole = engine, mapping, view, rows, whole
        self.count = found
        self.keys = [key.column for key in mapping.keys]
        self.named = has_key(mapping)
        self.new = f"temp.main.candidates WHERE lk0 IS NULL AND {self.named}"
        self.folded = [
            key.column if key.storage != "VARCHAR"
            else f"trim({key.column})" if key.column in mapping.exact
            else f"lower(trim(nfc_normalize({key.column})))"
            for key in mapping.keys
        ]  # fmt: skip

    def found(self, relation: Any) -> str:
        """What is wrong with the keys, with samples; '' where nothing is."""
        twice = self._twice(relation)
        if twice:
            return f"the primary key is not unique: {twice}"
        pairs = self._alike()
        return f"primary keys differ only in case, spaces or Unicode form: {pairs}" if pairs else ""

    def _twice(self, relation: Any) -> str:
        if self.view is None or not self.whole:
            return self._pairs("temp.main.candidates") if self.count.all > 1 else ""
        twice = self._pairs(self.new) if self.count.new > 1 else ""
        # every ledger key is there once: more matched model rows than matched ledger rows means duplicates
        if not twice and self.rows - self.count.new > self.count.held - self.count.gone:
            desired = self.mapping.desired(relation.again().sql)
            twice = self._pairs(f"({desired}) WHERE {self.named}")
            if not twice:
                raise _restless("named")
        return twice

    def _pairs(self, source: str) -> str:
        rows = self.engine.execute(
            f"SELECT {key_json(self.mapping)}, count(*) AS n FROM {source} "
            f"GROUP BY {', '.join(self.keys)} HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT 3"
        ).fetchall()
        return ", ".join(f"{mask(key)} ({count} rows)" for key, count in rows)

    def _alike(self) -> str:
        """Keys that differ only in case, outer spaces or Unicode form are duplicates too; keys of the ledger were
        checked when they came in, so only new ones are looked at."""
        if not self.count.new or not self._can_be_alike():
            return ""
        pair, alike = (
            f"list({key_json(self.mapping)}) AS pair",
            f"GROUP BY {', '.join(self.folded)} HAVING count(*) > 1",
        )
        rows = self.engine.execute(f"SELECT {pair} FROM {self.new} {alike} LIMIT 3").fetchall()
        if not rows and self.view is not None:
            rows = self.engine.execute(f"SELECT [a.j, b.j] FROM {self._like_held()} LIMIT 3").fetchall()
        return ", ".join(" and ".join(mask(key) for key in pair[:2]) for (pair,) in rows)

    def _can_be_alike(self) -> bool:
        return any(key.storage == "VARCHAR" for key in self.mapping.keys)

    def _like_held(self) -> str:
        """SQL of new keys (a) that are like one (b) of the ledger which has not left the model; `j` is a key as JSON."""
        assert self.view is not None  # noqa: S101 - asked only where there is a ledger
        names = ", ".join(f"{sql} AS n{at}" for at, sql in enumerate(self.folded))
        on = " AND ".join(f"a.n{at} = b.n{at}" for at in range(len(self.folded)))
        stays = " AND ".join(f"gone.l{key} = held.{key}" for key in self.keys)
        return (
            f"(SELECT *, {names}, {key_json(self.mapping)} AS j FROM {self.new}) AS a JOIN "
            f"(SELECT {names}, {key_json(self.mapping)} AS j FROM ({self.view.current(self.mapping)}) AS held "
            f"WHERE NOT EXISTS (SELECT 1 FROM temp.main.candidates gone WHERE gone.k0 IS NULL AND {stays})) AS b ON {on}"
        )

    def set_aside(self, relation: Any, but: str) -> None:
        """Makes one refused candidate of each key that is not alone, in place of all of its rows. `but`: what a row `c` of
        the model must be to count.

        Raises:
            SourceError: the model gives other rows when it is read again, so that nobody knows which keys these are.
        """
        self._find_aside(self.mapping.desired(relation.again().sql), but)
        same = " AND ".join(f"c.{key} = a.{key}" for key in self.keys)
        keys = ", ".join("a." + key for key in self.keys)
        values = [agreed(field.column) for field in self.mapping.fields]
        file = literal(str(spill_folder(self.engine) / "alone.parquet"))
        self.engine.execute(
            f"COPY (SELECT c.* FROM temp.main.candidates AS c WHERE NOT EXISTS (SELECT 1 FROM temp.main.aside AS a WHERE {same}) "
            f"UNION ALL BY NAME SELECT {keys}, any_value(a._hash) AS _hash, any_value(a._error) AS _error, {', '.join(values)} "
            f"FROM temp.main.aside AS a LEFT JOIN temp.main.candidates AS c ON {same} GROUP BY {keys}) TO {file} "
            "(FORMAT parquet, COMPRESSION snappy)"
        )
        self.engine.execute(f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT * FROM read_parquet({file})")
        if self._pairs("temp.main.candidates WHERE k0 IS NOT NULL"):
            raise _restless("set aside")

    def _find_aside(self, desired: str, but: str) -> None:
        """temp.aside: each key that is not alone, with a hash over all of its rows and what is said of it."""
        keys = ", ".join(self.keys)
        names = [f"n{at}" for at in range(len(self.keys))]
        folded = ", ".join(f"{sql} AS {name}" for sql, name in zip(self.folded, names, strict=True))
        self._make(
            "every", f"SELECT {keys}, _hash, {folded} FROM ({desired}) AS c WHERE {self.named} AND {but}"
        )
        if number(self.engine, "SELECT count(*) FROM temp.main.every") != self.rows:
            raise _restless("set aside")
        group = ", ".join(names)
        self._make("crowd", f"SELECT {group} FROM temp.main.every GROUP BY {group} HAVING count(*) > 1")
        head = literal(self.mapping.keys[0].name + SEPARATOR + "duplicate" + SEPARATOR)
        said = f"CASE WHEN count(*) > 1 THEN concat(count(*), ' rows have this key') ELSE {literal(_SPELLING)} END"
        self._make(
            "aside",
            f"SELECT {keys}, hash(list_sort(list(_hash))) AS _hash, concat({head}, {said}) AS _error "
            f"FROM temp.main.every SEMI JOIN temp.main.crowd USING ({group}) GROUP BY {keys}",
        )
        self.engine.execute("DROP TABLE temp.main.every")
        if self.view is not None and self._can_be_alike():
            new = ", ".join("a." + key for key in self.keys)
            known = " AND ".join(f"x.{key} = a.{key}" for key in self.keys)
            self.engine.execute(
                f"INSERT INTO temp.main.aside SELECT DISTINCT {new}, hash([a._hash]), concat({head}, {literal(_SPELLING)}) "
                f"FROM {self._like_held()} WHERE NOT EXISTS (SELECT 1 FROM temp.main.aside AS x WHERE {known})"
            )

    def _make(self, name: str, select: str) -> None:
        self.engine.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {select}")


def agreed(name: str) -> str:
    """SQL of what all rows `c` of a group have in a column, if they do."""
    column = ident(name)
    one = f"count(DISTINCT c.{column}) = 1 AND count(c.{column}) = count(*)"
    return f"CASE WHEN {one} THEN any_value(c.{column}) END AS {column}"


def _restless(what: str) -> SourceError:
    return SourceError(
        f"the model gave different rows when read twice, so its duplicate keys cannot be {what}"
    )


def check_repeated(engine: duckdb.DuckDBPyConnection, mapping: Mapping, relation: str) -> None:
    """Looks for candidates of an incremental read whose key another row of the model has. `relation`: the keys of all rows.

    Raises:
        SourceError: there is one; names samples.
    """
    named = ", ".join(key.column for key in mapping.keys)
    rows = engine.execute(
        f"SELECT {key_json(mapping)}, count(*) AS n FROM (SELECT {mapping.keys_of(relation)}) "
        f"SEMI JOIN (SELECT {named} FROM temp.main.candidates) USING ({named}) "
        f"GROUP BY {named} HAVING count(*) > 1 ORDER BY 2 DESC, 1 LIMIT 3"
    ).fetchall()
    if rows:
        twice = ", ".join(f"{mask(key)} ({count} rows)" for key, count in rows)
        raise SourceError(
            f"the primary key is not unique: {twice}",
            hint="make the model give one row a key; with `duplicates: reject` a run with --full sets such rows aside; nothing "
            "was sent",
        )
