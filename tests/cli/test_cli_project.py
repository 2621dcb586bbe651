"""The commands on a real project: what they print, what their JSON holds, how they exit."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from cli_program import Call

from backhaul.testing.duckdb_file import opened

MAIN = """\
project: shop
warehouses:
  main: {type: duckdb, path: warehouse.duckdb}
destinations:
  app: {type: sqlite, path: app.db}
"""
SYNC = """\
name: NAME
model: {warehouse: main, table: customers, primary_key: id}
destination: app
object: NAME
mode: mirror
identify: {id: id}
fields: {email: lower(email), health: health, MORE}
guards: {max_deletes: 50%}
"""


class Shop:
    """Two syncs, `customers` and `leads`, of one table of four rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "syncs").mkdir()
        (folder / "backhaul.yml").write_text(MAIN)
        columns = "i AS id, 'U' || i || '@X.COM' AS email, i * 10 AS health"
        self.query(f"CREATE TABLE customers AS SELECT {columns} FROM range(1, 5) t(i)")
        for name in ("customers", "leads"):
            (folder / "syncs" / f"{name}.yml").write_text(SYNC.replace("NAME", name).replace(", MORE", ""))
            self.app(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, email TEXT NOT NULL, health INTEGER)")

    def query(self, sql: str) -> None:
        with opened(self.folder / "warehouse.duckdb") as warehouse:
            warehouse.execute(sql)

    def app(self, sql: str) -> list[Any]:
        with sqlite3.connect(self.folder / "app.db") as app:
            return app.execute(sql).fetchall()

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / "syncs" / f"{name}.yml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def delivered(shop: Shop, call: Call) -> Shop:
    assert call("run", "--quiet").code == 0
    return shop


def test_check(shop: Shop, call: Call) -> None:
    said = call("check")
    assert (said.code, said.err) == (0, "")
    assert said.out.count("✓") == 6
    shop.edit("leads", "health: health", "helth: health")
    said = call("check", "--json")
    assert (said.code, said.err, said.json["ok"]) == (2, "", False)
    (bad,) = [one for one in said.json["checks"] if not one["ok"]]
    assert bad["sync"] == "leads"
    assert "helth" in bad["message"]


def test_check_of_a_connection_that_fails_exits_with_1(shop: Shop, call: Call) -> None:
    (shop.folder / "app.db").unlink()
    said = call("check", "customers")
    assert said.code == 1
    assert "✗ destination" in said.out


