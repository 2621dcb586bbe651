"""`depends_on`: order within one command, and what is not run where a sync that it depends on did not deliver."""

from __future__ import annotations

import json
from typing import Any

from sites import Site


def _add(site: Site, name: str, **more: Any) -> None:
    """One more sync like `users`."""
    site.write()
    first = json.loads((site.root / "syncs" / "users.yml").read_text())
    (site.root / "syncs" / f"{name}.yml").write_text(json.dumps(first | {"name": name, **more}))


def _run(site: Site, *words: str) -> tuple[int, dict[str, tuple[str, str | None]]]:
    process = site.command("run", "--json", *words)
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    return process.returncode, {run["sync"]: (run["status"], run["error"]) for run in json.loads(out)["runs"]}


def test_a_sync_is_not_run_where_one_that_it_depends_on_failed(site: Site) -> None:
    site.fill(3)
    _add(site, "links", depends_on=["users"])
    _add(site, "more", depends_on=["links"])
    _add(site, "alone")
    site.sync = {"model": {"warehouse": "main", "table": "gone", "primary_key": "id"}}
    site.write()
    code, runs = _run(site, "more", "links", "users", "alone")
    assert list(runs) == ["users", "links", "more", "alone"]
    assert {sync: status for sync, (status, _) in runs.items()} == {
        "users": "failed", "links": "skipped", "more": "skipped", "alone": "succeeded",
    }  # fmt: skip
    assert runs["links"][1] == "not run: it depends on users, and users has failed"
    assert code == 1


def test_a_sync_that_is_named_alone_does_not_wait(site: Site) -> None:
    """Order only: what is not run by this command is not looked at."""
    site.fill(3)
    _add(site, "links", depends_on=["users"])
    assert _run(site, "links") == (0, {"links": ("succeeded", None)})
    code, runs = _run(site)
    assert (code, list(runs)) == (0, ["users", "links"])
