"""What MySQL or MariaDB says about a table, from information_schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from backhaul.destinations.kit import no_such_object
from backhaul.destinations.mysql.sessions import Session
from backhaul.destinations.sql import Table
from backhaul.errors import Halt
from backhaul.sql import ident
from backhaul.types import Field, FieldType, ObjectSchema

_PART = re.compile(r'"((?:[^"]|"")+)"|`((?:[^`]|``)+)`|([^."`]+)')
_NAME = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern}))?")
_CHOICE = re.compile(r"'((?:[^']|'')*)'")
_GENERATED = re.compile(r"\b(STORED|VIRTUAL|PERSISTENT)\b", re.IGNORECASE)
_TYPES = {
    "tinyint": FieldType.INTEGER, "smallint": FieldType.INTEGER, "mediumint": FieldType.INTEGER,
    "int": FieldType.INTEGER, "bigint": FieldType.INTEGER, "year": FieldType.INTEGER, "bit": FieldType.INTEGER,
    "decimal": FieldType.DECIMAL, "float": FieldType.NUMBER, "double": FieldType.NUMBER,
    "date": FieldType.DATE, "datetime": FieldType.TIMESTAMP, "timestamp": FieldType.DATETIME,
    "json": FieldType.JSON, "char": FieldType.STRING, "varchar": FieldType.STRING, "tinytext": FieldType.STRING,
    "text": FieldType.STRING, "mediumtext": FieldType.STRING, "longtext": FieldType.STRING,
    "enum": FieldType.STRING, "set": FieldType.STRING, "uuid": FieldType.STRING, "inet4": FieldType.STRING,
    "inet6": FieldType.STRING,
}  # fmt: skip
_STANDARD = (
    (re.compile(r"decimal(\(\d+,\d+\)).*"), r"numeric\1"),
    (re.compile(r"(?:float|double)(\(\d+,\d+\)).*"), r"numeric\1"),
    (re.compile(r"float\b.*"), "real"),
    (re.compile(r"double\b.*"), "double precision"),
    (re.compile(r"char(\(\d+\))"), r"character\1"),
)

_TABLE = """
SELECT t.table_schema, t.table_name, t.engine, e.transactions
FROM information_schema.tables t LEFT JOIN information_schema.engines e ON e.engine = t.engine
WHERE t.table_schema = coalesce(%s, database()) AND t.table_name = %s
"""
_COLUMNS = """
SELECT column_name, data_type, column_type, is_nullable, column_default, extra, privileges,
    character_maximum_length, character_set_name, collation_name
FROM information_schema.columns WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position
"""
_UNIQUE = """
SELECT index_name, column_name, sub_part FROM information_schema.statistics
WHERE table_schema = %s AND table_name = %s AND non_unique = 0
"""
_JSON = """
SELECT c.column_name FROM information_schema.columns c JOIN information_schema.check_constraints k
    ON k.constraint_schema = c.table_schema AND k.table_name = c.table_name
    AND replace(replace(k.check_clause, '`', ''), '"', '') = concat('json_valid(', c.column_name, ')')
WHERE c.table_schema = %s AND c.table_name = %s AND c.data_type = 'longtext'
"""
"""MariaDB's JSON is a longtext with this CHECK (mariadb.com/kb/en/json)."""
_KEEPS = """
SELECT 1 FROM information_schema.triggers WHERE event_object_schema = %s AND event_object_table = %s
    AND event_manipulation = 'UPDATE' AND action_timing = 'BEFORE'
    AND action_statement RLIKE '(^|[^A-Za-z0-9_])OLD[^A-Za-z0-9_]' LIMIT 1
"""
"""A trigger may set a column back to its old value, and nothing says so. It is seen with the TRIGGER privilege alone."""
_NAMES = """
SELECT CASE WHEN table_schema = database() THEN table_name ELSE concat(table_schema, '.', table_name) END
FROM information_schema.tables WHERE table_type = 'BASE TABLE'
    AND table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema') LIMIT 5000
"""


@dataclass(frozen=True, slots=True)
class Held(Table):
    """A table, and how a temporary table holds the same values."""

    stage: str = ""
    """The temporary table's quoted name."""
    columns: Mapping[str, str] = dataclass_field(default_factory=dict)
    """Every column's type, character set and collation, as CREATE TABLE has them."""
    texts: frozenset[str] = frozenset()
    """Columns with a collation: what it takes for equal may still differ."""
    stamps: frozenset[str] = frozenset()
    """TIMESTAMP columns that are NOT NULL: a NULL in them becomes the current time without an error (MariaDB always, MySQL
    where explicit_defaults_for_timestamp is off)."""


