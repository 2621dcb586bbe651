"""What people are told while a run goes on, after it was killed, and when there is nothing to send."""

from __future__ import annotations

import getpass
import json
import sqlite3
from collections.abc import Callable

from sites import Site
from test_unknown import inserting
from tests.waiting import HANGS, until

from backhaul.project import load


def test_a_run_that_goes_on_is_in_flight_and_a_killed_one_is_interrupted(site: Site) -> None:
    inserting(site)
    site.api |= {"timeout": "10m", "concurrency": 4, "rate_limits": ["2/30m"]}
    site.write()
    site.fill(50)
    site.sink.faults.silence = 2 * HANGS
    run = site.command("run", "users")
    until(lambda: len(site.sink.seen) >= 2, run)
    with site.project as project:
        (health,) = project.status()
    assert (health["running"], health["last_run"]["status"]) == (True, "running")
    assert {name: count for name, count in health["records"].items() if count} == {
        "in_flight": 10,
        "pending": 40,
    }
    run.kill()
    run.wait()
    site.sink.faults.silence = 0.0
    told = site.call("status").stdout
    assert "interrupted" in told
    assert "the next run settles what it left" in told
    assert "10 unknown" in told
    assert "backhaul settle users" in told
    assert "running" not in told


def test_a_plan_with_nothing_to_send_counts_what_is_not_acknowledged(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.fill(6)
    faulty(refuse_key="4")
    site.run()
    told = site.call("plan", "users").stdout
    assert "nothing to send; not acknowledged: 1 rejected" in told
    with site.project as project:
        assert project.plan("users").report.json()["records"]["rejected"] == 1


def test_why_says_that_a_record_was_forgotten(site: Site) -> None:
    site.fill(3).run()
    with site.project as project:
        project.forget("users", "1")
        found = project.why("users", "1", offline=True)
        (proof,) = [one for one in project.forgotten("users") if one["at"] == found["forgotten"]["at"]][:1]
    assert found["summary"].startswith(
        f"Forgotten since {proof['at']} by {getpass.getuser()} (the destination: deleted); it is not sent"
    )
    site.sql("delete from t where id = 1")
    with site.project as project:
        assert project.why("users", "1", offline=True)["forgotten"]


def test_a_refused_replay_leaves_every_letter_in_the_list_and_later_runs_go_on(
    site: Site, faulty: Callable[..., None]
) -> None:
    site.batch_size = 1
    site.write()
    site.fill(3).run()
    site.sql("insert into t select i, 'bad', 1 from range(100, 140) x(i)")
    faulty(refuse=1.0)
    site.run()
    letters = [letter["id"] for letter in site.letters()]
    assert letters
    faulty(reject_all="NO_SUCH_PAIR")
    with site.project as project:
        project.mark_dead_letters(letters, "replay")
    site.run()
    assert {letter["id"] for letter in site.letters()} >= set(letters)
    assert not any(letter["replay"] for letter in site.letters())
    faulty()
    site.sql("update t set v = 77 where id = 1")
    report = site.run().report
    assert report.status in ("succeeded", "partial"), report.error
    assert site.sink.records["1"]["score"] == 77


def test_what_a_killed_run_spilled_is_removed_by_the_next_run_at_once(site: Site) -> None:
    site.fill(3).run()
    left = site.root / ".backhaul" / "spill-left"
    left.mkdir()
    (left / "rows.parquet").write_bytes(b"values")
    site.run()
    assert not left.exists()


def rename(site: Site, old: str, new: str) -> None:
    with sqlite3.connect(site.root / "d.sqlite") as db:
        db.execute(f"alter table user rename column {old} to {new}")


def test_a_column_that_was_put_back_needs_no_check(site: Site) -> None:
    site.fill(3)
    with sqlite3.connect(site.root / "d.sqlite") as db:
        db.execute("create table user (id integer primary key, name text, score double)")
    project = json.loads((site.root / "backhaul.yml").read_text())
    project["destinations"]["api"] = {"type": "sqlite", "path": "d.sqlite"}
    (site.root / "backhaul.yml").write_text(json.dumps(project))

    def run() -> str:
        with load(site.root) as opened:
            return str(opened.run("users").status)

    def plan() -> None:
        with load(site.root) as opened:
            opened.plan("users")

    assert run() == "succeeded"
    rename(site, "name", "label")
    site.sql("update t set name = 'new' where id = 1")
    assert run() == "failed"
    rename(site, "label", "name")
    plan()
    assert run() == "succeeded"
