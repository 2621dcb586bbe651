"""Servers that tests need. Where one cannot be had its tests skip with the reason; under CI=true they fail."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The tests start hundreds of processes, which would each compile every module that they import
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# how long an example takes says how busy the machine is
settings.register_profile("backhaul", deadline=None)
settings.load_profile("backhaul")

ROOT = Path(__file__).parent.parent
UNSYNCED = {**os.environ, "FSYNC": "off"}
"""For servers that end with the tests, none of which has the machine crash."""
_NUMBERS = itertools.count(1)


_SERVERS = ("postgres", "mysql", "mariadb", "dynamo", "pgbouncer")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that are run as steps of their own (.ci/run): by the servers that they, or their names, ask for."""
    for item in items:
        names = (item.nodeid.rpartition("/")[2], *getattr(item, "fixturenames", ()))
        if item.path.is_relative_to(ROOT / "tests" / "simulation") or "torture" in item.path.parts[-2:]:
            item.add_marker("simulation")
        elif any(server in name for server in _SERVERS for name in names):
            item.add_marker("servers")


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
    started = subprocess.run(
        [ROOT / "scripts" / "postgres", "start", folder], env=UNSYNCED, capture_output=True, text=True
    )
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


@pytest.fixture
def pooled_db(postgres_db: str) -> Iterator[str]:
    """The DSN of a fresh database through a PgBouncer in transaction mode, whose clients share three server connections."""
    folder = tempfile.mkdtemp(prefix="bh-pool-", dir="/tmp")
    Path(folder).chmod(0o755)
    port, name = postgres_db.rsplit(":", 1)[1].split("/")
    line = [ROOT / "scripts" / "pgbouncer", "start", folder, port]
    started = subprocess.run(line, capture_output=True, text=True)
    try:
        if started.returncode:
            missing(f"no PgBouncer: {started.stderr.strip()[-300:]}")
        yield started.stdout.strip().rsplit("/", 1)[0] + "/" + name
    finally:
        subprocess.run([ROOT / "scripts" / "pgbouncer", "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mysql_dsn() -> Iterator[str]:
    """A MariaDB server of this test process alone."""
    folder = tempfile.mkdtemp(prefix="bh-my-", dir="/tmp")
    Path(folder).chmod(0o755)
    started = subprocess.run(
        [ROOT / "scripts" / "mariadb", "start", folder], env=UNSYNCED, capture_output=True, text=True
    )
    try:
        if started.returncode:
            missing(f"no MariaDB: {started.stderr.strip()[-300:]}")
        yield started.stdout.strip()
    finally:
        subprocess.run([ROOT / "scripts" / "mariadb", "stop", folder], check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def mysql_db(mysql_dsn: str) -> Iterator[str]:
    """The DSN of a fresh, empty database."""
    import pymysql

    name = f"test_{os.getpid()}_{next(_NUMBERS)}"
    port = int(mysql_dsn.rsplit(":", 1)[1].split("/")[0])
    with pymysql.connect(host="127.0.0.1", port=port, user="root", autocommit=True) as admin:
        cursor = admin.cursor()
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        yield mysql_dsn.rsplit("/", 1)[0] + "/" + name
        cursor.execute(f"DROP DATABASE {name}")


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[str]:
    """The address of moto's DynamoDB, in a process of its own."""
    line = [sys.executable, ROOT / "tests" / "dynamodb_server.py"]
    server = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        port = server.stdout.readline().strip()
        if not port:
            missing(f"no simulated DynamoDB: {server.stderr.read().strip()[-300:]}")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def dynamodb_state(dynamodb: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a state whose table is not there yet."""
    for name, value in {
        "ACCESS_KEY_ID": "someone",
        "SECRET_ACCESS_KEY": "s3cret-s3cret",
        "EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return f"dynamodb://test_{os.getpid()}_{next(_NUMBERS)}?region=eu-central-1&endpoint={dynamodb}"
