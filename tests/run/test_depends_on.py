"""`depends_on`: order within one command, and what is not run where a sync that it depends on did not deliver."""

from __future__ import annotations

import json
import os
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from sites import Site

from backhaul.errors import StateError
from backhaul.state.sqlite_connection import storing


def _add(site: Site, name: str, **more: Any) -> None:
    """One more sync like `users`."""
    site.write()
    first = json.loads((site.root / "syncs" / "users.yml").read_text())
    (site.root / "syncs" / f"{name}.yml").write_text(json.dumps(first | {"name": name, **more}))


def _run(site: Site, *words: str) -> tuple[int, dict[str, tuple[str, str | None]]]:
    called = site.call("run", "--json", *words)
    out, err = called.stdout, called.stderr
    assert "Traceback" not in err
    return called.exit_code, {run["sync"]: (run["status"], run["error"]) for run in json.loads(out)["runs"]}


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


def test_several_syncs_end_with_a_total(site: Site) -> None:
    site.fill(3)
    _add(site, "links", depends_on=["users"])
    out = site.call("run").stdout
    assert out.splitlines()[-1] == "total  2 syncs: 2 succeeded · 6 delivered"


@pytest.fixture
def few_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("few_files")
def test_a_process_without_files_to_open_says_so(site: Site) -> None:
    """Not that the folder is missing."""
    site.fill(3).run()
    with ExitStack() as files:
        with suppress(OSError):
            while True:
                files.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(StateError, match="more files open; raise `ulimit -n`"), storing(site.state):
            sqlite3.connect(site.state)
