"""What dead letters say about the rows of a plan: which rows stay unsent, and which letters are stale."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa


def find_refused(engine: duckdb.DuckDBPyConnection, rows: Sequence[tuple[str, str, bool]]) -> None:
    """Fill temp.refused with dead letters as (key as JSON, hash, made by the mapping)."""
    table = pa.table({
        "key": pa.array([row[0] for row in rows], pa.string()),
        "hash": pa.array([row[1] for row in rows], pa.string()),
        "by_mapping": pa.array([row[2] for row in rows], pa.bool_()),
    })  # fmt: skip
    engine.register("refused_now", table)
    engine.execute("CREATE OR REPLACE TEMP TABLE refused AS SELECT * FROM refused_now")
    engine.unregister("refused_now")


def find_stale(
    engine: duckdb.DuckDBPyConnection, letters: Sequence[tuple[str, str]], key: str, reason: str
) -> list[str]:
    """Return the keys of dead letters (key as JSON, hash) that no candidate has. `key` and `reason`: SQL over a candidate `c`
    and a letter `n` of the candidate's key, and of whether the letter is about it."""
    keys, hashes = zip(*letters, strict=True)
    engine.register(
        "letters_now",
        pa.table({"key": pa.array(keys, pa.string()), "hash": pa.array(hashes, pa.string())}),
    )
    rows = engine.execute(
        f"SELECT key FROM letters_now AS n WHERE NOT EXISTS "
        f"(SELECT 1 FROM temp.main.candidates AS c WHERE {key} = n.key AND {reason})"
    ).fetchall()
    engine.unregister("letters_now")
    return [name for (name,) in rows]
