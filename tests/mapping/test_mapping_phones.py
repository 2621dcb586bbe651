"""Telephone numbers, as the library of the numbering plans reads and writes them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import mapped
import phonenumbers
import pytest
from phonenumbers import PhoneNumberFormat

from backhaul.errors import UsageError
from backhaul.types import FieldType

EXAMPLES = [
    number for region in sorted(phonenumbers.SUPPORTED_REGIONS) if (number := phonenumbers.example_number(region)) is not None
]  # fmt: skip


@pytest.fixture
def db(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with mapped.engine(tmp_path) as connection:
        yield connection


def sent(db: duckdb.DuckDBPyConnection, *texts: str) -> dict[int, str | None]:
    """What becomes of texts, by their place; None: the record is rejected."""
    db.execute("CREATE OR REPLACE TABLE t (id BIGINT, v VARCHAR)")
    db.executemany("INSERT INTO t VALUES (?, ?)", list(enumerate(texts)))
    mapped.compiled(db, {"v": {"value": "v", "type": "phone"}})
    rows = db.execute('SELECT k0, "f.v" FROM d WHERE _error IS NULL').fetchall()
    return dict.fromkeys(range(len(texts))) | dict(rows)


@pytest.mark.parametrize("form", [PhoneNumberFormat.INTERNATIONAL, PhoneNumberFormat.E164])
def test_a_number_of_any_country_becomes_e164(db: duckdb.DuckDBPyConnection, form: int) -> None:
    assert len(EXAMPLES) > 200
    written = sent(db, *(phonenumbers.format_number(number, form) for number in EXAMPLES))
    assert list(written.values()) == [
        phonenumbers.format_number(number, PhoneNumberFormat.E164) for number in EXAMPLES
    ]


def test_no_country_is_guessed(db: duckdb.DuckDBPyConnection) -> None:
    national = [phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL) for number in EXAMPLES]
    assert set(sent(db, *national).values()) == {None}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (" +44 (0)20 7946-0000 ", "+442079460000"),
        ("+1/500.555\u00a00006", "+15005550006"),
        ("+1\u2011500\u2011555\u20110006", "+15005550006"),
        ("", ""),
        ("  ", ""),
        ("+", None),
        ("+0123456789", None),
        ("+1234567890123456", None),
        ("+1 500 555 0006 ext. 7", None),
        ("00442079460000", None),
        ("++15005550006", None),
        ("n/a", None),
    ],
)
def test_what_people_write(db: duckdb.DuckDBPyConnection, text: str, number: str | None) -> None:
    assert sent(db, text) == {0: number}


def test_the_record_is_told_what_is_wrong(db: duckdb.DuckDBPyConnection) -> None:
    sent(db, "030 123456")
    assert mapped.errors(db) == {
        0: (
            "v",
            "type",
            '"030 123456" is not a telephone number as E.164 has it, with the country\'s code: +15005550006',
        )
    }


def test_a_column_of_numbers_is_no_column_of_telephone_numbers(db: duckdb.DuckDBPyConnection) -> None:
    db.execute("CREATE TABLE t (id BIGINT, v BIGINT)")
    with pytest.raises(UsageError, match="no room for the"):
        mapped.compiled(db, {"v": {"value": "v", "type": FieldType.PHONE}})
