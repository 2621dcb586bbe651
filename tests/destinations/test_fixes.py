"""What connectors say a person should do about their codes, with the real thing's own codes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import psycopg
import pytest

from backhaul.advice import advice
from backhaul.destinations.braze import Braze
from backhaul.destinations.http import HttpApi
from backhaul.destinations.hubspot import HubSpot
from backhaul.destinations.intercom import Intercom
from backhaul.destinations.kit import Destination
from backhaul.destinations.mysql import Mysql
from backhaul.destinations.postgres import Postgres
from backhaul.destinations.sqlite import Sqlite, meaning
from backhaul.destinations.zendesk import Zendesk
from backhaul.errors import Refused

CONNECTORS: list[type[Destination[Any]]] = [
    Braze,
    HubSpot,
    HttpApi,
    Intercom,
    Mysql,
    Postgres,
    Sqlite,
    Zendesk,
]


@pytest.mark.parametrize("connector", CONNECTORS)
def test_a_fix_is_one_short_line(connector: type[Destination[Any]]) -> None:
    assert connector.spec.fixes
    for code, todo in connector.spec.fixes.items():
        assert todo == " ".join(todo.split()), code
        assert len(todo) < 120, code


def test_postgres_knows_its_own_codes() -> None:
    states = {code for code in Postgres.spec.fixes if len(code) == 5}
    assert len(states) > 10
    for state in states:
        psycopg.errors.lookup(state)


@pytest.mark.parametrize(
    ("insert", "code"),
    [
        ("NULL, 1, 1, 'a'", "SQLITE_CONSTRAINT_NOTNULL"),
        ("1, 1, 1, 'a'", "SQLITE_CONSTRAINT_UNIQUE"),
        ("2, -1, 1, 'a'", "SQLITE_CONSTRAINT_CHECK"),
        ("2, 1, 9, 'a'", "SQLITE_CONSTRAINT_FOREIGNKEY"),
        ("2, 1, 1, x'00'", "SQLITE_CONSTRAINT_DATATYPE"),
    ],
)
def test_sqlite_knows_its_own_codes(tmp_path: Path, insert: str, code: str) -> None:
    with sqlite3.connect(tmp_path / "t.db") as database:
        database.executescript(
            "PRAGMA foreign_keys = ON; CREATE TABLE other (id INTEGER PRIMARY KEY); INSERT INTO other VALUES (1);"
            "CREATE TABLE t (a INTEGER NOT NULL UNIQUE, b INTEGER CHECK (b > 0), c INTEGER REFERENCES other, d TEXT) STRICT;"
            "INSERT INTO t VALUES (1, 1, 1, 'a');"
        )
        with pytest.raises(sqlite3.Error) as raised:
            database.execute(f"INSERT INTO t VALUES ({insert})")
    refused = meaning(raised.value, tmp_path)
    assert isinstance(refused, Refused)
    assert refused.code == code
    assert code in Sqlite.spec.fixes


def test_a_code_within_the_message_is_found() -> None:
    said = 'Property values were not valid: [{"isValid":false,"error":"INVALID_OPTION","name":"tier"}]'
    assert "internal name of an option" in advice("VALIDATION_ERROR", said, HubSpot.spec.fixes)


def test_a_code_that_nobody_declared_is_judged_by_its_words() -> None:
    assert "default:" in advice("422", "email is required", HttpApi.spec.fixes)