def test_plan_shows_old_and_new_values_and_sends_nothing(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET health = 21 WHERE id = 2; DELETE FROM customers WHERE id = 4")
    delivered.query("INSERT INTO customers VALUES (5, 'N\x1b[31mew@x.com', 0)")
    said = call("plan", "customers")
    assert (said.code, said.err) == (0, "")
    assert "+ 1 create   ~ 1 update   - 1 delete" in said.out
    assert [line.split() for line in said.out.splitlines() if "→" in line][1] == [
        "~",
        "2",
        "health",
        "20",
        "→",
        "21",
    ]
    assert "n\\x1b[31mew@x.com" in said.out
    assert "\x1b" not in said.out
    assert "✓ max_deletes" in said.out
    assert f"backhaul run customers --plan {newest_plan(delivered)}" in said.out
    assert delivered.app("SELECT health FROM customers WHERE id = 2") == [(20,)]


def newest_plan(shop: Shop) -> str:
    with sqlite3.connect(shop.folder / ".backhaul" / "state.db") as state:
        return str(state.execute("SELECT id FROM plans ORDER BY created_at DESC").fetchone()[0])


def test_plan_json_and_its_file_are_the_same(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET health = 21 WHERE id = 2")
    said = call("plan", "customers", "--json", "--out", "plan.json")
    assert (said.code, said.err) == (0, "")
    (plan,) = said.json["plans"]
    assert plan["changes"] == {"create": 0, "update": 1, "delete": 0}
    assert plan["sample"] == [{"op": "update", "key": 2, "fields": {"health": [20, 21]}}]
    assert json.loads((delivered.folder / "plan.json").read_text()) == said.json
    assert (delivered.folder / "plan.json").stat().st_mode & 0o777 == 0o600


def test_a_sync_that_cannot_be_planned_leaves_the_others(shop: Shop, call: Call) -> None:
    shop.edit("customers", "table: customers", "table: gone")
    said = call("plan")
    assert said.code == 1
    assert said.err.startswith("error: customers: ")
    assert "+ 4 create" in said.out
    said = call("plan", "--json")
    assert (said.code, said.err) == (1, "")
    assert [plan["sync"] for plan in said.json["plans"]] == ["leads"]
    assert [error["sync"] for error in said.json["errors"]] == ["customers"]


def test_plan_shows_what_the_mapping_refuses(shop: Shop, call: Call) -> None:
    shop.edit("customers", "health: health", "health: \"if(id = 3, 'much', '1')\"")
    said = call("plan", "customers")
    assert "! 1 refused" in said.out
    assert "1 record refused by the mapping, kept as dead letters:\n  ! 1 × health: " in said.out
    said = call("run", "customers")
    assert said.code == 3
    assert "3 changed: 3 created · 3 delivered, 1 rejected (1 before sending) · " in said.out


def test_check_and_plan_count_the_rows_that_will_be_rejected(shop: Shop, call: Call) -> None:
    shop.query("UPDATE customers SET email = NULL WHERE id < 3")
    checked, planned = call("check", "customers"), call("plan", "customers").out
    said = "email: is null, and the destination requires a value"
    assert (checked.code, f"2 rows will be rejected: {said}" in checked.out) == (0, True)
    assert "no errors, 1 warning;" in checked.out
    assert f"! 2 × {said} (1, 2)" in planned


def test_check_and_plan_count_new_records_without_a_required_value(shop: Shop, call: Call) -> None:
    """A NULL is skipped: an update may leave the column out, a new row may not."""
    shop.query("UPDATE customers SET email = NULL WHERE id < 3")
    shop.edit("customers", "email: lower(email)", "email: {value: lower(email), 'null': skip}")
    said = "2 new records have no value for email, which a new record requires"
    assert said in call("check", "customers").out
    assert said in call("plan", "customers").out
    assert "2 delivered, 2 rejected" in call("run", "customers").out
    shop.edit("leads", "email: lower(email)", "email: {value: lower(email), 'null': skip}")
    shop.edit("leads", "mode: mirror", "mode: insert")
    assert "2 rows will be rejected: email: null is skipped here" in call("check", "leads").out


def test_run_says_what_was_done(shop: Shop, call: Call) -> None:
    said = call("run")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("customers  succeeded  4 changed: 4 created · 4 delivered · 1 request in ")
    assert lines[1] == "  4 records read back, all as sent"
    assert lines[2].startswith("leads  succeeded  ")
    assert shop.app("SELECT count(*) FROM leads") == [(4,)]


def test_run_json_is_the_contract_and_alone_on_stdout(shop: Shop, process: Call) -> None:
    said = process("--json", "run", "lead*")
    assert (said.code, said.err) == (0, "")
    (run,) = said.json["runs"]
    contract = """id sync status error started_at finished_at rows changes delivered rejected deferred unknown
        requests retries seconds"""
    assert set(contract.split()) <= set(run)
    assert (run["sync"], run["status"], run["delivered"]) == ("leads", "succeeded", 4)


def test_quiet_says_only_what_is_wrong(shop: Shop, process: Call) -> None:
    for words in (
        ["check"],
        ["plan"],
        ["run"],
        ["status"],
        ["runs"],
        ["records", "leads"],
        ["verify", "leads"],
    ):
        said = process("--quiet", *words)
        assert (said.code, said.out, said.err) == (0, "", ""), words
    shop.app("DELETE FROM leads")
    said = process("--quiet", "verify", "leads")
    assert (said.code, said.out, said.err) == (3, "", "leads: 4 records read back, 4 differ\n")
    shop.query("UPDATE customers SET email = NULL WHERE id = 2")
    said = process("--quiet", "run", "customers")
    assert (said.code, said.out) == (3, "")
    assert "1 record was refused" in said.err


def test_a_reviewed_plan_is_delivered_or_refused(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET health = 21 WHERE id = 2")
    assert call("plan", "--out", "plan.json").code == 0
    delivered.query("UPDATE customers SET health = 31 WHERE id = 3")
    said = call("run", "customers", "--plan", "plan.json")
    assert (said.code, said.out) == (1, "")
    assert "nothing was sent" in said.err
    assert delivered.app("SELECT health FROM customers WHERE id = 2") == [(20,)]
    assert call("plan", "leads").code == 0
    said = call("run", "--plan", newest_plan(delivered))
    assert said.code == 0
    assert said.out.startswith("leads  succeeded  2 changed: 2 updated")


def test_a_plan_of_another_sync_is_refused(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET health = 21 WHERE id = 2")
    assert call("plan", "leads").code == 0
    said = call("run", "customers", "--plan", newest_plan(delivered))
    assert (said.code, said.out) == (2, "")
    assert "is of leads, not of customers" in said.err


def test_a_tripped_guard_holds_and_says_how_to_go_on(delivered: Shop, call: Call) -> None:
    delivered.query("DELETE FROM customers WHERE id > 1")
    said = call("run")
    assert said.code == 1
    assert said.err.count("error: ") == 2
    assert "max_deletes" in said.err
    assert delivered.app("SELECT count(*) FROM customers") == [(4,)]
    assert "a run would be held" in call("plan", "customers").out
    status = call("status").out
    assert "held" in status
    assert "next: backhaul run customers --plan p-" in status
    held = [
        json.loads(line)
        for line in call("records", "customers", "--status", "held", "--json").out.splitlines()
    ]
    assert [record["key"] for record in held] == [2, 3, 4]


def test_exit_codes_over_several_syncs(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET email = NULL WHERE id = 2")
    assert call("run", "customers").code == 3
    delivered.edit("leads", "health: health", "helth: health")
    assert call("run").code == 2
    delivered.edit("leads", "helth: health", "health: health")
    delivered.edit("leads", "table: customers", "table: gone")
    said = call("run", "--json")
    assert said.code == 1
    assert [run["status"] for run in said.json["runs"]] == ["succeeded", "failed"]


def test_limit_leaves_the_rest_pending(shop: Shop, call: Call) -> None:
    said = call("run", "customers", "--limit", "3")
    assert shop.app("SELECT count(*) FROM customers") == [(3,)]
    assert "1 record left by --limit: backhaul run customers" in said.out
    assert "1 created" in call("run", "customers").out


def test_the_rest_of_an_undo_is_delivered_by_another_undo(delivered: Shop, call: Call) -> None:
    before = delivered.app("SELECT * FROM customers ORDER BY id")
    delivered.query("UPDATE customers SET health = 0")
    (run,) = call("run", "customers", "--json").json["runs"]
    (plan,) = call("undo", run["id"], "--json").json["plans"]
    said = call("run", "customers", "--plan", plan["id"], "--limit", "1")
    assert f"3 records left by --limit: backhaul undo {run['id']}" in said.out
    assert "backhaul run" not in said.out
    (rest,) = call("undo", run["id"], "--json").json["plans"]
    assert rest["changes"] == {"create": 0, "update": 3, "delete": 0}
    assert call("run", "customers", "--plan", rest["id"]).code == 0
    assert delivered.app("SELECT * FROM customers ORDER BY id") == before


def test_dead_letters(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET email = NULL WHERE id = 2")
    said = call("run", "customers")
    assert said.code == 3
    assert "1 record was refused: backhaul dead-letters list --sync customers" in said.out
    (letter,) = call("dead-letters", "list", "--json").json["dead_letters"]
    assert set(letter) >= {
        "id",
        "sync",
        "key",
        "op",
        "error",
        "attempts",
        "first_failed_at",
        "last_failed_at",
        "payload",
    }
    assert (letter["sync"], letter["key"], letter["payload"]["email"]) == ("customers", 2, None)
    listed = call("dead-letters", "list").out
    assert letter["error"]["message"] in listed
    assert call("dead-letters", "list", "--sync", "leads").out == "no dead letters\n"
    shown = call("dead-letters", "show", str(letter["id"])).out
    assert '"email": null' in shown
    assert call("dead-letters", "replay", "--all", "--json", "--yes").json == {"replayed": [letter["id"]]}
    delivered.app("DROP TABLE customers")
    delivered.app("CREATE TABLE customers (id INTEGER PRIMARY KEY, email TEXT, health INTEGER)")
    assert call("run", "customers").code == 0
    assert delivered.app("SELECT id, email FROM customers") == [(2, None)]


def test_discarded_letters_are_not_sent_again(delivered: Shop, call: Call) -> None:
    delivered.query("UPDATE customers SET email = NULL WHERE id = 2")
    assert call("run", "customers").code == 3
    assert call("dead-letters", "discard", "--all", "--sync", "customers", "--yes").code == 0
    assert "nothing changed" in call("run", "customers").out


def test_records_are_one_object_a_line(delivered: Shop, call: Call) -> None:
    records = [json.loads(line) for line in call("records", "customers", "--json").out.splitlines()]
    assert records[1] == {
        "key": 2,
        "status": "acknowledged",
        "fields": {"id": 2, "email": "u2@x.com", "health": 20},
        "remote_id": None,
    }
    assert "email='u2@x.com'" in call("records", "customers").out
    assert call("records", "customers", "--status", "unknown").out == "customers knows no unknown records\n"
    assert call("records", "*").code == 2


def test_verify_tells_what_differs_and_the_next_run_mends_it(delivered: Shop, call: Call) -> None:
    assert "all as acknowledged" in call("verify", "*", "--all").out
    delivered.app("UPDATE customers SET health = 0 WHERE id = 2")
    delivered.app("DELETE FROM customers WHERE id = 3")
    said = call("verify", "customers", "--all", "--json")
    assert said.code == 3
    (verified,) = said.json["verified"]
    assert verified["checked"] == 4
    assert sorted((one["key"], one["missing"]) for one in verified["mismatches"]) == [(2, False), (3, True)]
    assert call("run", "customers").code == 0
    assert delivered.app("SELECT health FROM customers ORDER BY id") == [(10,), (20,), (30,), (40,)]


def test_verify_samples_the_same_with_the_same_seed(delivered: Shop, call: Call) -> None:
    delivered.app("UPDATE customers SET health = health + 1")
    keys = []
    for _ in range(2):
        said = call("verify", "customers", "--sample", "2", "--seed", "5", "--json")
        keys.append([one["key"] for one in said.json["verified"][0]["mismatches"]])
    assert len(keys[0]) == 2


def test_baseline_takes_rows_as_delivered(shop: Shop, call: Call) -> None:
    said = call("baseline", "customers")
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("customers: 4 records taken as delivered")
    assert shop.app("SELECT count(*) FROM customers") == [(0,)]
    assert "nothing to send: the destination has acknowledged every row" in call("plan", "customers").out


def test_reset_sends_everything_again(delivered: Shop, call: Call) -> None:
    assert call("reset", "customers").code == 2
    assert call("reset", "customers", "--yes", "--json").json == {
        "resets": [{"sync": "customers", "records": 4, "dead_letters": 0}]
    }
    plan = call("plan", "customers").out
    assert "~ 4 update" in plan
    assert "resends 4 because they were reset" in plan


def test_runs_and_status(delivered: Shop, call: Call) -> None:
    assert call("run", "customers").code == 0
    runs = call("runs", "--json").json["runs"]
    assert [run["sync"] for run in runs] == ["customers", "leads", "customers"]
    assert [run["sync"] for run in call("runs", "le*", "--json").json["runs"]] == ["leads"]
    assert len(call("runs", "--limit", "2", "--json").json["runs"]) == 2
    assert "4 changed · 4 delivered" in call("runs").out
    (health,) = call("status", "leads", "--json").json["syncs"]
    assert health["records"]["acknowledged"] == 4
    assert health["last_run"]["status"] == "succeeded"
    assert "leads" in call("status").out


def test_schema_is_for_editors(call: Call, tmp_path: Path) -> None:
    assert set(call("schema").json) == {"backhaul", "sync"}
    assert call("schema", "--out", "schemas").code == 0
    assert "primary_key" in (tmp_path / "schemas" / "sync.schema.json").read_text()
