"""Keys that the destination has on one record of its own: one of them keeps it, the others are rejected.

Two keys on one record would overwrite each other in every run, and the delete of one would take the other's record away.
"""

from __future__ import annotations

from dataclasses import dataclass

from backhaul.changes import Stage, code
from backhaul.engine import number
from backhaul.ledger.duplicates import key_json
from backhaul.ledger.ledger import ALIAS, LedgerView
from backhaul.mapping.mapping import Mapping

CODE = "SAME_RECORD"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A row of a plan that was answered with the id of a record which `holder` has. Keys are JSON."""

    row: int
    key: str
    holder: str
    remote_id: str

    @property
    def message(self) -> str:
        return (
            f"keys {self.holder} and {self.key} are one record of the destination ({self.remote_id}); "
            f"{self.holder} keeps it"
        )


def release_conflicts(
    view: LedgerView, mapping: Mapping, source: str, *, resend_holders: bool
) -> list[Conflict]:
    """Leaves each record of the destination to one key after a plan was taken in: the key that had it before, else the first
    in the plan. The other keys leave the ledger, so that nothing they do reaches the record again, and what the
    keeper holds is in doubt, since another key's values were written over it.

    `source` is SQL of the plan's rows with their `status` and `new_id`. A record whose row left the model gives way.
    """
    fresh = (
        f"p.status = {code(Stage.ACKNOWLEDGED)} AND p._change <> 2 AND p.new_id IS DISTINCT FROM p._remote_id"
    )
    engine, keys = view.engine, [key.column for key in mapping.keys]
    found = number(
        engine,
        f"CREATE OR REPLACE TEMP TABLE conflicts AS SELECT _remote_id AS id FROM {ALIAS}.acked WHERE _remote_id IN "
        f"(SELECT p.new_id FROM {source} AS p WHERE {fresh} AND p.new_id IS NOT NULL) GROUP BY 1 HAVING count(*) > 1",
    )
    if not found:
        return []
    same = " AND ".join(f"p.{key} = a.{key}" for key in keys)
    names = ", ".join(f"a.{key}" for key in keys)
    place = f"coalesce(p._change = 2, false), coalesce(({fresh}), false), p.file_row_number"
    engine.execute(
        f"CREATE OR REPLACE TEMP TABLE claims AS SELECT {names}, {key_json(mapping, 'a.')} AS pk, a._remote_id AS id, "
        f"CASE WHEN {fresh} THEN p.file_row_number END AS row, row_number() OVER "
        f"(PARTITION BY a._remote_id ORDER BY {place}, {key_json(mapping, 'a.')}) AS place "
        f"FROM {ALIAS}.acked AS a JOIN temp.main.conflicts AS c ON c.id = a._remote_id LEFT JOIN {source} AS p ON {same}"
    )
    columns = ", ".join(keys)
    view.touch(f"SELECT {columns} FROM temp.main.claims")
    among = f"({columns}) IN (SELECT ({columns}) FROM temp.main.claims WHERE place"
    engine.execute(f"DELETE FROM {ALIAS}.acked WHERE {among} > 1)")
    if resend_holders:
        engine.execute(
            f"UPDATE {ALIAS}.acked SET _hash = NULL, _state = {code(Stage.UNKNOWN)} WHERE {among} = 1)"
        )
    rows = engine.execute(
        "SELECT o.row, o.pk, h.pk, o.id FROM temp.main.claims AS o JOIN temp.main.claims AS h "
        "ON h.id = o.id AND h.place = 1 WHERE o.place > 1 AND o.row IS NOT NULL ORDER BY o.row"
    ).fetchall()
    return [Conflict(*row) for row in rows]
