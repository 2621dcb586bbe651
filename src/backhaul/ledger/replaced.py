"""Records whose identifier changes at a destination that cannot change it: another record takes the place of each."""

from __future__ import annotations

from backhaul.ledger.plan import CHANGES
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.mapping.wire import plain_text
from backhaul.sql import ident, literal


def identity(mapping: Mapping, prefix: str = "f.") -> str:
    """SQL of a record's identifier as the destination compares it: of the text that leaves, by each field's own rule; with the
    prefix `o.` of the acknowledged one."""
    parts = [_compared(field, prefix) for field in mapping.identifiers]
    return parts[0] if len(parts) == 1 else f"CAST(to_json([{', '.join(parts)}]) AS VARCHAR)"


def named_identity(mapping: Mapping) -> str:
    """SQL of the identifier with the names of its fields: the same for every sync that finds a record by it. NULL where it has no
    value."""
    names = ",".join(field.name for field in mapping.identifiers)
    return f"{literal(f'identifier:{names}:')} || {identity(mapping)}"


def _compared(field: MappedField, prefix: str) -> str:
    text = plain_text(field, prefix)
    if field.field.compared_length is not None:
        text = f"left({text}, {field.field.compared_length})"
    if field.field.case_insensitive:
        text = f"lower(trim({text}))"
    return f"strip_accents({text})" if field.field.accent_insensitive else text


def is_replaced(mapping: Mapping, moved: str) -> str:
    """SQL of whether a candidate is held under another identifier, which stays with it alone. `moved`: SQL of whether the
    destination can change it."""
    was = identity(mapping, "o.")
    return (
        f"(NOT gone AND NOT unheld AND NOT never AND NOT dead AND _error IS NULL AND NOT ({moved}) "
        f"AND {was} <> {identity(mapping)} AND {was} NOT IN (SELECT n FROM temp.main.claimed)) IS TRUE"
    )


def with_replacements(
    changes: str, mapping: Mapping, *, send: int, delete: int | None, spared: str = "false"
) -> str:
    """Over the SELECT of a plan's rows with `replaced`: what is replaced becomes a create, of which nothing is held yet, and
    where there is a `delete` segment, a delete of the record under its previous identifier goes first. Neither leaves where a
    dead letter says that the record could not be deleted (`undeleted`). `spared`: SQL of whether the previous record stays."""
    names = [ident("o." + field.name) for field in mapping.fields]
    nothing = ", ".join(
        f"CASE WHEN replaced THEN NULL ELSE {name} END AS {name}" for name in (*names, "_remote_id")
    )
    create = CHANGES.index("create")
    kept = f"SELECT * REPLACE (CASE WHEN replaced THEN {create} ELSE _change END AS _change, {nothing}) FROM changes"
    if delete is None:
        return f"WITH changes AS ({changes}) SELECT * EXCLUDE (replaced) FROM ({kept})"
    before = ", ".join(f"{_before(field)} AS {ident(field.column)}" for field in mapping.fields)
    row = f"{delete} AS _segment, {CHANGES.index('delete')} AS _change, NULL AS _hash, NULL AS _error, NULL AS _again, {before}"
    deletes = f"SELECT * REPLACE ({row}) FROM changes WHERE replaced AND _segment = {send} AND NOT ({spared})"
    return f"WITH changes AS ({changes}) SELECT * EXCLUDE (replaced) FROM ({kept} UNION ALL {deletes})"


def _before(field: MappedField) -> str:
    return ident("o." + field.name) if field.identifier else f"NULL::{field.storage}"
