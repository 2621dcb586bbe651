"""What a destination has acknowledged, row by row: one DuckDB file a scope (state/scopes.py).

`acked` holds a row for every key that the destination holds or may hold: `_hash` of the acknowledged record (NULL: send it
again whatever the model says), `_state` (changes.py: why `_hash` is NULL), `_at` of the last acknowledgement (NULL:
never), the destination's own id, `_since`, and the acknowledged values. Both times are of the state's clock. `_since`: when it
became unknown; an acknowledged row has one while it is to be looked up again, because it was created after a look-up had found
nothing.
`_spelled` (JSON) is how the destination stores values otherwise than they were sent (verification/spellings.py).
`folded` names the plans already taken in. Outside a fold the file is only ever opened read-only, so any number of
processes can read it while a run is going on.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from collections.abc import Mapping as Dict
from pathlib import Path
from typing import Any

import duckdb
import orjson

from backhaul.engine import attached, number, spill_folder
from backhaul.errors import RunError, StateError
from backhaul.locks import alone
from backhaul.mapping.hashing import hash_function
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.mapping.wire import value_text
from backhaul.sql import ident, literal
from backhaul.state.protocol import State
from backhaul.types import FieldType, Nulls

ALIAS = "_backhaul_ledger"


FORMAT = 3
"""What this version writes. 1 had no `_since`, 2 no `_spelled`; they are read as they are and upgraded by the next fold."""


class Ledger:
    """The embedded ledger of one scope, whose sync is called `name`. `values=False` keeps hashes and identifiers, but no other
    value. `witness` is the state that remembers that there is a ledger, so that a lost file is not taken for a first run;
    `clock` is the state's."""

    def __init__(
        self,
        path: Path,
        *,
        name: str = "",
        values: bool = True,
        witness: State | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.name = name or path.stem
        self.clock = clock
        self.values = values
        self.witness = witness

    @contextlib.contextmanager
    def reading(self, engine: duckdb.DuckDBPyConnection) -> Iterator[LedgerView | None]:
        """The ledger as it is now, read-only; None before the first fold."""
        if not self.exists(engine):
            yield None
            return
        with attached(engine, self.path, ALIAS):
            yield self._view(engine)

    def _view(self, engine: duckdb.DuckDBPyConnection) -> LedgerView:
        return LedgerView(engine, self.path.name, self.clock)

    def exists(self, engine: duckdb.DuckDBPyConnection) -> bool:
        """Whether anything was ever folded.

        Raises:
            StateError: something was, and the file is gone.
        """
        if self.path.exists():
            return True
        if self.is_lost:
            raise StateError(
                f"the ledger ledgers/{self.path.name} is gone, so nobody knows what {self.name} has delivered",
                hint=f"put the file back; or `backhaul baseline {self.name}` where the destination is right as it is; "
                f"or `backhaul reset {self.name}` to begin anew, which repeats plain creates",
            )
        return False

    @property
    def is_lost(self) -> bool:
        """Whether the state remembers a ledger that is not there."""
        return self._is_witnessed() and not self.path.exists()

    def _is_witnessed(self) -> bool:
        return self.witness is not None and bool(self.witness.do("ledger", {"scope": self.path.stem}))

    def _bear_witness(self) -> None:
        if self.witness is not None and not self._is_witnessed():
            self.witness.do("keep_ledger", {"scope": self.path.stem})

    @contextlib.contextmanager
    def writing(self, engine: duckdb.DuckDBPyConnection) -> Iterator[LedgerView]:
        """The ledger, writable, in one transaction; the file is made where there is none."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not Ledger.exists(self, engine):
            self._make(engine)
        with attached(engine, self.path, ALIAS, writable=True):
            view = self._view(engine)
            engine.execute("BEGIN")
            try:
                if view.bare:
                    engine.execute(f"CREATE TABLE {ALIAS}.meta (name VARCHAR, value VARCHAR)")
                    engine.execute(f"CREATE TABLE {ALIAS}.folded (plan VARCHAR)")
                yield view
                engine.execute("COMMIT")
            except BaseException:
                # a commit that failed has ended the transaction itself
                with contextlib.suppress(duckdb.Error):
                    engine.execute("ROLLBACK")
                raise
        self.path.chmod(0o600)
        self._bear_witness()

    def _make(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Makes an empty file elsewhere and names it when it is whole: the engine refuses one that a killed process began."""
        with tempfile.TemporaryDirectory(dir=spill_folder(engine)) as made:
            begun = Path(made) / self.path.name
            with attached(engine, begun, ALIAS, writable=True):
                pass
            with alone(
                self.path.parent
            ):  # whoever removes a log must know that nobody has begun it meanwhile
                if self.path.exists():
                    return  # another process, which makes the same copy of a shared ledger, was first
                # the log of one that was removed: the engine refuses another file with it
                log_of(self.path).unlink(missing_ok=True)
                try:
                    self.path.hardlink_to(begun)
                except OSError:
                    begun.replace(self.path)  # on a file system without hard links

    def _remove(self) -> None:
        """Removes the file, and then its log: without it the file would be an older ledger."""
        with alone(self.path.parent):
            self.path.unlink(missing_ok=True)
            log_of(self.path).unlink(missing_ok=True)


def log_of(path: Path) -> Path:
    """Where the engine keeps what was committed to a file and is not in it yet; a process that was killed leaves one."""
    return path.with_name(path.name + ".wal")


class LedgerView:
    """An attached ledger: SQL over it, in the shape that a mapping wants."""

    def __init__(
        self, engine: duckdb.DuckDBPyConnection, file: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.engine = engine
        self._clock = clock
        found = self._said(file)
        self.bare = found is None
        """It is being made, or was killed in its first fold, before anything was committed."""
        self.meta: dict[str, str] = found or {}
        self.shape: dict[str, Any] = orjson.loads(self.meta.get("shape", "{}"))
        self.format = int(self.meta.get("format", "1")) if self.shape else FORMAT
        if self.format > FORMAT:
            raise StateError(
                f"{file} was written by a newer backhaul (ledger format {self.format}, this one knows {FORMAT})",
                hint="upgrade backhaul; the ledger was left as it is",
            )

    def _said(self, file: str) -> dict[str, str] | None:
        """What the ledger says of itself; None where there is no table at all."""
        try:
            return dict(self.engine.execute(f"SELECT name, value FROM {ALIAS}.meta").fetchall())
        except (duckdb.CatalogException, duckdb.BinderException):
            if number(self.engine, f"SELECT count(*) FROM duckdb_tables() WHERE database_name = '{ALIAS}'"):
                raise StateError(
                    f"{file} is not a backhaul ledger",
                    hint="see docs/troubleshooting.md, Damaged or locked state",
                ) from None
            return None

    @property
    def empty(self) -> bool:
        return not self.shape

    @property
    def now_sql(self) -> str:
        """SQL of the time by the state's clock, by which `_at` and `_since` are measured."""
        return f"make_timestamp({int(self._clock() * 1_000_000)})"

    def touch(self, keys: str | None) -> None:
        """Says that rows of these keys (a SELECT of them) are about to change; None: all may."""

    def renew(self) -> None:
        """Says that no copy of this ledger may keep what was removed from it."""

    def set(self, name: str, value: str | None) -> None:
        if self.meta.get(name) == value:
            return
        if self.meta.pop(name, None) is not None:
            self.engine.execute(f"DELETE FROM {ALIAS}.meta WHERE name = ?", [name])
        if value is not None:
            self.engine.execute(f"INSERT INTO {ALIAS}.meta VALUES (?, ?)", [name, value])
            self.meta[name] = value

    def clear(self) -> None:
        """Forgets everything that was set."""
        self.engine.execute(f"DELETE FROM {ALIAS}.meta")
        self.meta.clear()

    def mapping(self, identifiers: Collection[str] = ()) -> Mapping:
        """The mapping that the rows were acknowledged with; which fields identify a record is the caller's to say."""
        known = orjson.loads(self.meta.get("fields", "{}"))
        fields = {
            name: {
                "nulls": "skip" if rest and rest[0] else "clear", "field": {"name": name, "type": kind},
                **known.get(name, {}), "storage": storage, "identifier": name in identifiers,
            }
            for name, (storage, kind, *rest) in self.shape["fields"].items()
        }  # fmt: skip
        return Mapping.from_shape({"keys": self.shape["keys"], "fields": fields})

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
            *(["_since"] if self.format > 1 else []),
            *(["_spelled"] if self.format > 2 else []),
            *(ident(field.column) for field in mapping.fields),
        ]
        if self.fits(mapping):
            return f"SELECT {', '.join(names)} FROM {ALIAS}.acked"
        self._same_key(mapping)
        had: dict[str, list[Any]] = self.shape["fields"]
        values = [
            f"{_stored(field, had[field.name])} AS {ident(field.column)}" if field.name in had
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
            f"SELECT {', '.join(keys)}, {rehashed}, {', '.join(names[len(keys) + 1 :])} FROM ("
            f"SELECT {', '.join(names[: -len(mapping.fields)])}, {', '.join(values)}, {altered} AS _altered "
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
        """Brings the stored rows into a mapping's shape and this version's format, making the table where there is none."""
        self.upgrade()
        if self.empty:
            columns = [f"{key.column} {key.storage}" for key in mapping.keys]
            columns += [
                "_hash UBIGINT",
                "_state UTINYINT",
                "_at TIMESTAMP",
                "_remote_id VARCHAR",
                "_since TIMESTAMP",
                "_spelled VARCHAR",
            ]
            columns += [f"{ident(field.column)} {field.storage}" for field in mapping.fields]
            self.engine.execute(f"CREATE TABLE {ALIAS}.acked ({', '.join(columns)})")
        elif not self.fits(mapping):
            self.touch(None)
            self.engine.execute(f"CREATE TABLE {ALIAS}.reshaped AS {self.current(mapping)}")
            self.engine.execute(f"DROP TABLE {ALIAS}.acked")
            self.engine.execute(f"ALTER TABLE {ALIAS}.reshaped RENAME TO acked")
        self.shape = stored_shape(mapping)
        self.set("shape", orjson.dumps(self.shape).decode())
        self.set("fields", orjson.dumps(mapping.shape["fields"]).decode())
        self.set("hash", hash_function())

    def upgrade(self) -> None:
        """Brings the rows into this version's format."""
        added = ("_since TIMESTAMP", "_spelled VARCHAR")[self.format - 1 :]
        for column in added:
            self.touch(None)
            self.engine.execute(f"ALTER TABLE {ALIAS}.acked ADD COLUMN {column}")
        self.format = FORMAT
        self.set("format", str(FORMAT))

    def last_folded(self) -> str | None:
        """The newest plan that was taken in."""
        plan = self.engine.execute(f"SELECT max_by(plan, rowid) FROM {ALIAS}.folded").fetchall()[0][0]
        return None if plan is None else str(plan)

    def folded(self, count: int) -> list[str]:
        """The newest plans that were taken in, newest first."""
        rows = self.engine.execute(
            f"SELECT plan FROM {ALIAS}.folded ORDER BY rowid DESC LIMIT {count}"
        ).fetchall()
        return [plan for (plan,) in rows]

    def has_folded(self, plan: str) -> bool:
        return bool(number(self.engine, f"SELECT count(*) FROM {ALIAS}.folded WHERE plan = {literal(plan)}"))


def stored_shape(mapping: Mapping) -> dict[str, Any]:
    """What the ledger remembers of a mapping: of each field its storage, its kind, and whether NULLs leave it alone."""
    return {
        "keys": [[key.name, key.storage] for key in mapping.keys],
        "fields": {
            field.name: [field.storage, str(field.field.type), field.nulls is Nulls.SKIP]
            for field in mapping.fields
        },
    }


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
        before, after = column, _stored(field, had[field.name])
        quoted = _form(storage, FieldType(kind)) == "quoted"
        if quoted or kind == field.field.type:
            # the destination takes it for the same type as before: 42 of an integer column is 42.0 of a text column
            before = value_text(before, storage, FieldType(kind))
            after = value_text(after, field.storage, field.field.type)
        yield f"CAST({before} AS VARCHAR) IS DISTINCT FROM CAST({after} AS VARCHAR)"


def _stored(field: MappedField, had: list[Any]) -> str:
    """A stored value in the storage that a field has now."""
    storage, kind, *_ = had
    return converted(ident(field.column), storage, FieldType(kind), field.storage)


def converted(value: str, storage: str, kind: FieldType, wanted: str) -> str:
    """SQL of a stored value in another storage: NULL where it does not fit; a text is the one that left."""
    if wanted == "VARCHAR" != storage:
        return value_text(value, storage, kind)
    return f"TRY_CAST({value} AS {wanted})"


def _form(storage: str, kind: FieldType) -> str:
    """How a value stands in JSON: as JSON itself, quoted, or bare."""
    if kind in (FieldType.JSON, FieldType.ARRAY):
        return "json"
    return "quoted" if storage in ("VARCHAR", "DATE", "TIMESTAMP", "TIMESTAMPTZ") else "bare"
