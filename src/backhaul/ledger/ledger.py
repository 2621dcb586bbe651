"""What a destination has acknowledged, row by row: one DuckDB file a sync.

`acked` holds a row for every key that the destination holds or may hold: `_hash` of the acknowledged record (NULL: send it
again whatever the model says), `_state` (why `_hash` is NULL), `_at` of the last acknowledgement (UTC, NULL: never), the
destination's own id, and the acknowledged values. `folded` names the plans already taken in. Outside a fold the file is
only ever opened read-only, so any number of processes can read it while a run is going on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from collections.abc import Mapping as Dict
from enum import IntEnum
from pathlib import Path
from typing import Any

import duckdb
import orjson

from backhaul.engine import attached, number
from backhaul.errors import RunError, StateError
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.sql import ident, literal
from backhaul.types import FieldType, Nulls

ALIAS = "ledger"


class RowState(IntEnum):
    """Why a ledger row is as it is."""

    ACKED = 0
    UNKNOWN = 1
    """A request about it left and nobody knows what became of it."""
    KNOWN = 2
    """`reset`: the key is known, the value is not."""


class Ledger:
    """The embedded ledger of one sync. `values=False` keeps hashes and identifiers, but no other value."""

    def __init__(self, path: Path, *, values: bool = True) -> None:
        self.path = path
        self.values = values

    @contextlib.contextmanager
    def reading(self, engine: duckdb.DuckDBPyConnection) -> Iterator[LedgerView | None]:
        """The ledger as it is now, read-only; None before the first fold."""
        if not self.path.exists():
            yield None
            return
        with attached(engine, self.path, ALIAS):
            yield LedgerView(engine, self.path.name)

    @contextlib.contextmanager
    def writing(self, engine: duckdb.DuckDBPyConnection) -> Iterator[LedgerView]:
        """The ledger, writable, in one transaction; the file is made where there is none."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = not self.path.exists()
        with attached(engine, self.path, ALIAS, writable=True):
            engine.execute("BEGIN")
            try:
                if not fresh:
                    LedgerView(engine, self.path.name)
                engine.execute(f"CREATE TABLE IF NOT EXISTS {ALIAS}.meta (name VARCHAR, value VARCHAR)")
                engine.execute(f"CREATE TABLE IF NOT EXISTS {ALIAS}.folded (plan VARCHAR)")
                yield LedgerView(engine, self.path.name)
                engine.execute("COMMIT")
            except BaseException:
                engine.execute("ROLLBACK")
                raise
        self.path.chmod(0o600)


