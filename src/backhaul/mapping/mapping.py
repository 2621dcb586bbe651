"""A sync's mapping, compiled: model columns -> typed destination fields, as one SELECT on the embedded engine.

Columns of desired records, plans and ledgers: `k0…` the primary key, `f.NAME` a destination field in its
storage type, `_hash` 64 bits over the fields, `_error` why the record cannot be sent (field, code and message
separated by U+001F).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from collections.abc import Mapping as Dict
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Protocol

import duckdb
import orjson
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from backhaul.errors import Problem, UsageError
from backhaul.mapping.coercion import Coercion, NotCoercibleError, coerce, natural, trimmed
from backhaul.mapping.hashing import record_hash
from backhaul.mapping.spoilt import ColumnLike, or_error, quoted, told
from backhaul.sql import ident, literal
from backhaul.types import Field, FieldType, Nulls, ObjectSchema, field_from

SEPARATOR = "\x1f"


class FieldMappingLike(Protocol):
    @property
    def value(self) -> str: ...
    @property
    def null(self) -> Nulls | None: ...
    @property
    def default(self) -> Any: ...
    @property
    def type(self) -> FieldType | None: ...


class SyncLike(Protocol):
    """What the mapping needs to know of a sync."""

    @property
    def identify(self) -> Dict[str, str]: ...
    @property
    def fields(self) -> Dict[str, FieldMappingLike]: ...
    @property
    def nulls(self) -> Nulls: ...
    @property
    def model(self) -> Any: ...
    def problem(self, path: str, message: str, hint: str | None = None) -> Problem: ...


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One column of the primary key: its name in the model and its storage type."""

    name: str
    storage: str
    column: str


@dataclass(frozen=True, slots=True)
class MappedField:
    """One destination field and the expression that gives its value."""

    field: Field
    expr: str
    coercion: Coercion
    nulls: Nulls
    identifier: bool
    spoilt: tuple[ColumnLike, ...] = ()
    """Columns of the expression in which a value may be missing because it does not fit."""
    place: str = ""
    """Where a record of the JSON wire has it, if not under its name; a dot nests."""

    @property
    def definition(self) -> dict[str, Any]:
        """Every property but how the value is read, for `_defined`."""
        told = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _READING}
        return told | {"storage": self.storage, "field": asdict(self.field)}

    @property
    def name(self) -> str:
        return self.field.name

    @property
    def path(self) -> str:
        return self.place or self.name

    @property
    def column(self) -> str:
        return f"f.{self.field.name}"

    @property
    def storage(self) -> str:
        return self.coercion.storage


