"""What PostgreSQL says about a table, from pg_catalog: information_schema hides what a role does not own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncCursor

from backhaul.destinations.kit import no_such_object
from backhaul.destinations.sql import Table
from backhaul.errors import Halt
from backhaul.sql import ident
from backhaul.types import Field, FieldType, ObjectSchema

_PART = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')
_NAME = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern}))?")

_TYPES = {
    "int2": FieldType.INTEGER, "int4": FieldType.INTEGER, "int8": FieldType.INTEGER, "oid": FieldType.INTEGER,
    "numeric": FieldType.DECIMAL, "float4": FieldType.NUMBER, "float8": FieldType.NUMBER,
    "bool": FieldType.BOOLEAN, "date": FieldType.DATE, "timestamp": FieldType.TIMESTAMP,
    "timestamptz": FieldType.DATETIME, "json": FieldType.JSON, "jsonb": FieldType.JSON,
    "text": FieldType.STRING, "varchar": FieldType.STRING, "bpchar": FieldType.STRING,
    "citext": FieldType.STRING, "name": FieldType.STRING, "uuid": FieldType.STRING, "inet": FieldType.STRING,
    "cidr": FieldType.STRING, "xml": FieldType.STRING,
}  # fmt: skip

_RELATION = """
SELECT c.oid, n.nspname, c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p', 'v', 'f')
"""

_COLUMNS = """
SELECT a.attname::text, format_type(base.oid, greatest(a.atttypmod, t.typtypmod)), base.typname::text, base.typcategory = 'A',
    a.attnotnull OR t.typnotnull, a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL,
    a.attgenerated = '' AND a.attidentity <> 'a'
        AND has_column_privilege(a.attrelid, a.attnum, 'INSERT, UPDATE'),
    CASE WHEN base.typname IN ('varchar', 'bpchar') THEN greatest(a.atttypmod, t.typtypmod) - 4 END,
    (SELECT array_agg(enumlabel::text ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = base.oid),
    (SELECT to_jsonb(c)->>'collisdeterministic' = 'false' FROM pg_collation c WHERE c.oid = a.attcollation)
FROM pg_catalog.pg_attribute a
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
JOIN pg_catalog.pg_type base ON base.oid = CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

_UNIQUE = """
SELECT array_agg(a.attname::text) FROM pg_catalog.pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, place)
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s AND k.place <= i.indnkeyatts AND i.indisunique AND i.indisvalid AND i.indimmediate
    AND i.indpred IS NULL AND i.indexprs IS NULL
GROUP BY i.indexrelid
"""

_CONTESTED = """
SELECT DISTINCT a.attname::text FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[])
WHERE i.indrelid = %s AND (i.indisunique OR i.indisexclusion)
"""

_MAY_SKIP = """
SELECT c.relkind IN ('v', 'f') OR row_security_active(c.oid)
    OR EXISTS (SELECT FROM pg_catalog.pg_trigger WHERE NOT tgisinternal AND tgtype & 3 = 3
        AND (tgrelid = c.oid OR tgrelid IN (SELECT relid FROM pg_partition_tree(c.oid))))
    OR EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = c.oid AND ev_type <> '1'),
    row_security_active(c.oid)
FROM pg_catalog.pg_class c WHERE c.oid = %s
"""
"""BEFORE … FOR EACH ROW: a trigger that returns NULL leaves the row as it is (PostgreSQL documentation, 39.1)."""

_NAMES = """
SELECT CASE WHEN n.nspname = ANY(current_schemas(false)) THEN '' ELSE n.nspname || '.' END || c.relname
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' LIMIT 5000
"""


_ROLE = """
SELECT current_user::text, has_any_column_privilege(%(oid)s::oid, 'INSERT'), has_any_column_privilege(%(oid)s::oid, 'UPDATE'),
    has_table_privilege(%(oid)s::oid, 'DELETE')
"""


async def require_writing(cursor: AsyncCursor[Any], found: Table) -> None:
    """Raises Halt, with the GRANT that is missing, where the role may write nothing to the table."""
    await cursor.execute(_ROLE, {"oid": found.oid})
    row = await cursor.fetchone()
    if row is not None and not any(row[1:]):
        grant = f"GRANT SELECT, INSERT, UPDATE ON {found.sql} TO {ident(row[0])}"
        raise Halt(
            f"no permission to write {found.schema.name!r}: the role {row[0]} has neither INSERT nor UPDATE",
            hint=f"{grant}; and DELETE for mode mirror",
        )


async def table(cursor: AsyncCursor[Any], name: str) -> Table:
    """The table of this name, schema-qualified or on the search path.

    Raises:
        Halt: there is none.
    """
    await cursor.execute(_RELATION, [quoted(name)])
    found = await cursor.fetchone()
    if found is None:
        await cursor.execute(_NAMES)
        raise no_such_object(name, [row[0] for row in await cursor.fetchall()], "the database")
    oid, schema, relation = found
    unique = frozenset(frozenset(row[0]) for row in await (await cursor.execute(_UNIQUE, [oid])).fetchall())
    rows = await (await cursor.execute(_COLUMNS, [oid])).fetchall()
    fields = {row[0]: field(row, unique) for row in rows}
    skips = await (await cursor.execute(_MAY_SKIP, [oid])).fetchone()
    may_skip, may_hide = map(bool, skips or (False, False))
    contested = frozenset(row[0] for row in await (await cursor.execute(_CONTESTED, [oid])).fetchall())
    where = f"{ident(schema)}.{ident(relation)}"
    return Table(where, ObjectSchema(name, fields, keys=unique), unique, oid, contested, may_skip, may_hide)


def field(row: Sequence[Any], unique: frozenset[frozenset[str]]) -> Field:
    name, native, base, array, not_null, default, writable, length, labels, lenient = row
    kind = FieldType.ARRAY if array else FieldType.STRING if labels else _TYPES.get(base, FieldType.ANY)
    return Field(
        name, kind, writable=writable, required=not_null and not default, nullable=not not_null,
        unique=frozenset((name,)) in unique, max_length=length if length and length > 0 else None,
        choices=tuple(labels) if labels else None,
        case_insensitive=base == "citext" or bool(lenient), native_type=native,
    )  # fmt: skip


def quoted(name: str) -> str:
    """`table`, `schema.table`, or either part in double quotes, as a quoted name. Case is kept.

    Raises:
        Halt: it is no such name.
    """
    if not _NAME.fullmatch(name):
        hint = 'write table, schema.table, or "odd.schema"."odd.table"'
        raise Halt(f"{name!r} is not a table name", hint=hint)
    parts = [found[1].replace('""', '"') if found[1] else found[2] for found in _PART.finditer(name)]
    return ".".join(map(ident, parts))
