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
_NOTHING = "SELECT"
"""Where there is nothing to update."""


MESSAGES = {
    "exists": "a row with this key exists, with other values",
    "not_found": "no row has this key",
    "skipped": "the table left the row as it was, or gave it another key: a trigger, a rule or row security",
}
"""What is said of a record that the table did not take, by its code."""
_EXACT_KEYS = frozenset(("smallint", "integer", "bigint", "text", "uuid", "date", "boolean"))


@dataclass(frozen=True, slots=True)
class Statements:
    """`apply` writes the staged rows. `missed` gives position and code of those that the table did not take; where `passed`,
    among the positions that `apply` gives. `twice` finds two staged rows that are one row of the table. `set_aside`, where it is
    not empty, comes before `apply`: it takes unique values away from rows that get others."""

    stage: str
    copy: str
    apply: str
    missed: str | None = None
    passed: bool = False
    twice: str | None = None
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
    if op is Op.DELETE:
        if not table.may_skip:
            return Statements(stage, copy, write.delete())
        return Statements(stage, copy, write.noting(write.delete()), write.kept(), passed=True)
    twice = write.twice()
    if op is Op.INSERT:
        return Statements(stage, copy, write.insert(), write.unlike("exists"), passed=True, twice=twice)
    if table.may_skip:
        apply = write.noting(write.update(write.number), write.insert_missing() if op is Op.UPSERT else None)
        return Statements(
            stage, copy, apply, write.unlike("skipped", strict=op is Op.UPDATE), passed=True, twice=twice
        )
    if op is Op.UPSERT:
        return Statements(stage, copy, write.upsert(), twice=twice)
    return Statements(stage, copy, write.update(), write.absent(), twice=twice)


