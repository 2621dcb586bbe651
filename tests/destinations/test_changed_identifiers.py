"""I21: the identifier of a known row changes. Where the vendor can change it, the record keeps everything else; where it cannot,
a mirror replaces the record, and an upsert says that the old one stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from places import project

from backhaul.sandbox.braze import BrazeSandbox
from backhaul.sandbox.iterable import IterableSandbox
from backhaul.sandbox.kit import Sandbox
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

TWO = "SELECT * FROM (VALUES (1, 'ada@example.com'), (2, 'bob@example.com')) AS t(id, who)"


@contextmanager
def site(folder: Path, sandbox: Sandbox, settings: dict[str, Any], sync: dict[str, Any]) -> Iterator[Any]:
    with serving(sandbox.app()) as url:
        destination = {
            "type": type(sandbox).__name__.removesuffix("Sandbox").lower(),
            "base_url": url,
            "read_lag": "1ms",
        }
        yield project(
            folder, {**destination, **settings}, {"freshness": {"sample": 0}, "mode": "upsert", **sync}, TWO
        )


def rename(folder: Path, to: str = "ada.new@example.com") -> None:
    with opened(folder / "w.duckdb") as warehouse:
        warehouse.execute("UPDATE t SET who = ? WHERE id = 1", [to])


def iterable() -> tuple[Any, ...]:
    sandbox = IterableSandbox(bulk=1000, deletes=1000)
    sync = {"object": "users", "identify": {"email": "who"}, "fields": {"plan": "'pro'"}}

    def held() -> dict[str, str]:
        return {user.email: user.data.get("note", "") for user in sandbox.project.users}

    def note() -> None:
        for user in sandbox.project.users:
            user.data["note"] = f"of {user.email}"

    return sandbox, {"api_key": "sandbox"}, sync, held, note


def braze() -> tuple[Any, ...]:
    sandbox = BrazeSandbox()
    sync = {"object": "users", "identify": {"external_id": "who"}, "fields": {"plan_tier": "'pro'"}}

    def held() -> dict[str, str]:
        return {user.external_id: user.custom.get("note", "") for user in sandbox.store.users.values()}

    def note() -> None:
        for user in sandbox.store.users.values():
            user.custom["note"] = f"of {user.external_id}"

    return sandbox, {"api_key": "sandbox"}, sync, held, note


def klaviyo() -> tuple[Any, ...]:
    sandbox = KlaviyoSandbox()
    sync = {"object": "profiles", "identify": {"email": "who"}, "fields": {"title": "'pro'"}}

    def held() -> dict[str, str]:
        return {one["email"]: one["properties"].get("note", "") for one in sandbox.profiles.values()}

    def note() -> None:
        for one in sandbox.profiles.values():
            one["properties"]["note"] = f"of {one['email']}"

    return sandbox, {"api_key": "sandbox"}, sync, held, note


def marketo() -> tuple[Any, ...]:
    sandbox = MarketoSandbox()
    sync = {"object": "leads", "identify": {"email": "who"}, "fields": {"firstName": "'pro'"}}

    def held() -> dict[str, str]:
        return {one["email"]: one.get("lastName") or "" for one in sandbox.records()["leads"].values()}

    def note() -> None:
        for one in sandbox.instance.leads.records.values():
            one["lastName"] = f"of {one['email']}"

    return sandbox, {"client_id": "sandbox", "client_secret": "sandbox"}, sync, held, note


@pytest.mark.parametrize("vendor", [iterable, braze, klaviyo, marketo])
def test_i21_a_changed_identifier_is_changed_at_the_vendor(
    vendor: Callable[[], tuple[Any, ...]], tmp_path: Path
) -> None:
    sandbox, settings, sync, held, note = vendor()
    with site(tmp_path, sandbox, settings, sync) as made:
        assert made.run("s").delivered == 2
        note()
        rename(tmp_path)
        plan = made.plan("s").report
        run = made.run("s")
        assert (plan.changes["update"], run.delivered, run.error) == (1, 1, None)
        assert held() == {
            "ada.new@example.com": "of ada@example.com",
            "bob@example.com": "of bob@example.com",
        }
        assert sum(made.run("s").changes.values()) == 0


@pytest.mark.parametrize("vendor", [iterable, braze, klaviyo])
def test_a_record_that_is_not_there_any_more_is_made_under_its_new_identifier(
    vendor: Callable[[], tuple[Any, ...]], tmp_path: Path
) -> None:
    sandbox, settings, sync, held, _ = vendor()
    with site(tmp_path, sandbox, settings, sync) as made:
        made.run("s")
        if isinstance(sandbox, IterableSandbox):
            sandbox.project.remove(sandbox.project.find("ada@example.com", None))
        elif isinstance(sandbox, BrazeSandbox):
            sandbox.store.remove(sandbox.store.external["ada@example.com"])
        else:
            sandbox.drop(sandbox.named["email", "ada@example.com"])
        rename(tmp_path)
        run = made.run("s")
        assert (run.delivered, run.recreated, run.error) == (1, 1, None)
        assert held().keys() == {"ada.new@example.com", "bob@example.com"}


@pytest.mark.parametrize("vendor", [iterable, braze, klaviyo])
def test_an_identifier_that_another_record_has_is_not_taken_from_it(
    vendor: Callable[[], tuple[Any, ...]], tmp_path: Path
) -> None:
    sandbox, settings, sync, held, _ = vendor()
    with site(tmp_path, sandbox, settings, sync) as made:
        made.run("s")
        with opened(tmp_path / "w.duckdb") as warehouse:
            warehouse.execute("INSERT INTO t VALUES (3, 'stranger@example.com')")
        made.run("s")
        with opened(tmp_path / "w.duckdb") as warehouse:
            warehouse.execute("DELETE FROM t WHERE id = 3")
        rename(tmp_path, "stranger@example.com")
        run = made.run("s")
        assert (run.delivered, run.rejected + run.deferred) == (0, 1)
        assert held().keys() == {"ada@example.com", "bob@example.com", "stranger@example.com"}


MEMBERS = {"object": "lists/101", "identify": {"email": "who"}, "fields": {}}


def members(sandbox: IterableSandbox) -> set[str]:
    return sandbox.project.lists[101][2]


def test_a_mirror_replaces_what_cannot_be_changed(tmp_path: Path) -> None:
    sandbox = IterableSandbox(bulk=1000, lists=1000)
    with site(tmp_path, sandbox, {"api_key": "sandbox"}, MEMBERS | {"mode": "mirror"}) as made:
        made.run("s")
        rename(tmp_path)
        plan = made.plan("s").report
        assert (plan.changes, plan.reasons) == ({"create": 1, "update": 0, "delete": 1}, {"replaced": 1})
        run = made.run("s")
        assert (run.delivered, run.error) == (2, None)
        assert members(sandbox) == {"ada.new@example.com", "bob@example.com"}
        assert sum(made.run("s").changes.values()) == 0


def test_an_upsert_says_that_the_old_record_stays(tmp_path: Path) -> None:
    sandbox = IterableSandbox(bulk=1000, lists=1000)
    with site(tmp_path, sandbox, {"api_key": "sandbox"}, MEMBERS) as made:
        made.run("s")
        rename(tmp_path)
        plan = made.plan("s").report
        assert (plan.changes, plan.reasons) == ({"create": 1, "update": 0, "delete": 0}, {"left_behind": 1})
        run = made.run("s")
        assert (run.delivered, run.reasons) == (1, {"left_behind": 1})
        assert members(sandbox) == {"ada@example.com", "ada.new@example.com", "bob@example.com"}


def test_nothing_takes_the_place_of_a_record_that_could_not_be_deleted(tmp_path: Path) -> None:
    """The dead letter of the delete stays, and with it the trace of the record under its previous identifier."""
    sandbox = IterableSandbox(bulk=1000, lists=1000)
    with site(tmp_path, sandbox, {"api_key": "sandbox"}, MEMBERS | {"mode": "mirror"}) as made:
        made.run("s")
        rename(tmp_path)
        sandbox.project.forgotten.add("ada@example.com")
        run = made.run("s")
        assert (run.delivered, run.rejected, run.deferred) == (0, 1, 1)
        assert members(sandbox) == {"ada@example.com", "bob@example.com"}
        (letter,) = made.dead_letters("s")
        assert (letter["op"], letter["key"]) == ("delete", 1)
        made.run("s")
        assert [one["op"] for one in made.dead_letters("s")] == ["delete"]
        assert members(sandbox) == {"ada@example.com", "bob@example.com"}
