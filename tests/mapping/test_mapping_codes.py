"""Codes of currencies and countries, as the tables of ISO 4217 and ISO 3166-1 have them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import mapped
import pycountry
import pytest

from backhaul.errors import UsageError
from backhaul.mapping.codes import COUNTRIES, CURRENCIES, WITHDRAWN

KNOWN = {
    "currency": {item.alpha_3 for item in pycountry.currencies} - {"XTS", "X" * 3},
    "country": {item.alpha_2 for item in pycountry.countries},
}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with mapped.engine(tmp_path) as connection:
        yield connection


def sent(db: duckdb.DuckDBPyConnection, kind: str, texts: list[str | None]) -> dict[int, str | None]:
    """What becomes of texts, by their place; those that are missing are rejected."""
    db.execute("CREATE OR REPLACE TABLE t (id BIGINT, v VARCHAR)")
    db.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(texts)))
    mapped.compiled(db, {"v": {"value": "v", "type": kind}})
    return dict(db.execute('SELECT k0, "f.v" FROM d WHERE _error IS NULL').fetchall())


def test_our_tables_are_those_of_the_library() -> None:
    """A newer edition of the library may know a code more, or have dropped one: then ours is to follow."""
    assert len(set(CURRENCIES) - set(WITHDRAWN) ^ KNOWN["currency"]) <= 3
    assert len(set(COUNTRIES) ^ KNOWN["country"]) <= 3
    assert (len(CURRENCIES), len(COUNTRIES)) == (len(set(CURRENCIES)), len(set(COUNTRIES)))


@pytest.mark.parametrize(("kind", "codes"), [("currency", CURRENCIES), ("country", COUNTRIES)])
def test_every_code_is_sent_in_capitals(
    db: duckdb.DuckDBPyConnection, kind: str, codes: tuple[str, ...]
) -> None:
    assert list(sent(db, kind, [f" {code.lower()} " for code in codes]).values()) == list(codes)


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("currency", ["euro", "€", "EU", "DEU", "ZZZ", "E UR"]),
        ("country", ["Germany", "DEU", "ZZ", "D", "D E", "276"]),
    ],
)
def test_no_name_is_guessed(db: duckdb.DuckDBPyConnection, kind: str, wrong: list[str]) -> None:
    assert sent(db, kind, [*wrong, "", "  ", None]) == {
        len(wrong): "",
        len(wrong) + 1: "",
        len(wrong) + 2: None,
    }
    (said,) = db.execute("SELECT DISTINCT _error FROM d WHERE k0 = 0").fetchone()
    assert f'"{wrong[0]}" is not a {kind}\'s code' in said


@pytest.mark.parametrize("kind", ["currency", "country"])
def test_a_number_is_no_code(db: duckdb.DuckDBPyConnection, kind: str) -> None:
    db.execute("CREATE OR REPLACE TABLE t (id BIGINT, v BIGINT)")
    with pytest.raises(UsageError, match="no code of letters"):
        mapped.compiled(db, {"v": {"value": "v", "type": kind}})