def staging(
    table: Table, fields: Sequence[Field], *, numbered: bool, more: Sequence[str] = ()
) -> tuple[str, str]:
    """A temporary table of the columns' own types, gone at commit: nothing outlives the transaction, so a
    connection pooler does no harm. `more`: columns that the batch does not fill."""
    columns = ", ".join([*(staged(field) for field in fields), *more])
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
        self.table, self.fields, self.identifiers = table, fields, identifiers
        self.keys = [ident(name) for name in identifiers]
        self.values = [field for field in fields if field.name not in identifiers]
        self.columns = ", ".join(ident(field.name) for field in fields)
        self.number = ident(position(fields))
        self.on_key = " AND ".join(f"held.{key} = sent.{key}" for key in self.keys)

    def upsert(self) -> str:
        """Updates the rows that exist and inserts the others: an INSERT takes a number of a sequence for each row."""
        changed = f"WITH changed AS ({self.update()}) " if self.values else ""
        return changed + self.insert_missing()

    def insert_missing(self) -> str:
        """ON CONFLICT is for rows that another writer has just inserted."""
        there = f"SELECT FROM {self.table.sql} AS held WHERE {self.on_key}"
        conflict = f"ON CONFLICT ({', '.join(self.keys)}) {self._on_conflict()}"
        return f"{self._insert()} WHERE NOT EXISTS ({there}) {conflict}"

    def insert(self) -> str:
        keys = ", ".join(self.keys)
        taken = " AND ".join(f"taken.{key} = sent.{key}" for key in self.keys)
        return (
            f"WITH taken AS ({self._insert()} ON CONFLICT ({keys}) DO NOTHING RETURNING {keys}) "
            f"SELECT sent.{self.number} FROM {STAGE} AS sent "
            f"WHERE NOT EXISTS (SELECT FROM taken WHERE {taken})"
        )

    def noting(self, changing: str, inserting: str | None = None) -> str:
        """Runs an UPDATE or DELETE of the staged rows, and an INSERT; gives the positions that none of them wrote."""
        parts, noted = [], []
        if changing != _NOTHING:
            parts.append(f"changed AS ({changing} RETURNING sent.{self.number} AS done)")
            noted.append(f"NOT EXISTS (SELECT FROM changed WHERE done = sent.{self.number})")
        if inserting:
            keys = ", ".join(self.keys)
            parts.append(f"made AS ({inserting} RETURNING {keys})")
            same = " AND ".join(f"made.{key} = sent.{key}" for key in self.keys)
            noted.append(f"NOT EXISTS (SELECT FROM made WHERE {same})")
        where = f" WHERE {' AND '.join(noted)}" if noted else ""
        head = f"WITH {', '.join(parts)} " if parts else ""
        return f"{head}SELECT sent.{self.number} FROM {STAGE} AS sent{where}"

    def twice(self) -> str | None:
        """Types and collations that take two texts for one value."""
        exact = (self.table.schema.fields[name] for name in self.identifiers)
        if all(
            not field.case_insensitive
            and (native := field.native_type or "").split("(")[0] in _EXACT_KEYS | {"character varying"}
            and native
            for field in exact
        ):
            return None
        return f"SELECT 1 FROM {STAGE} GROUP BY {', '.join(self.keys)} HAVING count(*) > 1 LIMIT 1"

    def unlike(self, code: str, *, strict: bool = False) -> str:
        """Of given positions, those whose key is not held with the values sent. `strict`: a key that is not held has its own
        code."""
        differs = f" AND NOT ({self._differs('sent')})" if self.values else ""
        same = f"SELECT FROM {self.table.sql} AS held WHERE {self.on_key}{differs}"
        there = f"SELECT FROM {self.table.sql} AS held WHERE {self.on_key}"
        shown = f"CASE WHEN EXISTS ({there}) THEN '{code}' ELSE 'not_found' END" if strict else f"'{code}'"
        rows = f"SELECT sent.{self.number}, {shown} FROM {self._sent(self.number)} AS sent WHERE NOT EXISTS ({same})"
        return f"{escaped(rows)} AND sent.{escaped(self.number)} = ANY(%s)"

    def kept(self) -> str:
        """Of given positions that a DELETE passed over, those that are there still, or that row security may hide."""
        rows = f"SELECT sent.{self.number}, 'skipped' FROM {STAGE} AS sent WHERE sent.{self.number} = ANY(%s)"
        there = f"EXISTS (SELECT FROM {self.table.sql} AS held WHERE {self.on_key})"
        return rows if self.table.may_hide else f"{rows} AND {escaped(there)}"

    def update(self, *more: str) -> str:
        if not self.values:
            return _NOTHING
        return (
            f"UPDATE {self.table.sql} AS held SET {self._assignments('sent')} FROM {self._sent(*more)} AS sent "
            f"WHERE {self.on_key} AND ({self._differs('sent')})"
        )

    def absent(self) -> str:
        return (
            f"SELECT sent.{self.number}, 'not_found' FROM {STAGE} AS sent "
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
    return "NULL" if field.nullable and not field.required else unlike_all(field)


def unlike_all(field: Field) -> str:
    """As `unused`, and never NULL."""
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


def storing(table: Table, field: Field) -> tuple[str, str, str]:
    """A temporary table of one column's own type, a COPY of numbered values into it, and a SELECT of them as `shown` has them."""
    name = ident(field.name)
    columns = f"0 AS place, {staged(field)}"
    return (
        f"CREATE TEMP TABLE backhaul_stored ON COMMIT DROP AS SELECT {columns} FROM {table.sql} WITH NO DATA",
        f"COPY pg_temp.backhaul_stored (place, {name}) FROM STDIN (FORMAT csv, ENCODING 'UTF8')",
        f"SELECT place, {shown(field)} FROM (SELECT place, {converted(field)} AS {name} FROM pg_temp.backhaul_stored) AS held",
    )


def escaped(sql: str) -> str:
    """SQL that goes into a statement with parameters."""
    return sql.replace("%", "%%")
