"""Refusals by class against the simulated vendors, over real HTTP: capacity, and references that come later."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from places import project

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Faults
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.serving import serving


@pytest.fixture
def org() -> Iterator[tuple[SalesforceSandbox, dict[str, Any]]]:
    sandbox = SalesforceSandbox()
    with serving(sandbox.app()) as url:
        yield (
            sandbox,
            {
                "type": "salesforce",
                "base_url": url,
                "client_id": "app",
                "client_secret": "sandbox",
                "works_on": "1ms",
            },
        )


def test_i45_salesforce_without_storage_defers_creates_and_makes_no_dead_letters(
    org: tuple[SalesforceSandbox, dict[str, Any]], tmp_path: Path
) -> None:
    sandbox, connection = org
    sandbox.faults = Faults(refuse=1.0, refuse_code="STORAGE_LIMIT_EXCEEDED")
    sync = {
        "object": "Customer__c",
        "mode": "upsert",
        "identify": {"External_Id__c": "id"},
        "fields": {"Plan__c": "plan"},
    }
    made = project(tmp_path, connection, sync, "SELECT 'k' || i AS id, 'x' AS plan FROM range(20) r(i)")
    with made:
        report = made.run("s").report
        assert (report.deferred, report.rejected, report.status, report.exit_code) == (20, 0, "deferred", 3)
        assert (report.refused[0]["code"], report.refused[0]["class"]) == (
            "STORAGE_LIMIT_EXCEEDED",
            "capacity",
        )
        assert made.dead_letters("s") == []
        sandbox.faults = Faults()
        assert made.run("s").report.delivered == 20


def test_i45_a_hubspot_association_waits_for_its_company(tmp_path: Path) -> None:
    sandbox = HubSpotSandbox(burst=10_000)
    sandbox.types["companies"].properties["crm_id"] = Property("crm_id", unique=True, own=False)
    for number in range(3):
        sandbox.types["contacts"].create({"email": f"p{number}@example.com"})
    sandbox.types["companies"].create({"crm_id": "c0"})
    sync = {
        "object": "associations/contacts/companies",
        "mode": "mirror",
        "identify": {"from.email": "email", "to.crm_id": "company"},
    }
    rows = "SELECT i AS id, 'p' || i || '@example.com' AS email, if(i = 2, 'c1', 'c0') AS company FROM range(3) r(i)"
    with serving(sandbox.app()) as url:
        connection = {
            "type": "hubspot",
            "base_url": url,
            "access_token": "local-sandbox",
            "rate_limits": ["10000/1s"],
        }
        with project(tmp_path, connection, sync, rows) as made:
            report = made.run("s").report
            assert (report.delivered, report.deferred, report.rejected, report.exit_code) == (2, 1, 0, 3)
            assert (report.refused[0]["status"], report.refused[0]["class"]) == (
                "waiting",
                "reference_missing",
            )
            sandbox.types["companies"].create({"crm_id": "c1"})
            report = made.run("s").report
            assert (report.delivered, report.status) == (1, "succeeded")
            assert made.dead_letters("s") == []
