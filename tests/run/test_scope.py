"""A ledger belongs to a project, a sync, an account and an object (I41)."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from sites import Servers, Site

from backhaul.errors import UsageError
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.testing.sink import Sink


def elsewhere(site: Site) -> Sink:
    """Another sink, which the project leads to from now on; it holds strangers."""
    sink = Sink()
    sink.records.update({"3": {"id": 3, "name": "a stranger"}, "99": {"id": 99, "name": "another"}})
    site.api = {"base_url": f"http://127.0.0.1:{site.servers.start(sink.app())}"}
    site.write()
    return sink


def bind(site: Site, *, same: bool) -> None:
    with site.project as project:
        project.bind("users", same=same)


def test_i41_another_object_is_another_ledger(site: Site) -> None:
    """What is acknowledged as one object was never delivered as another, and nothing there is deleted."""
    site.fill(5).run()
    config = json.loads((site.root / "backhaul.yml").read_text())
    objects = config["destinations"]["api"]["objects"]
    site.api, site.sync = {"objects": {**objects, "lead": objects["user"]}}, {"object": "lead"}
    site.write()
    site.sql("delete from t where id = 3")
    report = site.run().report
    assert (report.status, report.first, report.changes) == (
        "succeeded",
        True,
        {"create": 4, "update": 0, "delete": 0},
    )
    assert [kept.split(" at ")[0] for kept in report.kept] == ["user"]
    assert "3" in site.sink.records
    assert site.run().report.changes == {"create": 0, "update": 0, "delete": 0}
    site.sync = {}
    site.write()
    assert site.run().report.changes == {"create": 0, "update": 0, "delete": 1}, (
        "the ledger of before is as it was"
    )


def test_i41_another_address_is_refused_until_a_person_says_whose_it_is(site: Site) -> None:
    site.fill(5).run()
    other = elsewhere(site)
    site.sql("delete from t where id = 3")
    for words in (("run",), ("plan",)):
        called = site.call(*words)
        said = called.stderr
        assert called.exit_code == 2
        assert "backhaul bind users --same-account" in said
        assert "--new-ledger" in said
    assert not other.seen
    bind(site, same=False)
    report = site.run().report
    assert (report.first, report.changes) == (True, {"create": 4, "update": 0, "delete": 0})
    assert {"3", "99"} <= other.records.keys(), "no stranger is deleted"
    site.api = {}
    site.write()
    assert site.run().report.changes["delete"] == 1, "the first place is known, and its ledger is its own"


def test_i41_the_same_account_at_another_address_goes_on(site: Site) -> None:
    site.fill(5).run()
    other = elsewhere(site)
    other.records.update(site.sink.records)
    bind(site, same=True)
    report = site.run().report
    assert (report.first, sum(report.changes.values())) == (False, 0)
    assert not other.seen


def test_i41_a_plan_for_one_account_is_not_delivered_to_another(site: Site) -> None:
    site.fill(5)
    with site.project as project:
        plan = project.plan("users").report.id
    other = elsewhere(site)
    bind(site, same=False)
    report = site.run(plan=plan).report
    assert report.status == "failed"
    assert "delivers to" in str(report.error)
    assert not other.seen


@pytest.fixture
def portal(site: Site) -> HubSpotSandbox:
    """The project leads to a HubSpot portal."""
    sandbox = HubSpotSandbox(burst=10_000)
    url = f"http://127.0.0.1:{site.servers.start(sandbox.app())}"
    site.settings = {
        "destinations": {"api": {"type": "hubspot", "base_url": url, "access_token": "${TOKEN}"}}
    }
    (site.root / ".env").write_text("TOKEN=a-token\n")
    site.sync = {
        "object": "contacts",
        "identify": {"email": "name || '@example.com'"},
        "fields": {"firstname": "name"},
        "mode": "upsert",
    }
    site.write()
    return sandbox


def test_i41_the_portal_that_hubspot_states_is_the_ledger(site: Site, portal: HubSpotSandbox) -> None:
    """A rotated token is the same account; another portal is another ledger, and the first one is kept."""
    site.fill(3)
    report = site.run().report
    assert (report.status, report.first, report.account) == (
        "succeeded",
        True,
        f"HubSpot portal {portal.portal}",
    )
    (site.root / ".env").write_text("TOKEN=rotated\n")
    assert site.run().report.first is False
    first, portal.portal = portal.portal, 999
    report = site.run().report
    assert (report.first, report.account, report.kept) == (
        True,
        "HubSpot portal 999",
        [f"contacts at HubSpot portal {first}"],
    )
    portal.portal = first
    report = site.run().report
    assert (report.first, sum(report.changes.values())) == (False, 0)


def test_i7_a_run_without_changes_goes_on_with_the_account_of_before(
    site: Site, portal: HubSpotSandbox
) -> None:
    site.fill(3).run()
    site.servers.stop()
    report = site.run().report
    assert (report.status, sum(report.changes.values())) == ("succeeded", 0), report.error
    assert f"HubSpot portal {portal.portal}" in str(report.hint)
    site.sql("update t set name = 'new' where id = 1")
    assert site.run().report.status == "failed", "before anything is sent the account has to be stated"


def test_i41_projects_on_one_database_are_separate(
    site: Site, postgres_db: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Two projects that have a sync of one name delete nothing of each other's."""
    site.settings = {"state": postgres_db}
    site.write()
    site.fill(5).run()
    other = second(site.servers, tmp_path_factory.mktemp("other"), postgres_db)
    other.fill(2)
    other.sink.records.update({"4": {"id": 4, "name": "its own"}})
    report = other.run().report
    assert (report.first, report.changes["delete"]) == (True, 0)
    assert "4" in other.sink.records
    with other.project as project:
        assert [run["sync"] for run in project.runs()] == ["users"]
    assert sum(site.run().report.changes.values()) == 0


