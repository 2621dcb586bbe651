"""A seeded SaaS company in a DuckDB file: accounts with plan, MRR, seats, health and churn risk; one contact each."""

from __future__ import annotations

from pathlib import Path

import duckdb

ACCOUNTS = 20_000

_FIRST = [
    "Ada",
    "Alan",
    "Barbara",
    "Chen",
    "Dana",
    "Edsger",
    "Fatima",
    "Grace",
    "Hana",
    "Ivan",
    "Joan",
    "Katherine",
    "Linus",
    "Margaret",
    "Niklaus",
    "Olga",
    "Priya",
    "Radia",
    "Sofia",
    "Tim",
    "Uma",
    "Vint",
    "Wangari",
    "Yuki",
]
_LAST = [
    "Abara",
    "Berg",
    "Costa",
    "Dubois",
    "Eriksen",
    "Fischer",
    "Garcia",
    "Haddad",
    "Ito",
    "Jensen",
    "Kowalski",
    "Lopez",
    "Moreau",
    "Novak",
    "Okafor",
    "Patel",
    "Quinn",
    "Rossi",
    "Silva",
    "Tanaka",
    "Ueda",
    "Vogel",
    "Weber",
    "Young",
]
_HEADS = [
    "Blue",
    "Bright",
    "Clear",
    "Copper",
    "Delta",
    "Eager",
    "Far",
    "Green",
    "Harbor",
    "Iron",
    "Juniper",
    "Kind",
    "Lumen",
    "Maple",
    "North",
    "Open",
    "Prime",
    "Quiet",
    "River",
    "Silver",
    "Tidal",
    "Upper",
    "Vivid",
    "Wild",
]
_TAILS = [
    "Analytics",
    "Bank",
    "Clinic",
    "Dental",
    "Energy",
    "Foods",
    "Freight",
    "Games",
    "Health",
    "Insurance",
    "Jobs",
    "Labs",
    "Legal",
    "Media",
    "Motors",
    "Networks",
    "Optics",
    "Power",
    "Retail",
    "Robotics",
    "Schools",
    "Supply",
    "Travel",
    "Works",
]


def _pick(names: list[str], salt: int) -> str:
    """SQL that picks one of the names by the row's number."""
    return f"[{', '.join(repr(name) for name in names)}][1 + (hash(i, {salt}) % {len(names)})::BIGINT]"


def build(path: Path, accounts: int = ACCOUNTS) -> None:
    """Writes the warehouse: `marts.accounts`, `marts.contacts`. The same rows every time; some are dirty on purpose."""
    with duckdb.connect(str(path)) as db:
        db.execute("CREATE SCHEMA marts")
        db.execute(f"""
            CREATE TABLE marts.accounts AS
            SELECT i AS account_id,
                concat({_pick(_HEADS, 1)}, ' ', {_pick(_TAILS, 2)}, ' ', i) AS name,
                ['free', 'team', 'business', 'enterprise'][1 + (hash(i, 3) % 4)::BIGINT] AS plan,
                1 + (hash(i, 4) % 250)::INTEGER AS seats,
                ((1 + hash(i, 4) % 250) * [0, 12, 29, 59][1 + (hash(i, 3) % 4)::BIGINT])::DECIMAL(12, 2) AS mrr,
                round((hash(i, 5) % 1000) / 10.0, 1) AS health,
                round((hash(i, 6) % 100) / 100.0, 2) AS churn_risk,
                DATE '2026-11-01' - (hash(i, 7) % 90)::INTEGER AS last_seen
            FROM range(1, {accounts + 1}) AS t(i) ORDER BY i""")
        db.execute(f"""
            CREATE TABLE marts.contacts AS
            SELECT i AS contact_id, i AS account_id, {_pick(_FIRST, 8)} AS first_name, {_pick(_LAST, 9)} AS last_name,
                lower(concat({_pick(_FIRST, 8)}, '.', {_pick(_LAST, 9)}, '.', i, '@example.com')) AS email,
                'Head of Operations' AS job_title
            FROM range(1, {accounts + 1}) AS t(i) ORDER BY i""")
        _spoil(db)


def _spoil(db: duckdb.DuckDBPyConnection) -> None:
    """What every real warehouse has."""
    db.execute(
        "UPDATE marts.contacts SET email = replace(email, '@', ' at ') WHERE contact_id IN (17, 4242, 9001)"
    )
    db.execute("UPDATE marts.contacts SET email = NULL WHERE contact_id IN (404, 13337)")
    db.execute(
        "UPDATE marts.contacts SET job_title = repeat('Senior ', 10000) || 'Manager' WHERE contact_id = 777"
    )
    db.execute(
        "UPDATE marts.contacts SET email = (SELECT email FROM marts.contacts WHERE contact_id = 100) WHERE contact_id = 101"
    )


def change(path: Path, percent: int = 1) -> None:
    """A day later: a share of the accounts changed, three left."""
    with duckdb.connect(str(path)) as db:
        db.execute(f"""
            UPDATE marts.accounts SET health = round(100 - health, 1), seats = seats + 5, mrr = mrr * 1.1
            WHERE hash(account_id + 1000000) % {100 // percent} = 0""")
        db.execute("DELETE FROM marts.contacts WHERE account_id IN (5, 6, 7)")
        db.execute("DELETE FROM marts.accounts WHERE account_id IN (5, 6, 7)")
        db.execute("UPDATE marts.contacts SET email = replace(email, ' at ', '@') WHERE contact_id = 17")
