"""A ledger that workers on many disks share: in the state it is a base and what each fold has changed since, as Parquet
files; on a worker's disk it is a DuckDB file like any other, which only ever catches up.

Folds happen on the worker's copy, by the same SQL; what they changed is stored in the state before the copy is
committed. A worker that dies between the two is behind, and catches up.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import orjson

from backhaul.engine import attached, number, spill_folder
from backhaul.errors import StateError
from backhaul.ledger.ledger import ALIAS, Ledger, LedgerView
from backhaul.sql import literal
from backhaul.state.protocol import Fold, SharedState

_CHAIN = 50
"""So many folds after a base, and the next one is a base again."""
_REMEMBERED = 200
"""Plans that a ledger still knows to be folded when a worker begins with an empty disk."""
_TRIES = 5


class SharedView(LedgerView):
    """A view that collects the keys of what changes in `temp.touched`; `whole`: everything may have."""

    whole = False
    some = False
    renewed = False

    def renew(self) -> None:
        self.whole = self.renewed = True

    def touch(self, keys: str | None) -> None:
        if keys is None:
            self.whole = True
            return
        into = "INSERT INTO temp.main.touched" if self.some else "CREATE OR REPLACE TEMP TABLE touched AS"
        self.engine.execute(f"{into} {keys}")
        self.some = True

    @property
    def fold(self) -> int:
        return int(self.meta.get("fold", "0"))


class SharedLedger(Ledger):
    """The ledger of one scope in a shared state, and this worker's copy of it at `path`."""

    def __init__(
        self, path: Path, state: SharedState, scope: str, *, name: str = "", values: bool = True
    ) -> None:
        super().__init__(path, name=name or scope, values=values, clock=state.clock)
        self.state, self.scope = state, scope

    def _view(self, engine: duckdb.DuckDBPyConnection) -> SharedView:
        return SharedView(engine, self.path.name, self.clock)

    def exists(self, engine: duckdb.DuckDBPyConnection) -> bool:
        self._catch_up(engine)
        return self.path.exists()

    @contextlib.contextmanager
    def writing(self, engine: duckdb.DuckDBPyConnection) -> Iterator[LedgerView]:
        self._catch_up(engine)
        with super().writing(engine) as view:
            was = _said(view)
            yield view
            if isinstance(view, SharedView) and (view.some or view.whole or _said(view) != was):
                self._store(view)

    def _catch_up(self, engine: duckdb.DuckDBPyConnection) -> None:
        """Brings this worker's copy to the state's newest fold.

        Raises:
            StateError: the state's files do not make a ledger.
        """
        for _ in range(_TRIES):
            folds = self.state.folds(self.scope)
            known = self._known(engine)
            if folds and known == (folds[-1].lineage, folds[-1].fold):
                return
            if known and (not folds or known[0] != folds[-1].lineage or known[1] > folds[-1].fold):
                self._remove()
                known = None
            ahead = [fold for fold in folds if known is None or fold.fold > known[1]]
            bases = [number for number, fold in enumerate(ahead) if fold.base]
            ahead = ahead[bases[-1] :] if bases else ahead
            if not ahead or self._apply(engine, ahead):
                return
        raise StateError(f"the ledger of {self.name} in the state changes faster than it can be read",
                         hint="run again in a moment")  # fmt: skip

    def _known(self, engine: duckdb.DuckDBPyConnection) -> tuple[str, int] | None:
        """(lineage, fold) of this worker's copy."""
        if not self.path.exists():
            return None
        with attached(engine, self.path, ALIAS):
            view = self._view(engine)
            return view.meta.get("lineage", ""), view.fold

    def _apply(self, engine: duckdb.DuckDBPyConnection, folds: list[Fold]) -> bool:
        """False where a file has gone meanwhile, because a base took its place."""
        files = []
        for fold in folds:
            file = spill_folder(engine) / f"fold-{fold.fold}.parquet"
            if not self.state.fetch_file(fold.file, file):
                return False
            files.append(file)
        with super().writing(engine) as view:
            for fold, file in zip(folds, files, strict=True):
                _take(view, fold, file)
        for file in files:
            file.unlink()
        return True

    def _store(self, view: SharedView) -> None:
        """Stores what this transaction changed, before it is committed here."""
        folds = self.state.folds(self.scope)
        rows = view.count()
        touched = number(view.engine, "SELECT count(*) FROM temp.main.touched") if view.some else 0
        since = sum(fold.rows for fold in folds if not fold.base)
        base = view.whole or not folds or len(folds) > _CHAIN or since + touched > rows // 2
        keys = [name for name, _ in _columns(view) if name.startswith("k") and name[1:].isdigit()]
        if base:
            select = f"SELECT *, false AS _gone FROM {ALIAS}.acked"
        elif view.some:
            same = " AND ".join(f"t.{key} = a.{key}" for key in keys)
            rest = ", ".join(
                f'a."{name.replace(chr(34), chr(34) * 2)}"' for name, _ in _columns(view) if name not in keys
            )
            names = ", ".join(f"t.{key}" for key in keys)
            select = (
                f"SELECT {names}, {rest}, a.{keys[0]} IS NULL AS _gone FROM (SELECT DISTINCT * FROM temp.main.touched) AS t "
                f"LEFT JOIN {ALIAS}.acked AS a ON {same}"
            )
        else:
            select = f"SELECT *, false AS _gone FROM {ALIAS}.acked LIMIT 0"
        file = spill_folder(view.engine) / "fold.parquet"
        view.engine.execute(f"COPY ({select}) TO {literal(str(file))} (FORMAT parquet, COMPRESSION zstd)")
        # of another lineage no worker keeps its copy, nor the free blocks in it
        lineage = folds[-1].lineage if folds and not view.renewed else secrets.token_hex(8)
        fold = Fold(
            self.scope,
            view.fold + 1,
            base,
            lineage,
            rows if base else touched,
            orjson.dumps(_said(view)).decode(),
        )
        self.state.add_fold(fold, file)
        file.unlink()
        _mark(view, fold)