@dataclass(frozen=True, slots=True)
class Mapping:
    """A compiled mapping; `fields` holds the identifiers first, then the rest as written."""

    keys: tuple[KeyColumn, ...]
    fields: tuple[MappedField, ...]
    whole: tuple[ColumnLike, ...] = ()
    """The model's columns, where an expression takes its row as a whole and some value may not fit: one that does not is an
    error of the read."""
    exact: frozenset[str] = frozenset()
    """Key columns (`k0`…) whose values may differ in case or Unicode form alone."""

    @property
    def identifiers(self) -> tuple[MappedField, ...]:
        return tuple(field for field in self.fields if field.identifier)

    @property
    def identifies_by_key(self) -> bool:
        """Whether different keys, as their spellings are compared, always are different identifiers at the destination."""
        keys = {key.name.lower(): key for key in self.keys}
        named = {_column_of(field): field for field in self.identifiers}
        return named.keys() == keys.keys() and all(
            _keeps_apart(keys[name], field, exact=keys[name].column in self.exact)
            for name, field in named.items()
        )

    @property
    def shape(self) -> dict[str, Any]:
        """What a plan and a ledger remember of a mapping, JSON-ready: everything but how values are read."""
        told = {
            "keys": [[key.name, key.storage] for key in self.keys],
            "fields": {field.name: field.definition for field in self.fields},
        }
        shape: dict[str, Any] = orjson.loads(orjson.dumps(told))
        return shape

    @classmethod
    def from_shape(cls, shape: Dict[str, Any]) -> Mapping:
        """The mapping of this shape: it has columns, but no expressions."""
        keys = tuple(
            KeyColumn(name, storage, f"k{number}") for number, (name, storage) in enumerate(shape["keys"])
        )
        return cls(keys, tuple(map(_defined, shape["fields"].values())))

    def hash_sql(self, error: str = "NULL::VARCHAR") -> str:
        """The record's 64-bit hash over its fields and its error."""
        return record_hash((field.name for field in self.fields), error)

    def desired(self, relation: str) -> str:
        """The SELECT that gives the desired records of a relation: keys, fields, `_error`, `_hash`."""
        raw = [f"{_key_cast(key)} AS {key.column}" for key in self.keys]
        raw += [f"({field.expr}) AS {ident('r.' + field.name)}" for field in self.fields]
        raw += [
            f"{told(field.spoilt)} AS {ident('s.' + field.name)}" for field in self.fields if field.spoilt
        ]
        keys = [key.column for key in self.keys]
        typed = keys + [f"{_typed(field)} AS {ident(field.column)}" for field in self.fields]
        errors = [rule for field in self.fields for rule in _rules(field)]
        error = f"CASE {' '.join(errors)} END" if errors else "NULL::VARCHAR"
        names = keys + [ident(field.column) for field in self.fields] + ["_error"]
        return (
            f"SELECT {', '.join(names)}, {self.hash_sql('_error')} AS _hash FROM ("
            f"SELECT {', '.join(typed)}, {error} AS _error FROM ("
            f"SELECT {', '.join(raw)} FROM {self._rows(relation)} AS model))"
        )

    def keys_of(self, relation: str) -> str:
        """What follows SELECT for the keys of a relation's rows."""
        return f"{', '.join(f'{_key_cast(key)} AS {key.column}' for key in self.keys)} FROM {relation}"

    def _rows(self, relation: str) -> str:
        """The relation without its columns of what does not fit, where an expression would take them for the model's."""
        if not self.whole:
            return relation
        return f"(SELECT {', '.join(map(or_error, self.whole))} FROM {relation})"


_READING = ("expr", "coercion", "spoilt")


def _defined(definition: Dict[str, Any]) -> MappedField:
    """The field of a definition; it has no expression. What an earlier definition does not say is as it is by default."""
    said = {name: value for name, value in definition.items() if name != "storage"}
    said |= {"field": field_from(definition["field"]), "nulls": Nulls(definition["nulls"])}
    return MappedField(expr="", coercion=Coercion("", definition["storage"]), **said)


def _column_of(field: MappedField) -> str:
    return field.expr.strip('"').lower()


def _keeps_apart(key: KeyColumn, field: MappedField, *, exact: bool) -> bool:
    """Whether two values of a key column stay different as this field; keys that are not `exact` differ in more than case."""
    cut = field.field.compared_length is not None
    if cut or field.field.accent_insensitive or (exact and field.field.case_insensitive):
        return False
    return field.field.type is FieldType.STRING or (key.storage == field.storage != "VARCHAR")


def _key_cast(key: KeyColumn) -> str:
    return f"CAST({ident(key.name)} AS {key.storage})"


def _typed(field: MappedField) -> str:
    typed, unfit = _placed(field.coercion, field.name)
    return (
        typed
        if unfit in ("", "lost")
        else f"CASE WHEN ({unfit.replace('lost OR ', '')}) THEN NULL ELSE {typed} END"
    )


def _placed(coercion: Coercion, name: str) -> tuple[str, str]:
    """A coercion was made for the placeholder `$`; here it is put over the raw column."""
    column = ident("r." + name)
    return coercion.typed.replace("$", column), coercion.unfit.replace("$", column)


_WRONG = {
    FieldType.PHONE: "is not a telephone number as E.164 has it, with the country's code: +15005550006",
    FieldType.CURRENCY: "is not a currency's code, as ISO 4217 has them: EUR",
    FieldType.COUNTRY: "is not a country's code of two letters, as ISO 3166-1 has them: DE",
}


