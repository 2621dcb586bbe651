"""A project of one sync from a DuckDB table into one destination."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from backhaul.project import load
from backhaul.testing.duckdb_file import opened


def project(folder: Path, destination: dict[str, Any], sync: dict[str, Any], table: str) -> Any:
    """`table` is the SELECT that makes the model, whose key is `id`."""
    (folder / "syncs").mkdir()
    (folder / "backhaul.yml").write_text(json.dumps({
        "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"d": destination},
    }))  # fmt: skip
    model = {"table": "t", "primary_key": "id"}
    (folder / "syncs" / "s.yml").write_text(
        json.dumps({"name": "s", "model": model, "destination": "d", **sync})
    )
    with opened(folder / "w.duckdb") as warehouse:
        warehouse.execute(f"CREATE TABLE t AS {table}")
    return load(folder)
