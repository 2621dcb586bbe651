"""What a plan says that a run costs, against the simulator's own count of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from places import project

from backhaul.demo.files import write_project
from backhaul.demo.warehouse import build, change
from backhaul.project import Project, load
from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Sandbox, simulation
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.duckdb_file import opened
from backhaul.testing.serving import serving

RECORDS = 450


def _compare(loaded: Project, name: str, sandbox: Sandbox) -> None:
    """The estimate is within a fifth of the requests of the run."""
    planned = loaded.plan(name).report
    before = len(sandbox.requests)
    report = loaded.run(name).report
    assert (report.status, report.delivered) == ("succeeded", sum(planned.changes.values()))
    counted = len(sandbox.requests) - before
    assert planned.estimate["requests"] == pytest.approx(counted, rel=0.2), dict(sandbox.counts)


@pytest.mark.parametrize(
    ("name", "rows", "percent"),
    [("braze", 300, 50), ("customerio", 300, 50), ("hubspot", 900, 50), ("intercom", 30, 50), ("iterable", 300, 50),
     ("klaviyo", 300, 50), ("marketo", 900, 50), ("salesforce", 900, 50), ("webhook", 300, 50), ("zendesk", 600, 50)],
)  # fmt: skip
def test_a_first_run_and_one_of_updates(name: str, rows: int, percent: int, tmp_path: Path) -> None:
    sandbox = simulation(name)()
    assert sandbox.sample is not None
    sandbox.add_sample_fields()
    build(tmp_path / "warehouse.duckdb", rows)
    with opened(tmp_path / "warehouse.duckdb") as warehouse:
        valid = "email = concat(contact_id, '@example.com'), job_title = 'Manager'"
        warehouse.execute(f"UPDATE marts.contacts SET {valid}")
    with serving(sandbox.app()) as url:
        write_project(tmp_path, sandbox.sample, url)
        _compare(load(tmp_path), "contacts", sandbox)
        change(tmp_path / "warehouse.duckdb", percent)
        _compare(load(tmp_path), "contacts", sandbox)


def _compare_one(tmp_path: Path, sandbox: Sandbox, destination: dict[str, Any], sync: dict[str, Any]) -> None:
    table = (
        "SELECT i::VARCHAR AS id, concat('p', i, '@example.com') AS email, concat('c', i) AS company "
        f"FROM range({RECORDS}) x(i)"
    )
    with serving(sandbox.app()) as url:
        _compare(project(tmp_path, {**destination, "base_url": url}, sync, table), "s", sandbox)


def test_both_ends_of_associations_are_looked_up(tmp_path: Path) -> None:
    sandbox = HubSpotSandbox(burst=10_000)
    sandbox.types["companies"].properties["crm_id"] = Property("crm_id", unique=True, own=False)
    for number in range(RECORDS):
        sandbox.types["contacts"].create({"email": f"p{number}@example.com"})
        sandbox.types["companies"].create({"crm_id": f"c{number}"})
    crm = {"type": "hubspot", "access_token": "sandbox", "rate_limits": ["10000/1s"]}
    ends = {"from.email": "email", "to.crm_id": "company"}
    sync = {"object": "associations/contacts/companies", "mode": "mirror", "identify": ends}
    _compare_one(tmp_path, sandbox, crm, sync)


def test_a_bulk_job_has_seven_requests_more(tmp_path: Path) -> None:
    org = {
        "type": "salesforce", "client_id": "app", "client_secret": "sandbox", "works_on": "1ms", "bulk_above": 200,
    }  # fmt: skip
    who = {"identify": {"External_Id__c": "id"}, "fields": {"Name": "email"}}
    _compare_one(tmp_path, SalesforceSandbox(), org, {"object": "Account", "mode": "upsert", **who})
