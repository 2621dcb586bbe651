"""A run in a process that can be killed: imported once, forked for every run; and what it left in flight."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import duckdb
from sites import Site

import backhaul

PRELOAD = [
    "killing",
    "backhaul.project",
    "backhaul.runs.run",
    "backhaul.destinations.http",
    "duckdb",
    "pyarrow.parquet",
    "aiohttp",
]


def run_users(root: Path) -> None:
    """What the process does."""
    backhaul.load(root).run("users")


def in_flight(site: Site) -> set[str]:
    """Keys of the rows whose intent has no outcome, read from the state and the plan's file."""
    keys: set[str] = set()
    intents = site.rows(
        "SELECT i.plan, i.low, i.high FROM intents i JOIN plans p ON p.id = i.plan WHERE p.status = 'delivering'"
    )
    for plan, low, high in intents:
        file = site.root / ".backhaul" / "plans" / f"{plan}.parquet"
        numbered = f"read_parquet('{file}', file_row_number = true)"
        where = f"file_row_number >= {low} AND file_row_number < {high}"
        keys |= {str(key) for (key,) in duckdb.sql(f"SELECT k0 FROM {numbered} WHERE {where}").fetchall()}
    return keys


def forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context
