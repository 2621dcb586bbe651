"""The projects that are measured: one sync of ten columns, from a DuckDB file or PostgreSQL to HTTP or PostgreSQL."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from benchmarks.bare import COLUMNS


def duckdb_file(path: Path) -> dict[str, object]:
    return {"type": "duckdb", "path": str(path)}


def postgres_dsn(dsn: str) -> dict[str, object]:
    return {"type": "postgres", "dsn": dsn}


def http(url: str, batch: int) -> dict[str, object]:
    upsert = {"request": "POST /upsert", "batch_size": batch, "body": {"records": "$records"}}
    return {"type": "http", "base_url": url, "objects": {"customers": {"key": "id", "upsert": upsert}}}


def make_project(
    folder: Path,
    warehouse: dict[str, object],
    destination: dict[str, object],
    state: str = ".backhaul",
    name: str = "customers",
) -> Path:
    """Writes the project files; JSON is YAML. `name` is the sync's."""
    (folder / "syncs").mkdir(parents=True)
    (folder / "backhaul.yml").write_text(
        json.dumps(
            {
                "project": "bench",
                "state": state,
                "warehouses": {"source": warehouse},
                "destinations": {"target": destination},
            }
        )
    )
    (folder / "syncs" / f"{name}.yml").write_text(
        json.dumps(
            {
                "name": name,
                "model": {"warehouse": "source", "sql": "select * from customers", "primary_key": "id"},
                "destination": "target",
                "object": "customers",
                "identify": {"id": "id"},
                "fields": {name: name for name in COLUMNS},
            }
        )
    )
    return folder


def ledger(project: Path) -> Path:
    return next((project / ".backhaul" / "ledgers").glob("*.duckdb"))


def forget(project: Path) -> None:
    """Throws the project's state away: its next run is the first."""
    shutil.rmtree(project / ".backhaul", ignore_errors=True)
