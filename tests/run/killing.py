"""A run in a process that can be killed: imported once, forked for every run."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext
from pathlib import Path

import backhaul

PRELOAD = [
    "killing",
    "backhaul.project",
    "backhaul.run",
    "backhaul.destinations.http",
    "duckdb",
    "pyarrow.parquet",
    "aiohttp",
]


def run_users(root: Path) -> None:
    """What the process does."""
    backhaul.load(root).run("users")


def forks() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context