def _rules(field: MappedField) -> list[str]:
    """WHEN … THEN … branches of `_error`, in the order in which a person would want to hear them."""
    typed, unfit = _placed(field.coercion, field.name)
    raw, said = ident("r." + field.name), field.field
    rules = []
    if field.spoilt:
        spoilt = ident("s." + field.name)
        rules.append((f"{spoilt} IS NOT NULL", "type", spoilt))
    if unfit:
        condition = unfit.replace("lost", f"({raw} IS NOT NULL AND ({typed}) IS NULL)")
        what = _WRONG.get(said.type, f"does not fit {said.native_type or said.type}")
        rules.append((condition, "type", f"concat({quoted(raw)}, {literal(' ' + what)})"))
    needed = field.nulls is Nulls.CLEAR and (said.required or not said.nullable)
    if field.nulls is Nulls.ERROR or field.identifier or needed:
        why = "is null, and nulls are an error here"
        if field.identifier:
            why = "an identifier must not be null, empty or blank"
        elif needed:
            why = "is null, and the destination requires a value"
        empty = (
            f"({raw} IS NULL OR {trimmed(typed)} = '')"
            if field.identifier and field.storage == "VARCHAR"
            else f"{raw} IS NULL"
        )
        rules.append((empty, "null", literal(why)))
    if said.max_length is not None and field.storage == "VARCHAR":
        message = f"concat('has ', length({typed}), {literal(f' characters, at most {said.max_length} fit')})"
        rules.append((f"length({typed}) > {said.max_length}", "length", message))
    if said.choices is not None and field.storage == "VARCHAR":
        known = ", ".join(literal(choice) for choice in said.choices)
        message = f"concat({quoted(typed)}, {literal(' is not one of the allowed values')})"
        if known:
            rules.append((f"{typed} NOT IN ({known})" + (f" AND {typed} <> ''"), "choice", message))
    head = literal(field.name + SEPARATOR)
    return [
        f"WHEN {when} THEN concat({head}, {literal(code + SEPARATOR)}, {text})" for when, code, text in rules
    ]


def compile_mapping(
    sync: SyncLike, columns: Sequence[ColumnLike], schema: ObjectSchema, engine: duckdb.DuckDBPyConnection
) -> Mapping:
    """Compiles a sync's `primary_key`, `identify` and `fields` against the model's columns and the object's fields.

    Raises:
        UsageError: with every problem: unknown columns, expressions that do not bind, types that cannot be carried.
    """
    problems: list[Problem] = []
    keys = _keys(sync, columns, problems)
    fields: list[MappedField] = []
    given: list[tuple[str, Any, bool]] = [(name, expr, True) for name, expr in sync.identify.items()]
    given += [(name, mapped, False) for name, mapped in sync.fields.items() if name not in sync.identify]
    types = _types(engine, [_expr(value) for _, value, _ in given], columns)
    for name, value, identifier in given:
        compiled = _field(sync, name, value, identifier, columns, schema, engine, problems, types)
        if compiled:
            fields.append(compiled)
    if not sync.identify:
        problems.append(
            sync.problem("identify", "identify names no destination field", "for example identify: {id: id}")
        )
    problems += _clashes(sync, fields)
    if problems:
        raise UsageError(problems=problems)
    exact = _exact(sync, keys, fields)
    spoilt = any(column.spoilt for column in columns)
    if spoilt and any(_names_in(field.expr) is None for field in fields):
        return Mapping(
            tuple(keys), tuple(replace(field, spoilt=()) for field in fields), tuple(columns), exact
        )
    return Mapping(tuple(keys), tuple(fields), exact=exact)


def _exact(sync: SyncLike, keys: Sequence[KeyColumn], fields: Sequence[MappedField]) -> frozenset[str]:
    """The key columns in which case counts: the model says so, or the destination says so of the identifier that one is."""
    if sync.model.case_sensitive:
        return frozenset(key.column for key in keys)
    stated = {
        _column_of(field) for field in fields if field.identifier and field.field.case_insensitive is False
    }
    return frozenset(key.column for key in keys if key.name.lower() in stated)


