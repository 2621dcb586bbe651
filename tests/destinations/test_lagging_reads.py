"""I46: vendors that take a write in before they show it. Nothing is sent again, refused or made again because of that."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from places import project

from backhaul.sandbox.braze import BrazeSandbox
from backhaul.sandbox.customerio import CustomerIoSandbox
from backhaul.sandbox.iterable import IterableSandbox
from backhaul.sandbox.kit import Faults, Sandbox
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.state.clock import Machine, this_machine
from backhaul.surroundings import Surroundings
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

TEN = "SELECT i AS id, 'u' || i || '@example.com' AS who, 'pro' AS plan FROM range(10) AS t(i)"
LAG = Faults(lag=0.3)


class Vendor(NamedTuple):
    """A simulation, how to sign in, a sync of its people, and which plan each of them has there."""

    sandbox: Sandbox
    settings: dict[str, Any]
    sync: dict[str, Any]
    plans: Callable[[], dict[str, Any]]


def braze() -> Vendor:
    sandbox = BrazeSandbox()
    sync = {
        "object": "users",
        "identify": {"external_id": "who"},
        "fields": {"plan_tier": "plan", "first_name": "who"},
    }
    held = sandbox.store.external
    return Vendor(sandbox, {"api_key": "sandbox"}, sync, lambda: {
        str(one): user.custom.get("plan_tier") for one, user in (sandbox.store and held).items()
    })  # fmt: skip


def iterable() -> Vendor:
    sandbox = IterableSandbox(bulk=1000, deletes=1000)
    sync = {"object": "users", "identify": {"email": "who"}, "fields": {"plan": "plan"}}
    return Vendor(sandbox, {"api_key": "sandbox"}, sync, lambda: {
        str(user.email): user.data.get("plan") for user in sandbox.project.users
    })  # fmt: skip


def klaviyo() -> Vendor:
    sandbox = KlaviyoSandbox()
    sandbox.job_seconds = 0.0
    sync = {"object": "profiles", "identify": {"email": "who"}, "fields": {"title": "plan"}}
    settings = {"api_key": "sandbox", "bulk_above": 5, "poll_interval": "50ms"}
    return Vendor(sandbox, settings, sync, lambda: {
        one["email"]: one["title"] for one in sandbox.profiles.values()
    })  # fmt: skip


def customerio() -> Vendor:
    sandbox = CustomerIoSandbox(track=1000, app=1000)
    sync = {"object": "people", "identify": {"email": "who"}, "fields": {"plan": "plan"}}
    settings = {
        "site_id": "sandbox",
        "api_key": "sandbox",
        "app_key": "sandbox",
        "endpoint_limits": {"app": ["1000/1s"]},
    }
    return Vendor(sandbox, settings, sync, lambda: {
        one.attributes["email"]: one.attributes["plan"] for one in sandbox.people.values()
    })  # fmt: skip


def marketo() -> Vendor:
    sandbox = MarketoSandbox()
    sync = {"object": "leads", "identify": {"email": "who"}, "fields": {"firstName": "plan"}}
    return Vendor(sandbox, {"client_id": "sandbox", "client_secret": "sandbox"}, sync, lambda: {
        one["email"]: one["firstName"] for one in sandbox.instance.leads.records.values()
    })  # fmt: skip


ALL = [braze, iterable, klaviyo, customerio, marketo]


@contextmanager
def site(folder: Path, vendor: Vendor, **settings: Any) -> Iterator[Callable[..., Any]]:
    """Makes projects with a destination that shows writes late, each in a folder of its own."""
    with serving(vendor.sandbox.app()) as url:
        kind = type(vendor.sandbox).__name__.removesuffix("Sandbox").lower()
        destination = {"type": kind, "base_url": url, "read_lag": "900ms"} | vendor.settings | settings

        def make(name: str = "p", **sync: Any) -> Any:
            (folder / name).mkdir()
            return project(folder / name, destination, vendor.sync | {"mode": "upsert"} | sync, TEN)

        yield make


def change(folder: Path, plan: str) -> None:
    with opened(folder / "p" / "w.duckdb") as warehouse:
        warehouse.execute("UPDATE t SET plan = ?", [plan])


@pytest.mark.parametrize("vendor", ALL)
def test_i46_a_record_that_is_shown_late_is_neither_different_nor_gone(
    vendor: Callable[[], Vendor], tmp_path: Path
) -> None:
    """What was written is read back, and updated by the next run, before the vendor shows it."""
    found = vendor()
    found.sandbox.faults = LAG
    with site(tmp_path, found) as make:
        made = make(freshness={"sample": 10})
        first = made.run("s")
        assert (first.status, first.delivered) == ("succeeded", 10)
        assert (first.report.verified.checked, first.report.verified.mismatches) == (10, ())
        change(tmp_path, "free")
        second = made.run("s")
        assert (second.status, second.delivered, second.recreated) == ("succeeded", 10, 0)
        assert (second.report.verified.checked, second.report.verified.mismatches) == (10, ())
        assert set(found.plans().values()) == {"free"}
        assert made.verify("s", count=None).mismatches == ()
        assert sum(made.run("s").changes.values()) == 0


def test_i46_a_read_that_began_too_early_is_no_evidence_however_long_it_takes(tmp_path: Path) -> None:
    """Ten records are read one by one, and the first answers are from before the lag is over."""
    found = iterable()
    found.sandbox.faults = Faults(lag=0.5, latency=0.1)
    with site(tmp_path, found, read_lag="600ms") as make:
        run = make(freshness={"sample": 10}).run("s")
        assert (run.status, run.report.verified.checked, run.report.verified.mismatches) == (
            "succeeded",
            10,
            (),
        )


@pytest.mark.parametrize("vendor", ALL)
def test_i46_the_simulation_lags(vendor: Callable[[], Vendor], tmp_path: Path) -> None:
    """A destination that is said to show writes at once is found to differ."""
    found = vendor()
    found.sandbox.faults = Faults(lag=60.0)
    with site(tmp_path, found, read_lag="1ms") as make:
        run = make(freshness={"sample": 10}).run("s")
        assert (run.status, run.delivered, len(run.report.verified.mismatches)) == ("partial", 10, 10)


@pytest.mark.parametrize("vendor", [braze, marketo])
def test_i46_an_update_right_after_another_sync_made_the_records(
    vendor: Callable[[], Vendor], tmp_path: Path
) -> None:
    found = vendor()
    found.sandbox.faults = LAG
    with site(tmp_path, found) as make:
        for name, mode in (("makes", "upsert"), ("updates", "update")):
            run = make(name, mode=mode, freshness={"sample": 0}).run("s")
            assert (run.status, run.delivered, run.rejected) == ("succeeded", 10, 0)


def test_a_record_that_is_really_gone_is_made_again(tmp_path: Path) -> None:
    found = braze()
    with site(tmp_path, found) as make:
        made = make(freshness={"sample": 0})
        made.run("s")
        lose(found.sandbox)
        change(tmp_path, "free")
        run = made.run("s")
        assert (run.delivered, run.recreated) == (10, 1)
        assert len(found.plans()) == 10


@pytest.mark.parametrize("days", [0, 400])
def test_i46_a_lag_longer_than_a_run_waits_ends_after_the_write_and_not_after_the_run(
    days: int, tmp_path: Path
) -> None:
    """I47: it is measured by the state's clock, whatever the wall clock says."""
    found = braze()
    with site(tmp_path, found, read_lag="10m") as make:
        made = make(freshness={"sample": 0})
        made.run("s")
        lose(found.sandbox)
        change(tmp_path, "free")
        early = later(made, elapsed=100.0, wall=days * 86_400.0)
        assert (early.status, early.delivered, early.deferred, early.rejected) == ("deferred", 9, 1, 0)
        late = later(made, elapsed=700.0, wall=days * 86_400.0)
        assert (late.status, late.delivered, late.recreated) == ("succeeded", 1, 1)
        assert len(found.plans()) == 10


def lose(sandbox: Any) -> None:
    sandbox.store.remove(sandbox.store.external["u3@example.com"])


def later(made: Any, *, elapsed: float, wall: float) -> Any:
    """A run so many seconds later, on a machine whose wall clock was set by so many more."""
    here = this_machine()
    around = Surroundings(wall=lambda: time.time() + elapsed + wall)
    made.workspace.surroundings = around
    made.workspace.state.machine = Machine(here.boot, lambda: here.elapsed() + elapsed, around.wall)
    return made.run("s")


def test_every_lag_that_is_declared_has_a_source() -> None:
    kinds = (entry.load() for entry in entry_points(group="backhaul.destinations"))
    lagging = {
        kind.spec.name: kind.spec.lag_source for kind in kinds if kind.spec.read_lag or kind.spec.index_lag
    }
    assert lagging.keys() >= {"braze", "iterable", "klaviyo", "customerio", "marketo"}
    assert all(lagging.values())