async def table(session: Session, name: str) -> Held:
    """The table of this name, in the database of the dsn unless it names another.

    Raises:
        Halt: there is none, or it has no transactions.
    """
    found = await session.rows(_TABLE, split(name))
    if not found:
        raise no_such_object(name, [row[0] for row in await session.rows(_NAMES)], "the database")
    schema, relation, engine, transactions = found[0]
    if engine and transactions != "YES":
        raise Halt(
            f"table {name!r} has the engine {engine}, which has no transactions: a batch could be applied in part",
            hint=f"ALTER TABLE {relation} ENGINE = InnoDB",
        )
    place = [schema, relation]
    rows = await session.rows(_COLUMNS, place)
    unique = whole(await session.rows(_UNIQUE, place))
    is_mariadb = "MariaDB" in str((await session.rows("SELECT version()"))[0][0])
    json = {row[0] for row in await session.rows(_JSON, place)} if is_mariadb else set()
    fields = {row[0]: field(row, unique, json) for row in rows}
    require_writing(name, fields, rows)
    return Held(
        f"{ident(schema)}.{ident(relation)}", ObjectSchema(name, fields, keys=unique), unique,
        stage=f"{ident(schema)}.backhaul_batch", columns={row[0]: definition(row) for row in rows},
        contested=frozenset(column for _, column, _ in await session.rows(_UNIQUE, place) if column is not None),
        texts=frozenset(row[0] for row in rows if row[9]),
        stamps=frozenset(row[0] for row in rows if row[1] == "timestamp" and row[3] == "NO"),
        may_skip=bool(await session.rows(_KEEPS, place)),
    )  # fmt: skip


def split(name: str) -> list[str | None]:
    """`schema.table`, with or without quotes, as schema (None: the dsn's) and table.

    Raises:
        Halt: it is no such name.
    """
    if not _NAME.fullmatch(name):
        raise Halt(
            f"{name!r} is not a table name", hint="write table, database.table, or `odd db`.`odd table`"
        )
    parts = [
        part[1].replace('""', '"') if part[1] else part[2].replace("``", "`") if part[2] else part[3]
        for part in _PART.finditer(name)
    ]
    return parts if len(parts) == 2 else [None, parts[0]]


def whole(rows: Sequence[tuple[Any, ...]]) -> frozenset[frozenset[str]]:
    """The column sets of the unique indexes; one over a prefix or an expression says nothing of whole values."""
    found: dict[str, set[str]] = {}
    partial = {index for index, column, prefix in rows if column is None or prefix is not None}
    for index, column, _ in rows:
        if index not in partial:
            found.setdefault(index, set()).add(column)
    return frozenset(map(frozenset, found.values()))


def field(row: Sequence[Any], unique: frozenset[frozenset[str]], json: set[str]) -> Field:
    name, base, native, nullable, default, extra, privileges, length, _, collation = row
    generated = bool(_GENERATED.search(extra or ""))
    return Field(
        name, FieldType.JSON if name in json else kind(base, native),
        writable=not generated and {"insert", "update"} <= set(privileges.split(",")),
        required=nullable == "NO" and default is None and not generated and "auto_increment" not in extra,
        nullable=nullable != "NO" or bool(generated or "auto_increment" in extra),
        unique=frozenset((name,)) in unique,
        max_length=int(length) if base in ("char", "varchar") else None,
        choices=tuple(part.replace("''", "'") for part in _CHOICE.findall(native)) if base == "enum" else None,
        case_insensitive=bool(collation) and collation.endswith("_ci"),
        accent_insensitive=bool(collation) and collation.endswith("_ci") and "_as_" not in collation, native_type=native,
    )  # fmt: skip


def kind(base: str, native: str) -> FieldType:
    """TINYINT(1) is what BOOLEAN is made into, and BIT(1) is one too."""
    if native in ("tinyint(1)", "bit(1)"):
        return FieldType.BOOLEAN
    return _TYPES.get(base, FieldType.ANY)


def definition(row: Sequence[Any]) -> str:
    """TIMESTAMP is NOT NULL where nothing is said."""
    charset, collation = row[8], row[9]
    return f"{row[2]} CHARACTER SET {charset} COLLATE {collation} NULL" if charset else f"{row[2]} NULL"


def require_writing(name: str, fields: Mapping[str, Field], rows: Sequence[Sequence[Any]]) -> None:
    """Raises Halt where the account may write to no column."""
    if not any({"insert", "update"} & set(row[6].split(",")) for row in rows):
        raise Halt(
            f"no permission to write {name!r}: the account has neither INSERT nor UPDATE",
            hint="GRANT SELECT, INSERT, UPDATE on the table; and DELETE for mode mirror",
        )


def standard(native: str) -> str:
    """A type by its standard name, where two values of it are compared by its rounding or padding."""
    for pattern, name in _STANDARD:
        if pattern.fullmatch(native):
            return pattern.sub(name, native)
    return native
