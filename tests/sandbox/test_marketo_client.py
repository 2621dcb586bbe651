"""marketorestpython, a client that others wrote, drives the simulated instance unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.serving import serving

marketorestpython = pytest.importorskip("marketorestpython.client")


@pytest.fixture
def sandbox() -> MarketoSandbox:
    return MarketoSandbox()


@pytest.fixture
def client(sandbox: MarketoSandbox) -> Iterator[Any]:
    """Its host is an attribute; it is made of the Munchkin id alone otherwise."""
    with serving(sandbox.app()) as url:
        made = marketorestpython.MarketoClient("123-ABC-456", "service", "sandbox", max_retry_time=2)
        made.host = url
        yield made


def test_leads(client: Any, sandbox: MarketoSandbox) -> None:
    rows = [{"email": "ada@example.com", "plan": "pro"}, {"email": "bob@example.com", "seats": "many"}]
    created, skipped = client.execute(
        method="create_update_leads", leads=rows, action="createOrUpdate", lookupField="email"
    )
    assert created["status"] == "created"
    assert skipped["reasons"][0]["code"] == "1003"
    found = client.execute(
        method="get_multiple_leads_by_filter_type", filterType="email",
        filterValues=["ada@example.com", "nobody@example.com"], fields=["email", "plan"],
    )  # fmt: skip
    assert found == [{"id": created["id"], "email": "ada@example.com", "plan": "pro"}]
    assert "email" in {item["rest"]["name"] for item in client.execute(method="describe")}
    (searchable,) = client.execute(method="describe2")
    assert ["email"] in searchable["searchableFields"]
    (deleted,) = client.execute(method="delete_lead", id=[created["id"]])
    assert deleted == {"id": created["id"], "status": "deleted"}
    assert not sandbox.records()["leads"]


def test_static_lists(client: Any, sandbox: MarketoSandbox) -> None:
    (lead,) = client.execute(method="create_update_leads", leads=[{"email": "ada@example.com"}])
    assert client.execute(method="add_leads_to_list", listId=1001, id=[lead["id"]]) == [
        {"id": lead["id"], "status": "added"}
    ]
    assert sandbox.records()["Customers"]
    (gone,) = client.execute(method="remove_leads_from_list", listId=1001, id=[lead["id"]])
    assert gone["status"] == "removed"


def test_custom_objects(client: Any) -> None:
    rows = [{"vin": "v1", "make": "BMW"}, {"make": "none"}]
    created, skipped = client.execute(method="create_update_custom_objects", name="car_c", input=rows)
    assert (created["seq"], created["status"]) == (0, "created")
    assert (skipped["seq"], skipped["reasons"][0]["code"]) == (1, "1002")
    (deleted,) = client.execute(
        method="delete_custom_objects", name="car_c", input=[{"vin": "v1"}], deleteBy="dedupeFields"
    )
    assert deleted["marketoGUID"] == created["marketoGUID"]


def test_errors_are_the_ones_it_knows(client: Any, sandbox: MarketoSandbox) -> None:
    with pytest.raises(Exception, match="1006"):
        client.execute(method="create_update_leads", leads=[{"email": "a@example.com", "shoe": 43}])
    sandbox.faults = Faults(refuse_all="709")
    with pytest.raises(Exception, match="709"):
        client.execute(method="create_update_leads", leads=[{"email": "a@example.com"}])


def test_bulk_imports(client: Any, sandbox: MarketoSandbox, tmp_path: Path) -> None:
    file = tmp_path / "leads.csv"
    file.write_text("email,plan,seats\nada@example.com,pro,3\nbob@example.com,free,many\n")
    (queued,) = client.execute(method="import_lead", file=str(file), format="csv", lookupField="email")
    (state,) = client.execute(method="get_import_lead_status", id=queued["batchId"])
    assert (state["status"], state["numOfLeadsProcessed"], state["numOfRowsFailed"]) == ("Complete", 1, 1)
    failed = client.execute(method="get_import_failure_file", id=queued["batchId"])
    assert "bob@example.com,free,many,Invalid value for field 'seats' and value 'many'" in str(failed)
    assert [lead["seats"] for lead in sandbox.records()["leads"].values()] == [3]
