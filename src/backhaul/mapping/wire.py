"""One plan row -> the bytes of one record on the wire, as SQL, so that a batch body is a slice of an Arrow buffer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import orjson

from backhaul.mapping.coercion import number_text, time_text
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.sql import ident, literal
from backhaul.types import FieldType, Frame, Nulls

Encode = Callable[[MappedField], str]
_TIMES = (FieldType.DATE, FieldType.DATETIME, FieldType.TIMESTAMP)


def plain_text(field: MappedField, prefix: str = "f.") -> str:
    """A field's value as plain text; NULL stays NULL. With the prefix `o.` the acknowledged value of a plan."""
    return value_text(ident(prefix + field.name), field.storage, field.field.type)


def value_text(value: str, storage: str, kind: FieldType) -> str:
    """SQL of a stored value as plain text."""
    if kind in _TIMES and storage != "VARCHAR":
        return time_text(value, kind)
    return number_text(value, storage)


def key_text(fields: Sequence[MappedField], prefix: str = "f.") -> str:
    """The identifier of a record as text: of one field its text, of several a JSON list of texts."""
    if len(fields) == 1:
        return plain_text(fields[0], prefix)
    return f"CAST(to_json([{', '.join(plain_text(field, prefix) for field in fields)}]) AS VARCHAR)"


def json_text(fields: Sequence[MappedField], part: str = "", frame: Frame | None = None) -> str:
    """A record as a JSON object followed by a comma; a dot in a field's path nests. `part`: SQL of whether it may go without
    what did not change; a nested object that changed anywhere goes whole, and so does what is in a frame."""
    if frame is None:
        return _object(fields, "", _json_value, "},", part)
    placed = [replace(field, place=frame.place(field.name)) for field in fields]
    return _object(placed, "", _json_value, "},", part, dict(frame.constants))


def strings_text(fields: Sequence[MappedField], part: str = "") -> str:
    """A record as a JSON object whose values are all strings, followed by a comma; `part` as in `json_text`."""
    return _object(fields, "", _string_value, "},", part)


def csv_line(fields: Sequence[MappedField], part: str = "", null: str = "") -> str:
    """A record as a CSV line (RFC 4180): text is quoted, NULL is an unquoted empty cell. Where the destination has a text for
    `null`, an empty cell leaves the field alone: so do skipped ones, and what did not change (`part` as in `json_text`)."""
    cells = [_csv_part(field, part, null) for field in fields]
    return f"concat({', '.join(_with_commas(cells))}, chr(10))"


def _with_commas(parts: list[str]) -> list[str]:
    return [
        piece for number, part in enumerate(parts) for piece in ([part] if number == 0 else ["','", part])
    ]


def _csv_part(field: MappedField, part: str, null: str) -> str:
    cell = _csv_value(field, null)
    if not part or field.identifier:
        return cell
    return f"CASE WHEN {part} AND {_is_same(field)} THEN '' ELSE {cell} END"


def _csv_value(field: MappedField, null: str) -> str:
    """An empty text is no value where there is a text for that: its cell would leave the field alone."""
    text = plain_text(field)
    none = "''" if _may_be_left_out(field) else literal(null)
    if field.storage != "VARCHAR":
        return f"coalesce({text}, {none})"
    quoted = f"concat('\"', replace({text}, '\"', '\"\"'), '\"')"
    empty = f"WHEN {text} = '' THEN {literal(null)} " if null else ""
    return f"CASE WHEN {text} IS NULL THEN {none} {empty}ELSE {quoted} END"


def _json_value(field: MappedField) -> str:
    column, kind = ident(field.column), field.field.type
    if kind in (FieldType.JSON, FieldType.ARRAY):
        return column
    if field.storage == "VARCHAR":
        return f"CAST(to_json({column}) AS VARCHAR)"
    if kind in _TIMES:
        return f"'\"' || {plain_text(field)} || '\"'"
    return number_text(column, field.storage) if field.storage != "DOUBLE" else f"CAST({column} AS VARCHAR)"


