"""The SQL of one batch: a staging table, a COPY into it, and one statement from there into the table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from backhaul.destinations.sql import Table, position
from backhaul.sql import ident
from backhaul.types import Field, FieldType, Op

_COMPARABLE = frozenset(
    ("smallint", "integer", "bigint", "real", "double precision", "numeric", "boolean", "date", "text",
     "uuid", "bytea", "jsonb", "character varying", "timestamp without time zone", "timestamp with time zone")
)  # fmt: skip
STAGE = "pg_temp.backhaul_batch"


@dataclass(frozen=True, slots=True)
class Statements:
    """`apply` writes the staged rows; `missed` gives the positions of those that it could not. `set_aside`, where it is not
    empty, comes first: it takes unique values away from rows that get others."""

    stage: str
    copy: str
    apply: str
    missed: str | None = None
    code: str = ""
    message: str = ""
    set_aside: str = ""


def statements(
    op: Op, table: Table, identifiers: Sequence[str], fields: Sequence[Field], *, set_aside: bool = False
) -> Statements:
    """The statements that write a batch of these fields, in this order."""
    write = Writing(table, identifiers, fields)
    plain = plain_statements(op, table, fields, write, numbered=set_aside)
    return (
        replace(plain, set_aside=write.set_aside()) if set_aside and op in (Op.UPSERT, Op.UPDATE) else plain
    )


def plain_statements(
    op: Op, table: Table, fields: Sequence[Field], write: Writing, *, numbered: bool
) -> Statements:
    numbered = numbered or op in (Op.INSERT, Op.UPDATE) or table.may_skip
    stage, copy = staging(table, fields, numbered=numbered)
    if op is Op.UPSERT:
        missed = write.absent() if table.may_skip else None
        said = "a trigger of the table left this row out, or gave it another key"
        return Statements(stage, copy, write.upsert(), missed, "skipped", said)
    if op is Op.DELETE:
        return Statements(stage, copy, write.delete())
    if op is Op.INSERT:
        said = "a row with this key exists, with other values"
        return Statements(stage, copy, write.insert(), write.taken(), "exists", said)
    return Statements(stage, copy, write.update(), write.absent(), "not_found", "no row has this key")


def staging(table: Table, fields: Sequence[Field], *, numbered: bool) -> tuple[str, str]:
    """A temporary table of the columns' own types, gone at commit: nothing outlives the transaction, so a
    connection pooler does no harm."""
    columns = ", ".join(staged(field) for field in fields)
    stage = (
        f"CREATE TEMP TABLE backhaul_batch ON COMMIT DROP AS SELECT {columns} FROM {table.sql} WITH NO DATA"
    )
    if numbered:
        number = ident(position(fields))
        stage += f"; ALTER TABLE {STAGE} ADD COLUMN {number} bigint GENERATED ALWAYS AS IDENTITY (MINVALUE 0)"
    names = ", ".join(ident(field.name) for field in fields)
    return stage, f"COPY {STAGE} ({names}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')"


def staged(field: Field) -> str:
    """Arrays come as JSON lists, so they are staged as text."""
    name = ident(field.name)
    return f"NULL::text AS {name}" if field.type is FieldType.ARRAY else name


class Writing:
    """Writes the statements of one table and set of fields; `held` is the table, `sent` the staged rows."""

    def __init__(self, table: Table, identifiers: Sequence[str], fields: Sequence[Field]) -> None:
        self.table, self.fields = table, fields
        self.keys = [ident(name) for name in identifiers]
        self.values = [field for field in fields if field.name not in identifiers]
        self.columns = ", ".join(ident(field.name) for field in fields)
        self.number = ident(position(fields))
        self.on_key = " AND ".join(f"held.{key} = sent.{key}" for key in self.keys)

    def upsert(self) -> str:
        return f"{self._insert()} ON CONFLICT ({', '.join(self.keys)}) {self._on_conflict()}"

    def insert(self) -> str:
        keys = ", ".join(self.keys)
        taken = " AND ".join(f"taken.{key} = sent.{key}" for key in self.keys)
        return (
            f"WITH taken AS ({self._insert()} ON CONFLICT ({keys}) DO NOTHING RETURNING {keys}) "
            f"SELECT sent.{self.number} FROM {STAGE} AS sent "
            f"WHERE NOT EXISTS (SELECT FROM taken WHERE {taken})"
        )

    def taken(self) -> str:
        """Of the rows that were not inserted, those whose key is held with other values."""
        differs = f" AND NOT ({self._differs('sent')})" if self.values else ""
        same = f"SELECT FROM {self.table.sql} AS held WHERE {self.on_key}{differs}"
        rows = f"SELECT sent.{self.number} FROM {self._sent(self.number)} AS sent WHERE NOT EXISTS ({same})"
        return f"{escaped(rows)} AND sent.{escaped(self.number)} = ANY(%s)"

    def update(self) -> str:
        if not self.values:
            return "SELECT"
        return (
            f"UPDATE {self.table.sql} AS held SET {self._assignments('sent')} FROM {self._sent()} AS sent "
            f"WHERE {self.on_key} AND ({self._differs('sent')})"
        )

    def absent(self) -> str:
        return (
            f"SELECT sent.{self.number} FROM {STAGE} AS sent "
            f"WHERE NOT EXISTS (SELECT FROM {self.table.sql} AS held WHERE {self.on_key})"
        )

    def set_aside(self) -> str:
        """Takes away the unique values that change of staged rows, so that another row of the batch can have them; '' where no
        column can do without its value."""
        aside = [
            (field, free)
            for field in self.values
            if field.name in self.table.contested and (free := unused(field))
        ]
        if not aside:
            return ""
        place = {"number": f"sent.{self.number}", "table": self.table.sql}
        changes = ", ".join(f"{ident(field.name)} = {free.format_map(place)}" for field, free in aside)
        other = " OR ".join(differs(field, "sent") for field, _ in aside)
        return (
            f"UPDATE {self.table.sql} AS held SET {changes} FROM {self._sent(self.number)} AS sent "
            f"WHERE {self.on_key} AND ({other})"
        )

    def delete(self) -> str:
        return f"DELETE FROM {self.table.sql} AS held USING {STAGE} AS sent WHERE {self.on_key}"

    def _insert(self) -> str:
        sent = f"SELECT {self.columns} FROM {self._sent()} AS sent"
        return f"INSERT INTO {self.table.sql} AS held ({self.columns}) {sent}"

    def _on_conflict(self) -> str:
        if not self.values:
            return "DO NOTHING"
        return f"DO UPDATE SET {self._assignments('excluded')} WHERE {self._differs('excluded')}"

    def _sent(self, *more: str) -> str:
        """The staged rows in the columns' own types."""
        columns = [f"{converted(field)} AS {ident(field.name)}" for field in self.fields]
        return f"(SELECT {', '.join([*columns, *more])} FROM {STAGE})"

    def _assignments(self, source: str) -> str:
        return ", ".join(f"{ident(field.name)} = {new_value(field, source)}" for field in self.values)

    def _differs(self, source: str) -> str:
        """Unchanged rows are not rewritten: no dead tuple, no trigger, no replication."""
        return " OR ".join(differs(field, source) for field in self.values)