def _keys(sync: SyncLike, columns: Sequence[ColumnLike], problems: list[Problem]) -> list[KeyColumn]:
    types = {column.name.lower(): column for column in columns}
    keys = []
    for number, name in enumerate(sync.model.primary_key):
        column = types.get(name.lower())
        if column is None:
            problems.append(
                sync.problem("model.primary_key", f"the model has no column {name}", nearest(name, types))
            )
            continue
        storage = {"TINYINT": "BIGINT", "SMALLINT": "BIGINT", "INTEGER": "BIGINT", "BIGINT": "BIGINT", "UINTEGER": "BIGINT",
                   "UTINYINT": "BIGINT", "USMALLINT": "BIGINT", "UBIGINT": "DECIMAL(38,0)", "HUGEINT": "DECIMAL(38,0)",
                   "DATE": "DATE", "BOOLEAN": "BOOLEAN"}.get(column.type.upper(), "VARCHAR")  # fmt: skip
        if column.type.upper().startswith("DECIMAL"):
            storage = column.type.upper()
        if column.type.upper() in ("FLOAT", "DOUBLE", "BLOB"):
            problems.append(sync.problem("model.primary_key", f"the key column {name} is {column.type}, which has no exact text",
                                         "cast it in the model, for example to bigint or varchar"))  # fmt: skip
            continue
        keys.append(KeyColumn(column.name, storage, f"k{number}"))
    return keys


def nearest(name: str, names: Iterable[str]) -> str | None:
    known = sorted(names)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean {close[0]}?" if close else f"it has {', '.join(known[:12])}" if known else None


def _field(
    sync: SyncLike, name: str, value: Any, identifier: bool, columns: Sequence[ColumnLike], schema: ObjectSchema,
    engine: duckdb.DuckDBPyConnection, problems: list[Problem], types: dict[str, str],
) -> MappedField | None:  # fmt: skip
    path = f"{'identify' if identifier else 'fields'}.{name}"
    expr, asked, nulls, default, markup = (value, None, None, None, False) if isinstance(value, str) else (
        value.value, value.type, value.null, value.default, value.markup)  # fmt: skip
    try:
        sql_type = types.get(expr) or expression_type(engine, expr, columns)
        if default is not None:
            expr = _with_default(engine, expr, sql_type, default)
    except NotCoercibleError as error:
        problems.append(sync.problem(path, f"{name}: {error}", f"{expr} is {sql_type}"))
        return None
    except duckdb.Error as error:
        problems.append(
            sync.problem(
                path, f"{name}: {_binder(error)}", f"columns: {', '.join(c.name for c in columns[:20])}"
            )
        )
        return None
    if identifier and sql_type in ("DOUBLE", "FLOAT"):
        hint = f"cast it to a whole number or to text: `{expr}::bigint`"
        problems.append(
            sync.problem(
                path, f"{name}: {expr} is {sql_type}, which may be rounded and cannot identify a record", hint
            )
        )
        return None
    known = schema.fields.get(name, Field(name))
    target = asked or known.type
    try:
        coercion = coerce("$", "VARCHAR" if sql_type == '"NULL"' else sql_type, target)
    except NotCoercibleError as error:
        problems.append(
            sync.problem(
                path, f"{name}: {expr} {error}", f"{name} is {known.native_type or target} at the destination"
            )
        )
        return None
    if identifier and known.trims and coercion.storage == "VARCHAR":
        coercion = replace(coercion, typed=trimmed(coercion.typed))
    final = target if target is not FieldType.ANY else natural(sql_type)
    policy = nulls or sync.nulls
    escapes = known.escapes and not markup
    field = replace(known, type=final, skip_null=policy is Nulls.SKIP and not identifier, escapes=escapes)
    names = _names_in(expr) or frozenset()
    spoilt = tuple(column for column in columns if column.spoilt and column.name.lower() in names)
    return MappedField(field, expr, coercion, policy, identifier, spoilt)