def second(servers: Servers, root: Path, state: str) -> Site:
    sink = Sink()
    made = Site(root, servers, sink, servers.start(sink.app()), settings={"state": state, "project": "other"})
    made.write()
    return made


def named(site: Site, name: str) -> None:
    site.sync = {"name": name}
    site.write()


def test_i41_a_sync_that_is_renamed_keeps_its_state(site: Site) -> None:
    site.fill(5).run()
    with site.project as project:
        project.forget("users", "1")
    named(site, "people")
    with site.project as project:
        project.plan("people")
        assert list(project.orphans()) == ["users"]
        with pytest.raises(UsageError, match="still called"):
            project.rename("people", "users")
        project.rename("users", "people")
        assert project.orphans() == {}
        report = project.run("people").report
        assert (report.first, sum(report.changes.values()), report.suppressed) == (False, 0, 1)
        assert {run["sync"] for run in project.runs()} == {"people"}


def test_state_without_a_sync_is_shown(site: Site) -> None:
    site.fill(2).run()
    named(site, "people")
    called = site.call("status")
    said = called.stdout
    assert "backhaul rename users NEW" in said


def test_check_names_the_other_writers_of_an_object(site: Site) -> None:
    site.fill(2)
    other = json.loads((site.root / "syncs" / "users.yml").read_text()) | {
        "name": "people",
        "fields": {"score": "v"},
    }
    (site.root / "syncs" / "people.yml").write_text(json.dumps(other))
    with site.project as project:
        checks = asyncio.run(project.check(project.sync("users")))
    said = [one.message for one in checks if one.name == "writers"]
    assert said[0] == "score of user: people writes there too, and the last run wins"
    assert "people mirrors user too" in said[1]
    assert len(said) == 2


def test_variables_come_from_another_file_where_one_is_named(site: Site) -> None:
    site.fill(2)
    (site.root / "prod.env").write_text(f"URL=http://127.0.0.1:{site.port}\n")
    site.api = {"base_url": "${URL}"}
    site.write()
    called = site.call("run", "--env-file", str(site.root / "prod.env"))
    assert called.exit_code == 0
    assert len(site.sink.records) == 2
