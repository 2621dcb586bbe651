"""Salesforce: parents that may be of several objects, and those that are found by another field than an external id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from salesforce_calls import batch, by_key, connected, row

from backhaul.destinations.kit import Wire
from backhaul.destinations.salesforce import bulk
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.batches import RecordBatch
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Field, Op

PARENTS = ("Owner", "Who", "RecordType")
NAMES = ("Contact:Who.External_Id__c", "Lead:Who.External_Id__c", "User:Owner.Username", "RecordType.Name")


@pytest.fixture
def org() -> SalesforceSandbox:
    made = SalesforceSandbox()
    made.kinds["Contact"].write({"LastName": "C", "External_Id__c": "c"}, None)
    made.kinds["Lead"].write({"LastName": "L", "Company": "L", "External_Id__c": "l"}, None)
    made.kinds["User"].write({"Username": "ada@acme.com"}, None)
    made.kinds["RecordType"].write({"Name": "Call"}, None)
    return made


@pytest.fixture
def url(org: SalesforceSandbox) -> Iterator[str]:
    with serving(org.app()) as address:
        yield address


def ids(org: SalesforceSandbox, key: str) -> tuple[Any, ...]:
    (task,) = org.kinds["Task"].matching("External_Id__c", key)
    return tuple(str(task.values[name] or "")[:3] for name in ("WhoId", "OwnerId", "RecordTypeId"))


def tasks(**who: str | None) -> list[dict[str, Any]]:
    shared = {"User:Owner.Username": "ada@acme.com", "RecordType.Name": "Call"}
    return [row("t", **{f"{target}:Who.External_Id__c": key for target, key in who.items()}, **shared)]


async def test_every_object_of_a_reference_has_its_lookup_fields(url: str) -> None:
    async with connected(url, parents=PARENTS) as crm:
        fields = (await crm.describe("Task")).fields
    offered = {name for name in fields if "." in name}
    assert set(NAMES) <= offered
    assert {"User:Owner.FederationIdentifier", "User:Owner.Email", "Group:Owner.Name"} <= offered
    assert not any(name.endswith(".Id") for name in offered)


@pytest.mark.parametrize(
    ("who", "held"),
    [({"Contact": "c"}, "003"), ({"Lead": "l"}, "00Q"), ({"Contact": None, "Lead": "l"}, "00Q"), ({"Contact": "c", "Lead": None}, "003")],
)  # fmt: skip
async def test_a_parent_says_which_object_it_is_of(
    org: SalesforceSandbox, url: str, who: dict[str, str | None], held: str
) -> None:
    async with connected(url, parents=PARENTS) as crm:
        await crm.describe("Task")
        sent = batch(Op.UPSERT, *tasks(**who), object="Task")
        assert isinstance(by_key(await crm.write(sent))["t"], Delivered)
        read = (await crm.read("Task", ("External_Id__c",), ["t"], NAMES))["t"]
        assert ids(org, "t") == (held, "005", "012")
        expected = {"Contact:Who.External_Id__c": None, "Lead:Who.External_Id__c": None} | {
            f"{target}:Who.External_Id__c": key for target, key in who.items()
        }
        assert {name: read[name] for name in NAMES[:2]} == expected
        assert (read["User:Owner.Username"], read["RecordType.Name"]) == ("ada@acme.com", "Call")
        cleared = batch(Op.UPSERT, row("t", **dict.fromkeys(NAMES[:2])), object="Task")
        assert isinstance(by_key(await crm.write(cleared))["t"], Delivered)
        assert ids(org, "t") == ("", "005", "012")


async def test_a_job_names_the_object_in_its_header(org: SalesforceSandbox, url: str) -> None:
    (record,) = tasks(Lead="l")
    fields = tuple(map(Field, record))
    sent = RecordBatch(Op.UPSERT, "Task", ("External_Id__c",), fields, [record], Wire.CSV, csv_null=bulk.NULL)
    async with connected(url, parents=PARENTS) as crm:
        handed = await crm.write(sent)
        while not hasattr(handed, "items"):
            handed = await crm.collect(sent, handed.id)
    assert isinstance(by_key(handed)["t"], Delivered)
    assert ids(org, "t") == ("00Q", "005", "012")