def _with_default(engine: duckdb.DuckDBPyConnection, expr: str, sql_type: str, default: Any) -> str:
    """An expression in which a value of its own type stands for NULL.

    Raises:
        NotCoercibleError: the default is no value of that type.
    """
    text = literal(default if isinstance(default, str) else str(default).lower())
    kind = "VARCHAR" if sql_type == '"NULL"' else sql_type
    typed, exact = f"TRY_CAST({text} AS {kind})", "true"
    if isinstance(default, float):
        exact = f"TRY_CAST({typed} AS DOUBLE) IS NOT DISTINCT FROM TRY_CAST({text} AS DOUBLE)"
    if not engine.execute(f"SELECT {typed} IS NOT NULL AND {exact}").fetchall()[0][0]:
        raise NotCoercibleError(f"the default {default!r} does not fit {kind}")
    return f"coalesce({expr}, {typed})"


def _clashes(sync: SyncLike, fields: Sequence[MappedField]) -> Iterable[Problem]:
    """Names that the engine or a JSON object cannot hold side by side."""
    names: dict[str, str] = {}
    for field in fields:
        other = names.setdefault(field.name.lower(), field.name)
        if other != field.name:
            yield sync.problem(
                f"fields.{field.name}", f"{other} and {field.name} differ in case only", "map one of them"
            )
    for field in fields:
        parts = field.name.split(".")
        for length in range(1, len(parts)):
            head = ".".join(parts[:length])
            if head.lower() in names:
                yield sync.problem(
                    f"fields.{field.name}",
                    f"{field.name} nests in {head}, which is a value itself",
                    "map one of them",
                )


def _binder(error: duckdb.Error) -> str:
    """The first line of an engine message, without its kind and position markers."""
    line = str(error).strip().split("\n")[0]
    return line.split("Error: ", 1)[-1]


def expression_type(engine: duckdb.DuckDBPyConnection, expr: str, columns: Sequence[ColumnLike]) -> str:
    """The DuckDB type of an expression over the model's columns; reads no row.

    Raises:
        duckdb.Error: the expression does not bind.
    """
    rows = engine.execute(f"DESCRIBE SELECT ({expr}) AS value FROM ({_empty(columns)}) AS model").fetchall()
    return str(rows[0][1])


def _types(
    engine: duckdb.DuckDBPyConnection, exprs: Sequence[str], columns: Sequence[ColumnLike]
) -> dict[str, str]:
    """The types of many expressions; none where one of them does not bind, whichever it is."""
    wanted = list(dict.fromkeys(exprs))
    values = ", ".join(f"({expr}) AS v{number}" for number, expr in enumerate(wanted))
    try:
        rows = engine.execute(f"DESCRIBE SELECT {values} FROM ({_empty(columns)}) AS model").fetchall()
    except duckdb.Error:
        return {}
    return (
        {expr: str(row[1]) for expr, row in zip(wanted, rows, strict=True)}
        if len(rows) == len(wanted)
        else {}
    )


def _empty(columns: Sequence[ColumnLike]) -> str:
    """A row of the model without values."""
    return f"SELECT {', '.join(f'CAST(NULL AS {column.type}) AS {ident(column.name)}' for column in columns)}"


def _expr(value: Any) -> str:
    return value if isinstance(value, str) else str(value.value)


def columns_used(sync: SyncLike, columns: Sequence[ColumnLike]) -> list[str]:
    """The model columns that the keys, the cursor and the expressions need, in the model's order."""
    wanted = {name.lower() for name in sync.model.primary_key}
    if sync.model.cursor:
        wanted.add(sync.model.cursor.lower())
    for expr in [*sync.identify.values(), *(field.value for field in sync.fields.values())]:
        names = _names_in(expr)
        if names is None:
            return [column.name for column in columns]
        wanted |= names
    return [column.name for column in columns if column.name.lower() in wanted]


@lru_cache(maxsize=4096)
def _names_in(expr: str) -> frozenset[str] | None:
    """The names in an expression, in lower case; None where it may read any column."""
    try:
        tree = sqlglot.parse_one(expr, read="duckdb")
    except SqlglotError:
        return None
    columns = list(tree.find_all(exp.Column))
    if tree.find(exp.Star) or any(column.name.lower() == "model" for column in columns):
        return None
    # in `a.b` the column may be b of the relation a, or a of which b is a part
    return frozenset(part.name.lower() for column in columns for part in column.parts)
