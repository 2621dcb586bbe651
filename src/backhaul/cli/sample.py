"""The sample data of a new project: 1,000 customers, the same every time."""

from __future__ import annotations

import csv
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

_COUNT = 1000
_COLUMNS = """id BIGINT PRIMARY KEY, email TEXT, name TEXT, plan TEXT, mrr DECIMAL(10, 2), health INTEGER,
    updated_at TIMESTAMP"""
_FIRST = ("Ada", "Ben", "Chika", "Dana", "Emre", "Farah", "Grace", "Hugo", "Ines", "Jun")
_LAST = ("Adams", "Baker", "Costa", "Diaz", "Evans", "Fischer", "Garcia", "Haas", "Ito", "Jensen")
_PLANS = {"free": 0, "team": 49, "business": 249, "enterprise": 1200}

Row = tuple[int, str, str, str, str, int, str]


def customers() -> Iterator[Row]:
    chance = random.Random(7)
    newest = datetime(2026, 1, 31, 12)  # noqa: DTZ001 - the column has no zone
    for number in range(1, _COUNT + 1):
        first, last = chance.choice(_FIRST), chance.choice(_LAST)
        plan = chance.choice(list(_PLANS))
        revenue = f"{_PLANS[plan] * chance.randint(8, 12) / 10:.2f}"
        seen = (newest - timedelta(minutes=chance.randint(0, 90 * 1440))).isoformat(" ")
        email, health = f"{first}.{last}.{number}@example.com", chance.randint(0, 100)
        yield number, email, f"{first} {last}", plan, revenue, health, seen


def duckdb_warehouse(path: Path) -> None:
    import duckdb

    with duckdb.connect(str(path)) as warehouse:
        warehouse.execute(f"CREATE TABLE customers ({_COLUMNS})")
        warehouse.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)", list(customers()))


def sqlite_warehouse(path: Path) -> None:
    with closing(sqlite3.connect(path)) as warehouse, warehouse:
        warehouse.execute(f"CREATE TABLE customers ({_COLUMNS})")
        warehouse.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?, ?)", customers())


def csv_warehouse(path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "email", "name", "plan", "mrr", "health", "updated_at"])
        writer.writerows(customers())


WAREHOUSES = {"duckdb": duckdb_warehouse, "sqlite": sqlite_warehouse, "files": csv_warehouse}


def database(path: Path, table: str) -> None:
    """The product's database, with the empty table that the first sync fills."""
    name = '"' + table.replace('"', '""') + '"'
    with closing(sqlite3.connect(path)) as app, app:
        columns = (
            "id INTEGER PRIMARY KEY, email TEXT NOT NULL, name TEXT, plan TEXT, mrr NUMERIC, health INTEGER"
        )
        app.execute(f"CREATE TABLE {name} ({columns})")
