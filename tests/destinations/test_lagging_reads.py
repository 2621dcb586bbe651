"""I46: vendors that take a write in before they show it. Nothing is sent again, refused or made again because of that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
from places import project

from backhaul.sandbox.braze import BrazeSandbox
from backhaul.testing.serving import serving

TEN = "SELECT i AS id, 'u' || i AS who, 'pro' AS plan FROM range(10) AS t(i)"
SYNC: dict[str, Any] = {
    "object": "users",
    "identify": {"external_id": "who"},
    "fields": {"plan_tier": "plan", "first_name": "who"},
}


def change(folder: Path, plan: str) -> None:
    with duckdb.connect(str(folder / "w.duckdb")) as warehouse:
        warehouse.execute("UPDATE t SET plan = ?", [plan])


def test_i46_a_record_that_is_shown_late_is_neither_different_nor_gone(tmp_path: Path) -> None:
    """What was written is read back, and updated by the next run, before the vendor shows it."""
    sandbox = BrazeSandbox()
    sandbox.lag = 1.0
    with serving(sandbox.app()) as url:
        braze = {"type": "braze", "base_url": url, "api_key": "sandbox", "read_lag": "5s"}
        made = project(tmp_path, braze, SYNC | {"mode": "upsert", "freshness": {"sample": 10}}, TEN)
        first = made.run("s")
        assert (first.status, first.delivered, len(first.report.verified.mismatches)) == ("succeeded", 10, 0)
        change(tmp_path, "free")
        second = made.run("s")
        assert (second.status, second.delivered, second.recreated) == ("succeeded", 10, 0)
        assert {user.custom["plan_tier"] for user in sandbox.store.users.values()} == {"free"}


def test_i46_an_update_right_after_another_sync_made_the_records(tmp_path: Path) -> None:
    sandbox = BrazeSandbox()
    sandbox.lag = 1.0
    with serving(sandbox.app()) as url:
        braze = {"type": "braze", "base_url": url, "api_key": "sandbox", "read_lag": "5s"}
        for name, mode in (("makes", "upsert"), ("updates", "update")):
            (tmp_path / name).mkdir()
            sync = SYNC | {"mode": mode, "freshness": {"sample": 0}}
            run = project(tmp_path / name, braze, sync, TEN).run("s")
            assert (run.status, run.delivered, run.rejected) == ("succeeded", 10, 0)


def test_a_record_that_is_really_gone_is_made_again(tmp_path: Path) -> None:
    sandbox = BrazeSandbox()
    with serving(sandbox.app()) as url:
        braze = {"type": "braze", "base_url": url, "api_key": "sandbox", "read_lag": "1s"}
        made = project(tmp_path, braze, SYNC | {"mode": "upsert", "freshness": {"sample": 0}}, TEN)
        made.run("s")
        sandbox.store.remove(sandbox.store.external["u3"])
        change(tmp_path, "free")
        run = made.run("s")
        assert (run.delivered, run.recreated) == (10, 1)
        assert len(sandbox.store.external) == 10
