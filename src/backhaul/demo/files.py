"""The demo's project files: what a user would write."""

from __future__ import annotations

import sqlite3
from pathlib import Path

BACKHAUL_YML = """\
project: demo
warehouses:
  main: {{type: duckdb, path: warehouse.duckdb}}
destinations:
  crm: {{type: hubspot, base_url: "{crm}", access_token: "${{HUBSPOT_TOKEN}}"}}
  app: {{type: sqlite, path: product.db}}
"""

CONTACTS_SQL = """\
select c.contact_id, c.email, c.first_name, c.last_name, c.job_title,
       a.plan, a.mrr, a.seats, a.health, a.churn_risk, a.last_seen
from marts.contacts c join marts.accounts a using (account_id)
"""

CONTACTS_YML = """\
name: contacts
model: {file: models/contacts.sql, primary_key: contact_id}
destination: crm
object: contacts
mode: upsert
identify: {email: email}
fields:                        # destination field <- SQL expression
  firstname: first_name
  lastname: last_name
  jobtitle: job_title
  plan_tier: upper(plan)
  mrr: mrr
  seats: seats
  health_score: round(health, 1)
  churn_risk: churn_risk
  last_seen: last_seen
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

PROPERTIES = {
    "plan_tier": ("enumeration", "select", ["FREE", "TEAM", "BUSINESS", "ENTERPRISE"]),
    "mrr": ("number", "number", []),
    "seats": ("number", "number", []),
    "health_score": ("number", "number", []),
    "churn_risk": ("number", "number", []),
    "last_seen": ("date", "date", []),
}
"""Custom contact properties: type, field type, options."""


def write_project(folder: Path, crm: str) -> None:
    """Writes the project's files; `crm` is the simulated CRM's address."""
    for name, text in {
        "backhaul.yml": BACKHAUL_YML.format(crm=crm),
        ".env": "HUBSPOT_TOKEN=local-sandbox-token\n",
        ".gitignore": ".backhaul/\n.env\n",
        "models/contacts.sql": CONTACTS_SQL,
        "syncs/contacts.yml": CONTACTS_YML,
        "syncs/scores.yml": SCORES_YML,
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / ".env").chmod(0o600)


def create_product_database(path: Path) -> None:
    """The table that the product reads; its other columns are the product's own."""
    with sqlite3.connect(path) as db:
        db.execute(
            "CREATE TABLE account_scores (account_id INTEGER PRIMARY KEY, name TEXT NOT NULL, health REAL, churn_risk REAL, "
            "is_at_risk BOOLEAN, notes TEXT DEFAULT 'written by the product')"
        )
    db.close()
