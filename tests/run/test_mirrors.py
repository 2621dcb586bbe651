"""Several mirrors of one object: a record that moves from one model to another stays at the destination (I41)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import pytest
from sites import Site

STAYS = "1 record left the model and stays at the destination, because sync fr holds it"


@pytest.fixture(params=[None, "postgres_db"], ids=["folder", "postgres"])
def mirrors(site: Site, request: pytest.FixtureRequest) -> Site:
    """Two mirrors, `de` and `fr`, of rows 0 to 3, which all are in `de`."""
    if request.param:
        site.settings = {"state": request.getfixturevalue(request.param)}
    return _project(site)


@pytest.fixture
def local(site: Site) -> Site:
    return _project(site)


def _project(site: Site) -> Site:
    site.write()
    _write(site, "de")
    _write(site, "fr")
    (site.root / "syncs" / "users.yml").unlink()
    return site.sql(
        "create table t as select i as id, 'n' || i as name, i * 1.5::double as v, 'de' as c from range(4) x(i)"
    )


def _write(site: Site, name: str, **changes: Any) -> None:
    sync = {
        "name": name,
        "model": {
            "warehouse": "main",
            "sql": f"select * from t where c = '{name}'",
            "primary_key": "id",
        },
        "destination": "api",
        "object": "user",
        "mode": "mirror",
        "identify": {"id": "id"},
        "fields": {"name": "name", "score": "v"},
        "guards": {"max_deletes": "off", "max_drop": "off", "min_rows": "off"},
    }
    (site.root / "syncs" / f"{name}.yml").write_text(json.dumps(sync | changes))


def _run(site: Site, name: str) -> Any:
    with site.project as project:
        report = project.run(name).report
    assert report.status == "succeeded", report.error
    return report


def _ledger(site: Site, name: str) -> list[int]:
    with site.project as project:
        return sorted(row["key"] for row in project.records(name))


def test_i41_a_record_that_moves_to_another_mirror_stays(mirrors: Site) -> None:
    """It changes ledgers; the one that holds it deletes it when it leaves that model too."""
    _run(mirrors, "de")
    mirrors.sql("update t set c = 'fr' where id = 1", "delete from t where id = 2")
    _run(mirrors, "fr")
    with mirrors.project as project:
        plan = project.plan("de").report
    assert (plan.changes["delete"], STAYS in plan.notices) == (1, True)
    report = _run(mirrors, "de")
    assert (report.changes["delete"], STAYS in report.notices) == (1, True)
    assert set(mirrors.sink.records) == {"0", "1", "3"}
    assert (_ledger(mirrors, "de"), _ledger(mirrors, "fr")) == ([0, 3], [1])
    report = _run(mirrors, "de")
    assert (sum(report.changes.values()), report.notices) == (0, [])
    mirrors.sql("delete from t where id = 1")
    assert _run(mirrors, "fr").changes["delete"] == 1
    assert set(mirrors.sink.records) == {"0", "3"}


def test_i41_killed_while_the_ledger_lets_go_of_it(local: Site) -> None:
    _run(local, "de")
    local.sql("update t set c = 'fr' where id = 1")
    _run(local, "fr")
    assert local.command("run", "de", env=os.environ | {"BACKHAUL_FAILPOINT": "folding"}).wait() == -9
    assert _ledger(local, "de") == [0, 1, 2, 3]
    _run(local, "de")
    assert (set(local.sink.records), _ledger(local, "de")) == ({"0", "1", "2", "3"}, [0, 2, 3])


@pytest.mark.parametrize("place", ["sent", "answered", "acknowledged"])
def test_i41_a_record_that_another_sync_was_sending_when_it_was_killed_stays(local: Site, place: str) -> None:
    """The other ledger does not have it yet, but the plan that was being sent does."""
    _run(local, "de")
    local.sql("update t set c = 'fr' where id = 1")
    assert local.command("run", "fr", env=os.environ | {"BACKHAUL_FAILPOINT": place}).wait() == -9
    assert _run(local, "de").changes["delete"] == 0
    _run(local, "fr")
    assert (set(local.sink.records), _ledger(local, "fr")) == ({"0", "1", "2", "3"}, [1])


def test_i41_an_unknown_outcome_of_another_sync_holds_the_record_and_a_refusal_does_not(
    local: Site, faulty: Callable[..., None]
) -> None:
    _run(local, "de")
    _write(local, "fr", mode="insert")
    local.sql("update t set c = 'fr' where id = 1")
    faulty(hollow=1.0)
    with local.project as project:
        assert project.run("fr").report.unknown == 1
    local.sql("update t set c = 'fr' where id = 2")
    faulty(refuse_key="2")
    with local.project as project:
        assert project.run("fr").report.rejected == 1
    faulty()
    report = _run(local, "de")
    assert (report.changes["delete"], STAYS in report.notices) == (1, True)
    assert set(local.sink.records) == {"0", "1", "3"}


def test_i41_a_sync_that_only_updates_holds_no_record(local: Site) -> None:
    everything = {"warehouse": "main", "table": "t", "primary_key": "id"}
    _write(local, "fr", model=everything)
    _run(local, "fr")
    _run(local, "de")
    _write(local, "fr", mode="update", model=everything)
    local.sql("delete from t where id = 1")
    assert _run(local, "de").changes["delete"] == 1


def test_i41_a_previous_identifier_that_another_sync_holds_stays(local: Site) -> None:
    """The record of a key that takes another identifier is replaced; the one under the previous identifier is not deleted."""
    local.sql("alter table t add column code varchar", "update t set code = 'c' || id")
    for name in ("de", "fr"):
        _write(local, name, identify={"id": "code"})
    _run(local, "de")
    local.sql(
        "update t set code = 'c9' where id = 1",
        "insert into t select 7, name, v, 'fr', 'c1' from t where id = 1",
    )
    _run(local, "fr")
    assert _run(local, "de").changes == {"create": 1, "update": 0, "delete": 0}
    assert set(local.sink.records) == {"c0", "c1", "c2", "c3", "c9"}
