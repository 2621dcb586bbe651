"""Servers that tests need. Where one cannot be had its tests skip with the reason; under CI=true they fail."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_NUMBERS = itertools.count(1)


def missing(what: str) -> None:
    """Ends the test: skipped, or failed where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """A PostgreSQL server of this test process alone, or the one that BACKHAUL_TEST_POSTGRES names."""
    given = os.environ.get("BACKHAUL_TEST_POSTGRES")
    if given:
        yield given
        return
    # a socket's path is limited to 107 bytes, and the server's user must be able to reach it
    folder = tempfile.mkdtemp(prefix="bh-pg-", dir="/tmp")
    Path(folder).chmod(0o755)
    started = subprocess.run([ROOT / "scripts" / "postgres", "start", folder], capture_output=True, text=True)
    try:
        if started.returncode:
            missing(f"no PostgreSQL: {started.stderr.strip()[-300:]}")
        yield started.stdout.strip()
    finally:
        subprocess.run([ROOT / "scripts" / "postgres", "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def postgres_db(postgres_dsn: str) -> Iterator[str]:
    """The DSN of a fresh, empty database."""
    import psycopg

    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    yield postgres_dsn.rsplit("/", 1)[0] + "/" + name
    with psycopg.connect(postgres_dsn, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