def _string_value(field: MappedField) -> str:
    if field.storage == "VARCHAR":
        return f"CAST(to_json({ident(field.column)}) AS VARCHAR)"
    return f"'\"' || {plain_text(field)} || '\"'"


def _object(
    fields: Sequence[MappedField], prefix: str, value: Encode, end: str = "}", part: str = "",
    constants: dict[str, Any] | None = None,
) -> str:  # fmt: skip
    """concat('{', members, end) over the fields and constants whose paths start with `prefix`; every member but the first one
    written carries its comma in front. Where the first may be left out, the comma of whichever is first is cut off."""
    every = (constants or {}).items()
    here = {path[len(prefix) :]: given for path, given in every if path.startswith(prefix)}
    fixed = {name: given for name, given in here.items() if "." not in name}
    members = [literal(orjson.dumps(fixed).decode()[1:-1])] if fixed else []
    seen: set[str] = set()
    steady = bool(fixed) or (
        bool(fields) and not all(_may_be_left_out(field) for field in _beside(fields[0], fields, prefix))
    )
    for field in fields:
        name = field.path[len(prefix) :]
        head, dot, _ = name.partition(".")
        if dot and head in seen:
            continue
        comma = "," if members or not steady else ""
        label = f"{comma}{orjson.dumps(head).decode()}:"
        if dot:
            seen.add(head)
            inner = _beside(field, fields, prefix)
            text = f"{literal(label)}, {_object(inner, f'{prefix}{head}.', value, constants=constants)}"
            kept = any(name.startswith(f"{head}.") for name in here)
            if not kept and all(_may_be_left_out(other) for other in inner):
                none = " AND ".join(f"{ident(other.column)} IS NULL" for other in inner)
                text = f"CASE WHEN {none} THEN '' ELSE concat({text}) END"
            members.append(_where_changed(text, inner, part))
        else:
            members.append(_where_changed(_member(label, field, value), [field], part))
    text = ", ".join(members)
    return f"concat('{{', {text if steady else f'substr(concat({text}), 2)'}, {literal(end)})"


def _where_changed(member: str, fields: Sequence[MappedField], part: str) -> str:
    if not part or any(field.identifier for field in fields):
        return member
    same = " AND ".join(map(_is_same, fields))
    return f"CASE WHEN {part} AND {same} THEN '' ELSE concat({member}) END"


def _is_same(field: MappedField) -> str:
    return f"{ident(field.column)} IS NOT DISTINCT FROM {ident('o.' + field.name)}"


def _beside(field: MappedField, fields: Sequence[MappedField], prefix: str) -> list[MappedField]:
    """The fields of the nested object that a field is in; of a field that nests no deeper itself alone."""
    head, dot, _ = field.path[len(prefix) :].partition(".")
    return [other for other in fields if other.path.startswith(f"{prefix}{head}.")] if dot else [field]


def _may_be_left_out(field: MappedField) -> bool:
    return field.nulls is Nulls.SKIP and not field.identifier


def _member(label: str, field: MappedField, value: Encode) -> str:
    text = value(field)
    if _may_be_left_out(field):
        return f"CASE WHEN {ident(field.column)} IS NULL THEN '' ELSE concat({literal(label)}, {text}) END"
    empty = "'\"\"'" if value is _string_value else "'null'"
    return f"{literal(label)}, coalesce({text}, {empty})"


def record_text(
    wire: str, fields: Sequence[MappedField], part: str = "", null: str = "", frame: Frame | None = None
) -> str:
    """The SQL of one record for a destination's wire: `json`, `text` or `csv`; `part` and `frame` as in `json_text`, `null` as in
    `csv_line`."""
    if wire == "csv":
        return csv_line(fields, part, null)
    return json_text(fields, part, frame) if wire == "json" else strings_text(fields, part)


def delete_fields(mapping: Mapping) -> tuple[MappedField, ...]:
    """What a delete carries: the identifiers alone."""
    return mapping.identifiers
