"""A record that is larger than the destination takes is a dead letter of its own, unsent; the others of its batch are delivered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from backhaul.project import load
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving


@pytest.mark.parametrize("rows", [5, 40], ids=["one by one", "as a job"])
def test_a_record_that_is_too_large_keeps_nobody_back(tmp_path: Path, rows: int) -> None:
    with opened(tmp_path / "w.duckdb") as db:
        large = "repeat('x', CASE WHEN n = 3 THEN 100_000 ELSE 10 END)"
        db.execute(f"CREATE TABLE t AS SELECT 'k' || n AS id, {large} AS note FROM range({rows}) s(n)")
    sandbox = KlaviyoSandbox()
    with serving(sandbox.app()) as url:
        there: dict[str, Any] = {
            "type": "klaviyo", "base_url": url, "api_key": "local-sandbox", "poll_interval": "0.02s",
        }  # fmt: skip
        (tmp_path / "backhaul.yml").write_text(json.dumps({
            "project": "p", "warehouses": {"main": {"type": "duckdb", "path": "w.duckdb"}}, "destinations": {"there": there},
        }))  # fmt: skip
        (tmp_path / "syncs").mkdir()
        (tmp_path / "syncs" / "s.yml").write_text(json.dumps({
            "name": "s", "model": {"table": "t", "primary_key": "id"}, "destination": "there", "object": "profiles",
            "identify": {"external_id": "id"}, "fields": {"properties.note": "note"},
        }))  # fmt: skip
        run = load(tmp_path).run("s")
        assert (run.status, run.delivered, run.rejected) == ("partial", rows - 1, 1)
        (letter,) = run.dead_letters()
        assert letter["key"] == "k3"
        assert letter["error"]["code"] == "too_large"
        assert "and klaviyo takes 100,000" in letter["error"]["message"]
        assert letter["payload"] == {"external_id": "k3", "properties": {"note": "x" * 100_000}}
        assert len(sandbox.profiles) == rows - 1
        assert load(tmp_path).run("s").requests == 0