def _columns(view: LedgerView) -> list[tuple[str, str]]:
    found = view.engine.execute(
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = '{ALIAS}' AND table_name = 'acked' "
        "ORDER BY column_index"
    )
    return found.fetchall()


def _said(view: LedgerView) -> dict[str, Any]:
    """What the ledger says of itself, beside its rows."""
    meta = dict(view.engine.execute(f"SELECT name, value FROM {ALIAS}.meta").fetchall())
    folded = view.engine.execute(
        f"SELECT plan FROM {ALIAS}.folded ORDER BY rowid DESC LIMIT {_REMEMBERED}"
    ).fetchall()
    return {
        "meta": {name: value for name, value in sorted(meta.items()) if name not in ("fold", "lineage")},
        "folded": [plan for (plan,) in reversed(folded)],
    }


def _mark(view: LedgerView, fold: Fold) -> None:
    view.set("fold", str(fold.fold))
    view.set("lineage", fold.lineage)


def _take(view: LedgerView, fold: Fold, file: Path) -> None:
    """Takes one fold's file into this worker's copy."""
    source = f"read_parquet({literal(str(file))})"
    engine = view.engine
    if fold.base:
        engine.execute(f"DROP TABLE IF EXISTS {ALIAS}.acked")
        engine.execute(f"CREATE TABLE {ALIAS}.acked AS SELECT * EXCLUDE _gone FROM {source}")
    else:
        keys = ", ".join(name for name, _ in _columns(view) if name.startswith("k") and name[1:].isdigit())
        engine.execute(f"DELETE FROM {ALIAS}.acked WHERE ({keys}) IN (SELECT ({keys}) FROM {source})")
        engine.execute(
            f"INSERT INTO {ALIAS}.acked BY NAME SELECT * EXCLUDE _gone FROM {source} WHERE NOT _gone"
        )
    said = orjson.loads(fold.body)
    view.clear()
    for name, value in said["meta"].items():
        view.set(name, value)
    engine.execute(f"DELETE FROM {ALIAS}.folded")
    for plan in said["folded"]:
        engine.execute(f"INSERT INTO {ALIAS}.folded VALUES (?)", [plan])
    _mark(view, fold)
