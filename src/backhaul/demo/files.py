"""The demo's project files: what a user would write."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path

from backhaul.sandbox.kit import Sample

BACKHAUL_YML = """\
project: demo
warehouses:
  main: {{type: duckdb, path: warehouse.duckdb}}
destinations:
  crm: {connection}
  app: {{type: sqlite, path: product.db}}
"""

CONTACTS_SQL = """\
select c.contact_id, c.email, c.first_name, c.last_name, c.job_title,
       a.plan, a.mrr, a.seats, a.health, a.churn_risk, a.last_seen
from marts.contacts c join marts.accounts a using (account_id)
"""

CONTACTS_YML = """\
name: contacts
model: {{file: models/contacts.sql, primary_key: contact_id}}
destination: crm
object: {object}
mode: {mode}
identify: {{{identify}}}
fields:                        # destination field <- SQL expression
{fields}
"""

SCORES_YML = """\
name: scores
model: {table: marts.accounts, primary_key: account_id}
destination: app
object: account_scores
mode: mirror                   # rows that leave the model are deleted
identify: {account_id: account_id}
fields:
  name: name
  health: health
  churn_risk: churn_risk
  is_at_risk: churn_risk > 0.8 and health < 40
"""


def write_project(folder: Path, sample: Sample, url: str) -> None:
    """Writes the project's files; `url` is the simulated destination's address."""
    for name, text in {
        "backhaul.yml": BACKHAUL_YML.format(connection=sample.connection(url)),
        ".env": "\n".join([*sample.environment(), ""]),
        ".gitignore": ".backhaul/\n.env\n",
        "models/contacts.sql": CONTACTS_SQL,
        "syncs/contacts.yml": CONTACTS_YML.format(
            object=sample.object, mode=sample.mode, identify=_joined(sample.identify),
            fields="\n".join(f"  {name}: {sql}" for name, sql in sample.fields.items()),
        ),
        "syncs/scores.yml": SCORES_YML,
    }.items():  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / ".env").chmod(0o600)


def _joined(keys: Mapping[str, str]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in keys.items())


def create_product_database(path: Path) -> None:
    """The table that the product reads; its other columns are the product's own."""
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE account_scores (account_id INTEGER PRIMARY KEY, name TEXT NOT NULL, health REAL, churn_risk REAL, "
            "is_at_risk BOOLEAN, notes TEXT DEFAULT 'written by the product')"
        )
    db.close()
