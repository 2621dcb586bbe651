"""An undo is made with the mapping of the run that it undoes; its rows are brought into the shape that the ledger has now."""

from __future__ import annotations

from dataclasses import replace

from backhaul.engine import in_order, spill_folder
from backhaul.ledger.ledger import ALIAS, LedgerView, converted
from backhaul.ledger.plan import Plan
from backhaul.mapping.mapping import MappedField, Mapping
from backhaul.sql import ident, literal


def in_ledger_shape(view: LedgerView, mapping: Mapping, plan: Plan) -> tuple[Mapping, Plan]:
    """The ledger's mapping, and an undo with the ledger's fields: those that it did not send stay as they were acknowledged, so
    that the next run does not take them for new. Any other plan is returned as it is."""
    if plan.undo is None or view.empty or view.fits(mapping):
        return mapping, plan
    identifiers = {field.name for field in mapping.identifiers}
    now = view.mapping(identifiers)
    if not identifiers <= view.shape["fields"].keys() or now.shape["keys"] != mapping.shape["keys"]:
        return mapping, plan
    file = spill_folder(view.engine) / "older-plan.parquet"
    with in_order(view.engine):
        view.engine.execute(f"COPY ({_rows(mapping, now, plan)}) TO {literal(str(file))} (FORMAT parquet)")
    return now, replace(plan, path=file)


def _rows(mapping: Mapping, now: Mapping, plan: Plan) -> str:
    """The plan's rows in their order. One with a value that the ledger's type cannot hold has no hash: it is sent again."""
    sent = {field.name: field for field in mapping.fields}
    keys = [key.column for key in now.keys]
    same = " AND ".join(f"a.{key} = p.{key}" for key in keys)
    values = [
        f"{_value(field, sent.get(field.name), prefix)} AS {ident(prefix + field.name)}"
        for prefix in ("f.", "o.")
        for field in now.fields
    ]
    lost = " OR ".join(
        f"(p.{ident(field.column)} IS NOT NULL AND {_value(field, sent[field.name], 'f.')} IS NULL)"
        for field in now.fields
        if field.name in sent
    )
    rest = ["_segment", "_change", *keys, "_hash", "_remote_id", "_error", "_again"]
    return (
        f"SELECT * EXCLUDE (_row, _lost) REPLACE (CASE WHEN _hash IS NOT NULL AND NOT _lost THEN {now.hash_sql()} END AS _hash) "
        f"FROM (SELECT {', '.join(f'p.{name}' for name in rest)}, {', '.join(values)}, {lost} AS _lost, "
        f"p.file_row_number AS _row FROM {plan.rows_sql} AS p LEFT JOIN {ALIAS}.acked AS a ON {same}) ORDER BY _row"
    )


def _value(field: MappedField, sent: MappedField | None, prefix: str) -> str:
    """A field of the ledger: as the plan has it, else as it is acknowledged."""
    if sent is None:
        return f"a.{ident(field.column)}"
    return converted(f"p.{ident(prefix + field.name)}", sent.storage, sent.field.type, field.storage)
