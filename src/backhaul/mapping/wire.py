"""One plan row -> the bytes of one record on the wire, as SQL, so that a batch body is a slice of an Arrow buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from backhaul.mapping.coercion import time_text
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.sql import ident, literal
from backhaul.types import FieldType, Nulls

Encode = Callable[[MappedField], str]
_TIMES = (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP)


def plain_text(field: MappedField) -> str:
    """A field's value as plain text; NULL stays NULL."""
    column = ident(field.column)
    if field.field.type in _TIMES and field.storage != "VARCHAR":
        return time_text(column, field.field.type)
    return f"CAST({column} AS VARCHAR)"


def key_text(fields: Sequence[MappedField]) -> str:
    """The identifier of a record as text: of one field its text, of several a JSON list of texts."""
    if len(fields) == 1:
        return plain_text(fields[0])
    return f"CAST(to_json([{', '.join(plain_text(field) for field in fields)}]) AS VARCHAR)"


def json_text(fields: Sequence[MappedField]) -> str:
    """A record as a JSON object followed by a comma; a dot in a field's name nests."""
    return _object(fields, "", _json_value, "},")


def strings_text(fields: Sequence[MappedField]) -> str:
    """A record as a JSON object whose values are all strings, followed by a comma."""
    return _object(fields, "", _string_value, "},")


def csv_line(fields: Sequence[MappedField]) -> str:
    """A record as a CSV line (RFC 4180): text is quoted, NULL is an unquoted empty cell."""
    return f"concat({', '.join(_with_commas([_csv_value(field) for field in fields]))}, chr(10))"


def _with_commas(parts: list[str]) -> list[str]:
    return [
        piece for number, part in enumerate(parts) for piece in ([part] if number == 0 else ["','", part])
    ]


def _csv_value(field: MappedField) -> str:
    text = plain_text(field)
    if field.storage != "VARCHAR":
        return f"coalesce({text}, '')"
    quoted = f"concat('\"', replace({text}, '\"', '\"\"'), '\"')"
    return f"CASE WHEN {text} IS NULL THEN '' ELSE {quoted} END"


def _json_value(field: MappedField) -> str:
    column, kind = ident(field.column), field.field.type
    if kind in (FieldType.JSON, FieldType.ARRAY):
        return column
    if field.storage == "VARCHAR":
        return f"CAST(to_json({column}) AS VARCHAR)"
    if kind in _TIMES:
        return f"'\"' || {plain_text(field)} || '\"'"
    return f"CAST({column} AS VARCHAR)"


def _string_value(field: MappedField) -> str:
    if field.storage == "VARCHAR":
        return f"CAST(to_json({ident(field.column)}) AS VARCHAR)"
    return f"'\"' || {plain_text(field)} || '\"'"


def _object(fields: Sequence[MappedField], prefix: str, value: Encode, end: str = "}") -> str:
    """concat('{', members, end) over the fields whose names start with `prefix`; every member but the first one written
    carries its comma in front. Where the first may be left out, the comma of whichever is first is cut off."""
    members: list[str] = []
    seen: set[str] = set()
    steady = bool(fields) and ("." in fields[0].name[len(prefix) :] or not _may_be_left_out(fields[0]))
    for field in fields:
        name = field.name[len(prefix) :]
        head, dot, _ = name.partition(".")
        if dot and head in seen:
            continue
        comma = "," if members or not steady else ""
        label = comma + '"' + head.replace("\\", "\\\\").replace('"', '\\"') + '":'
        if dot:
            seen.add(head)
            inner = [other for other in fields if other.name.startswith(f"{prefix}{head}.")]
            members.append(f"{literal(label)}, {_object(inner, f'{prefix}{head}.', value)}")
        else:
            members.append(_member(label, field, value))
    text = ", ".join(members)
    return f"concat('{{', {text if steady else f'substr(concat({text}), 2)'}, {literal(end)})"


def _may_be_left_out(field: MappedField) -> bool:
    return field.nulls is Nulls.SKIP and not field.identifier


def _member(label: str, field: MappedField, value: Encode) -> str:
    text = value(field)
    if _may_be_left_out(field):
        return f"CASE WHEN {ident(field.column)} IS NULL THEN '' ELSE concat({literal(label)}, {text}) END"
    empty = "'\"\"'" if value is _string_value else "'null'"
    return f"{literal(label)}, coalesce({text}, {empty})"


def record_text(wire: str, fields: Sequence[MappedField]) -> str:
    """The SQL of one record for a destination's wire: `json`, `text` or `csv`."""
    return {"json": json_text, "text": strings_text, "csv": csv_line}[wire](fields)


def delete_fields(mapping: Mapping) -> tuple[MappedField, ...]:
    """What a delete carries: the identifiers alone."""
    return mapping.identifiers