class LedgerView:
    """An attached ledger: SQL over it, in the shape that a mapping wants."""

    def __init__(self, engine: duckdb.DuckDBPyConnection, file: str) -> None:
        self.engine = engine
        tables = engine.execute(f"SELECT table_name FROM duckdb_tables() WHERE database_name = '{ALIAS}'")
        found = {name for (name,) in tables.fetchall()}
        if found and "meta" not in found:
            raise StateError(
                f"{file} is not a backhaul ledger",
                hint="see docs/troubleshooting.md, Damaged or locked state",
            )
        # without any table it was killed in its first fold, before anything was committed
        rows = engine.execute(f"SELECT name, value FROM {ALIAS}.meta").fetchall() if found else []
        self.meta: dict[str, str] = dict(rows)
        self.shape: dict[str, Any] = orjson.loads(self.meta.get("shape", "{}"))

    @property
    def empty(self) -> bool:
        return not self.shape

    def set(self, name: str, value: str | None) -> None:
        self.engine.execute(f"DELETE FROM {ALIAS}.meta WHERE name = ?", [name])
        if value is not None:
            self.engine.execute(f"INSERT INTO {ALIAS}.meta VALUES (?, ?)", [name, value])
            self.meta[name] = value

    def count(self) -> int:
        """Rows in the ledger."""
        return 0 if self.empty else number(self.engine, f"SELECT count(*) FROM {ALIAS}.acked")

    def is_intact(self) -> bool:
        """Whether every row can be read; reads all of them."""
        if self.empty:
            return True
        try:
            self.engine.execute(f"SELECT max(hash(acked)) FROM {ALIAS}.acked AS acked").fetchall()
        except duckdb.Error:
            return False
        return True

    def fits(self, mapping: Mapping) -> bool:
        """Whether the stored rows are already in this mapping's shape and hashed by this engine's function."""
        return self.shape == stored_shape(mapping) and self.meta.get("hash") == hash_function()

    def current(self, mapping: Mapping) -> str:
        """A SELECT of the ledger in a mapping's shape: `k0…, _hash, _state, _at, _remote_id, f.…`.

        Where shape or hash function differ, values are cast, hashes recomputed from them, and rows whose payload would be
        another although the values are the same lose their hash: exactly these are sent again.
        """
        keys = [key.column for key in mapping.keys]
        names = [
            *keys,
            "_hash",
            "_state",
            "_at",
            "_remote_id",
            *(ident(field.column) for field in mapping.fields),
        ]
        if self.fits(mapping):
            return f"SELECT {', '.join(names)} FROM {ALIAS}.acked"
        self._same_key(mapping)
        had: dict[str, list[Any]] = self.shape["fields"]
        values = [
            f"TRY_CAST({ident(field.column)} AS {field.storage}) AS {ident(field.column)}" if field.name in had
            else f"CAST(NULL AS {field.storage}) AS {ident(field.column)}"
            for field in mapping.fields
        ]  # fmt: skip
        altered = (
            " OR ".join(f"({rule})" for field in mapping.fields for rule in _altered(field, had)) or "false"
        )
        if self.meta.get("values") == "no":
            altered = "true"
        rehashed = (
            f"CASE WHEN _hash IS NOT NULL AND NOT _altered THEN {mapping.hash_sql()} END::UBIGINT AS _hash"
        )
        return (
            f"SELECT {', '.join(keys)}, {rehashed}, _state, _at, _remote_id, {', '.join(names[len(keys) + 4 :])} FROM ("
            f"SELECT {', '.join(keys)}, _hash, _state, _at, _remote_id, {', '.join(values)}, {altered} AS _altered "
            f"FROM {ALIAS}.acked)"
        )

    def _same_key(self, mapping: Mapping) -> None:
        if self.shape["keys"] != mapping.shape["keys"]:
            had = ", ".join(f"{name} {storage}" for name, storage in self.shape["keys"])
            now = ", ".join(f"{key.name} {key.storage}" for key in mapping.keys)
            raise RunError(
                f"the primary key was ({had}) and is now ({now}), so no record could be recognised",
                hint="put the key back, or give the sync a new name and start it with `backhaul baseline`",
            )

    def adopt(self, mapping: Mapping) -> None:
        """Brings the stored rows into a mapping's shape, making the table where there is none."""
        if self.empty:
            columns = [f"{key.column} {key.storage}" for key in mapping.keys]
            columns += ["_hash UBIGINT", "_state UTINYINT", "_at TIMESTAMP", "_remote_id VARCHAR"]
            columns += [f"{ident(field.column)} {field.storage}" for field in mapping.fields]
            self.engine.execute(f"CREATE TABLE {ALIAS}.acked ({', '.join(columns)})")
        elif not self.fits(mapping):
            self.engine.execute(f"CREATE TABLE {ALIAS}.reshaped AS {self.current(mapping)}")
            self.engine.execute(f"DROP TABLE {ALIAS}.acked")
            self.engine.execute(f"ALTER TABLE {ALIAS}.reshaped RENAME TO acked")
        self.shape = stored_shape(mapping)
        self.set("shape", orjson.dumps(self.shape).decode())
        self.set("hash", hash_function())

    def has_folded(self, plan: str) -> bool:
        return bool(number(self.engine, f"SELECT count(*) FROM {ALIAS}.folded WHERE plan = {literal(plan)}"))


def stored_shape(mapping: Mapping) -> dict[str, Any]:
    """What the ledger remembers of a mapping: of each field its storage, its kind, and whether NULLs leave it alone."""
    shape = mapping.shape
    skips = {field.name: field.nulls is Nulls.SKIP for field in mapping.fields}
    shape["fields"] = {name: [parts[0], parts[3], skips[name]] for name, parts in shape["fields"].items()}
    return shape


def _altered(field: MappedField, had: Dict[str, list[Any]]) -> Iterator[str]:
    """Conditions on a stored row under which a field's payload is another one, whatever the model says."""
    column = ident(field.column)
    if field.name not in had:
        if field.nulls is not Nulls.SKIP:
            yield "true"
        return
    storage, kind, skipped = had[field.name]
    if skipped and field.nulls is not Nulls.SKIP:
        # nobody knows what the destination holds where nothing was ever sent
        yield f"{column} IS NULL"
    if _form(storage, FieldType(kind)) != _form(field.storage, field.field.type):
        yield f"{column} IS NOT NULL"
    elif storage != field.storage:
        yield f"CAST({column} AS VARCHAR) IS DISTINCT FROM CAST(TRY_CAST({column} AS {field.storage}) AS VARCHAR)"


def _form(storage: str, kind: FieldType) -> str:
    """How a value stands in JSON: as JSON itself, quoted, or bare."""
    if kind in (FieldType.JSON, FieldType.ARRAY):
        return "json"
    return "quoted" if storage in ("VARCHAR", "DATE", "TIMESTAMP", "TIMESTAMPTZ") else "bare"


def hash_function() -> str:
    """Names the function that makes the hashes; they are only compared with hashes of the same name."""
    return f"duckdb {duckdb.__version__} hash"