def differs(field: Field, source: str) -> str:
    cast = as_compared(field)
    return f"held.{ident(field.name)}{cast} IS DISTINCT FROM {new_value(field, source)}{cast}"


def unused(field: Field) -> str:
    """An expression for a value that no row has, where `{number}` is the row's position; '' where the type has none."""
    if field.nullable and not field.required:
        return "NULL"
    if field.type is FieldType.STRING and field.choices is None:
        longest = field.max_length
        text = "md5(random()::text || {number})"
        return (
            text if longest is None or longest >= 32 else f"left({text}, {longest})" if longest >= 8 else ""
        )
    if field.type in (FieldType.INTEGER, FieldType.DECIMAL, FieldType.NUMBER):
        return f"(SELECT least(min({ident(field.name)}), 0) FROM {{table}}) - 1 - {{number}}"
    return "gen_random_uuid()" if field.native_type == "uuid" else ""


def new_value(field: Field, source: str) -> str:
    name = ident(field.name)
    return f"coalesce({source}.{name}, held.{name})" if field.skip_null else f"{source}.{name}"


def as_compared(field: Field) -> str:
    """Types without an equality of their own (json, xml), or with a lenient one (citext, a
    collation that is not deterministic), compare as text."""
    if field.case_insensitive:
        return '::text COLLATE "C"'
    native = re.sub(r"\(\d+(,-?\d+)?\)", "", field.native_type or "")
    return "" if native in _COMPARABLE else "::text"


def converted(field: Field) -> str:
    name = ident(field.name)
    if field.type is not FieldType.ARRAY:
        return name
    kept = "" if field.native_type in ("json[]", "jsonb[]") else "_text"
    elements = f"ARRAY(SELECT jsonb_array_elements{kept}({name}::jsonb))"
    return f"CASE WHEN {name} IS NOT NULL THEN {elements}::{field.native_type} END"


def shown(field: Field) -> str:
    """A column as it is read: what the driver makes no comparable value of (arrays of enums, JSON that is a text, bytea,
    intervals, ranges) goes as JSON or as text."""
    name = f"held.{ident(field.name)}"
    if field.type is FieldType.ARRAY:
        return f"to_jsonb({name})"
    return f"{name}::text" if field.type in (FieldType.JSON, FieldType.ANY) else name


def lookup(table: Table, identifiers: Sequence[str], fields: Sequence[str]) -> str:
    """The rows of given keys. Parameters: one text array for each identifier; places count from 1."""
    names = [f"k{number}" for number in range(len(identifiers))]
    arrays = ", ".join("%s::text[]" for _ in names)
    on = " AND ".join(
        f"held.{ident(name)} = given.{k}::{table.schema.fields[name].native_type}"
        for name, k in zip(identifiers, names, strict=True)
    )
    columns = "".join(f", {shown(table.schema.fields[name])}" for name in fields)
    given = f"unnest({arrays}) WITH ORDINALITY AS given({', '.join(names)}, place)"
    joined = escaped(f"{table.sql} AS held ON {on}")
    return f"SELECT given.place{escaped(columns)} FROM {given} JOIN {joined}"


def escaped(sql: str) -> str:
    """SQL that goes into a statement with parameters."""
    return sql.replace("%", "%%")
