"""Values whose type takes several spellings are read back as sent: the server itself compares."""

from __future__ import annotations

from pathlib import Path

import pytest
from databases import Database

SPELLINGS = {
    "postgres": [
        ("interval", "90 minutes", "2 hours"), ("interval(0)", "1 day 00:00:00.4", "2 days"), ("int4range", "(0,4]", "[1,6)"),
        ("tstzrange", "[2026-01-01,2026-01-02)", "empty"), ("macaddr", "08-00-2B-01-02-03", "08:00:2b:01:02:04"),
        ("inet", "10.0.0.1/32", "10.0.0.2"), ("inet", "2001:DB8:0:0:0:0:0:1", "::1"), ("cidr", "10.1/16", "10.2.0.0/16"),
        ("time", "9:30", "9:31"), ("time(0)", "09:30:00.2", "9:31"), ("timetz", "09:30Z", "09:30:00+01"),
        ("bytea", "DEADBEEF", "x"), ("bytea", "\\xDEADBEEF", "x"), ("money", "1234.5", "$1.00"),
        ("bit varying(8)", "101", "111"), ("point", "( 1 , 2 )", "(1,3)"), ("tsvector", "b a", "c"), ("int[]", "[1, 2]", "{1}"),
        ("interval[]", '["24 hours", "60 min"]', "{}"), ("numeric(6,2)", "1.005", "2"), ("xml", "<a/>", "<b/>"),
    ],
    "mysql": [
        ("time", "9:30", "9:31:00"), ("time(3)", "09:30:00.5", "9:31:00"), ("time", "-1:00", "1:00:00"), ("blob", "DEADBEEF", "x"),
        ("varbinary(20)", "DEADBEEF", "x"), ("binary(6)", "DEAD", "x"), ("year", "26", "2027"), ("datetime(3)", "2026-01-01 09:30:00", "2026-01-02"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", SPELLINGS)
def test_a_value_is_read_back_as_sent_however_it_is_spelt(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    db = Database(kind, tmp_path, request.getfixturevalue(f"{kind}_db"))
    columns = {f"c{number}": one for number, one in enumerate(SPELLINGS[kind])}
    declared = ", ".join(f"{name} {native}" for name, (native, _, _) in columns.items())
    db.run(f"create table thing (id integer primary key, {declared})")
    sent = ", ".join(f"'{value}' AS {name}" for name, (_, value, _) in columns.items())
    report = db.sync(f"SELECT i::int AS id, {sent} FROM range(3) x(i)", fields=" ".join(columns))
    assert report.verified is not None
    assert (report.delivered, report.verified.checked, report.verified.mismatches) == (3, 3, ())
    changes = ", ".join(f"{name} = '{other}'" for name, (_, _, other) in columns.items())
    db.run(f"update thing set {changes} where id = 1")
    (found,) = db.project.verify("s", count=None).mismatches
    assert (found.key, found.fields.keys()) == (1, columns.keys())
    db.project.__exit__()
