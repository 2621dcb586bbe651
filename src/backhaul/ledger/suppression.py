"""Keeps rows of forgotten records out of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import pyarrow as pa

from backhaul.engine import number, spill_folder
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.replaced import named_identity
from backhaul.mapping.mapping import Mapping
from backhaul.sql import literal


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What is not to be sent: sha256 of `salt` and a forgotten record's key or identifier (`replaced.named_identity`)."""

    hashes: Sequence[str] = ()
    salt: str = ""

    def salted(self, mapping: Mapping) -> list[str]:
        """SQL of what stands for a row `c` among the hashes: by its key, and by its identifier."""
        texts = (key_json(mapping, "c."), named_identity(mapping))
        return [f"sha256({literal(self.salt)} || {text})" for text in texts]


NOTHING_FORGOTTEN = Forgotten()


def suppress(
    engine: duckdb.DuckDBPyConnection, forgotten: Sequence[str], salted: Sequence[str], columns: str
) -> int:
    """Takes rows out of temp.candidates of which a hash (SQL over a row `c`) is a forgotten one. Gives how many."""
    engine.register("forgotten_now", pa.table({"hash": pa.array(forgotten, pa.string())}))
    engine.execute("CREATE OR REPLACE TEMP TABLE forgotten AS SELECT * FROM forgotten_now")
    engine.unregister("forgotten_now")
    wanted = is_wanted(salted)
    count = number(engine, f"SELECT count(*) FROM temp.main.candidates AS c WHERE NOT {wanted}")
    if count:
        file = literal(str(spill_folder(engine) / "candidates.parquet"))
        engine.execute(
            f"CREATE OR REPLACE TEMP VIEW candidates AS SELECT {columns} FROM read_parquet({file}) AS c WHERE {wanted}"
        )
    return count


def is_wanted(salted: Sequence[str]) -> str:
    """SQL: the row is not of a forgotten record; for an engine on which `suppress` was called."""
    hits = (f"NOT EXISTS (SELECT 1 FROM temp.main.forgotten AS n WHERE n.hash = {one})" for one in salted)
    return f"({' AND '.join(hits)})"
