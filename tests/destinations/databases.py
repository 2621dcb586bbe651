"""The three SQL destinations, as databases of their own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from mysql_rows import execute
from places import project

from backhaul.runs.report import RunReport
from backhaul.testing.duckdb_file import opened


class Database:
    """One of the three, with `run` for statements, and a project of one sync `s` of rows `t` into its table `thing`."""

    def __init__(self, kind: str, folder: Path, dsn: str) -> None:
        self.kind, self.folder, self.dsn = kind, folder, dsn
        self.settings = {"type": kind, "path": "app.db"} if kind == "sqlite" else {"type": kind, "dsn": dsn}
        self.project: Any = None

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        if self.kind == "mysql":
            return execute(self.dsn, *statements)
        rows: list[tuple[Any, ...]] = []
        if self.kind == "postgres":
            with psycopg.connect(self.dsn, autocommit=True) as db:
                for statement in statements:
                    cursor = db.execute(statement)
                    rows = cursor.fetchall() if cursor.description else []
            return rows
        with closing(sqlite3.connect(self.folder / "app.db", isolation_level=None)) as db:
            for statement in statements:
                rows = db.execute(statement).fetchall()
        return rows

    def sync(
        self, select: str, *, table: str = "thing", fields: str | dict[str, Any] = "v", **more: Any
    ) -> RunReport:
        """Runs a sync of this SELECT."""
        if self.project is None:
            mapped = {name: name for name in fields.split()} if isinstance(fields, str) else fields
            sync = {
                "object": table,
                "mode": "mirror",
                "identify": {"id": "id"},
                "fields": mapped,
                "guards": {"max_deletes": "off"},
            }
            self.project = project(self.folder, self.settings, sync | more, select)
        else:
            with opened(self.folder / "w.duckdb") as warehouse:
                warehouse.execute(f"CREATE OR REPLACE TABLE t AS {select}")
        report: RunReport = self.project.run("s").report
        return report
