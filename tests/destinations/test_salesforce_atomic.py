"""Requests of Salesforce whose records are applied together or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import test_conformance_salesforce as conformance
from aiohttp import web
from salesforce_calls import answering, batch, by_key, connected, row

from backhaul.errors import Refused, Unsettled
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.conformance import Site
from backhaul.testing.serving import serving
from backhaul.types import Delivered, Op, Rejected, Retry


class TestAtomic(conformance.TestSalesforce):
    """The whole suite once more."""

    @pytest.fixture
    def remote(self) -> Iterator[conformance.SalesforceRemote]:
        sandbox = SalesforceSandbox()
        with serving(sandbox.app()) as url:
            yield conformance.SalesforceRemote(sandbox, url, atomic=True)


@pytest.fixture
def org() -> SalesforceSandbox:
    return SalesforceSandbox()


@pytest.fixture
def url(org: SalesforceSandbox) -> Iterator[str]:
    with serving(org.app()) as address:
        yield address


def composites(org: SalesforceSandbox) -> list[int]:
    return [request.records for request in org.requests if request.path.endswith("/composite")]


async def test_a_thousand_records_are_one_call(org: SalesforceSandbox, url: str) -> None:
    rows = [row(f"k{number}", Plan__c="pro") for number in range(1000)]
    async with connected(url, atomic=True) as crm:
        for op in (Op.UPSERT, Op.UPDATE):
            found = by_key(await crm.write(batch(op, *rows)))
            assert [item.key for item in found.values() if isinstance(item, Delivered)] == [
                f"k{n}" for n in range(1000)
            ]
    assert composites(org) == [1000, 1000]


async def test_one_that_is_refused_holds_all_back(org: SalesforceSandbox, url: str) -> None:
    org.kinds["Customer__c"].rules.append(lambda values: "too bad" if values["Plan__c"] == "bad" else None)
    rows = [row(f"k{number}", Plan__c="bad" if number == 450 else "good") for number in range(500)]
    async with connected(url, atomic=True) as crm:
        found = by_key(await crm.write(batch(Op.UPSERT, *rows)))
    assert found.pop("k450") == Rejected("k450", "FIELD_CUSTOM_VALIDATION_EXCEPTION", "too bad")
    assert len(found) == 499
    assert all(isinstance(item, Retry) for item in found.values())
    assert not org.kinds["Customer__c"].records


def test_the_others_are_sent_again_without_it(org: SalesforceSandbox, url: str, tmp_path: Path) -> None:
    remote = conformance.SalesforceRemote(org, url, atomic=True)
    org.kinds["Customer__c"].rules.append(lambda values: "too bad" if values["Plan__c"] == "bad" else None)
    site = Site(tmp_path, conformance.TestSalesforce.case, remote)
    keys = [f"k{number}" for number in range(2500)]
    site.model({key: ("bad" if key == "k7" else "good", 1) for key in keys})
    run = site.run()
    assert (run.status, run.delivered, run.rejected) == ("partial", 2499, 1), run.error
    assert all(record.writes == 1 for record in org.kinds["Customer__c"].records.values())
    assert not org.jobs
    assert len(composites(org)) <= 5


async def test_a_collection_that_is_wrong_is_the_request_that_is_wrong(
    org: SalesforceSandbox, url: str
) -> None:
    async with connected(url, atomic=True) as crm:
        with pytest.raises(Refused, match="No such column 'Nothing__c'") as raised:
            await crm.write(
                batch(Op.INSERT, *(row(f"k{n}", Plan__c="x") for n in range(300)), row("z", Nothing__c="y"))
            )
    assert raised.value.code == "INVALID_FIELD"
    assert not org.kinds["Customer__c"].records


async def test_a_collection_is_given_the_headers_of_its_own(org: SalesforceSandbox, url: str) -> None:
    org.kinds["Contact"].duplicate_field = "Email"
    rows = [row(key, LastName="L", Email="a@example.com") for key in ("a", "b")]
    for passes in (False, True):
        async with connected(url, atomic=True, save_duplicates=passes) as crm:
            found = by_key(await crm.write(batch(Op.UPSERT, *rows, object="Contact")))
        assert {type(item) for item in found.values()} == ({Delivered} if passes else {Retry, Rejected})


ROLLED = [{"errorCode": "PROCESSING_HALTED", "message": "rolled back"}]


@pytest.mark.parametrize(
    ("results", "named"),
    [
        ([], set()),
        ([{"referenceId": "part1", "httpStatusCode": 200, "body": [{"success": True, "id": "1"}]}], set()),
        ([{"referenceId": "part0", "httpStatusCode": 200, "body": [{"success": True, "id": "1"}]}], set()),
        ([{"referenceId": "part0", "httpStatusCode": 500, "body": None}], set()),
        ([{"referenceId": "part0", "httpStatusCode": 400, "body": ROLLED}], {"a", "b"}),
    ],
)
async def test_what_an_answer_does_not_name_is_unknown(results: list[Any], named: set[str]) -> None:
    body = orjson.dumps({"compositeResponse": results})
    async with answering(lambda _: web.Response(body=body), atomic=True) as crm:
        found = by_key(await crm.write(batch(Op.UPSERT, row("a"), row("b"))))
    assert set(found) == named
    assert all(isinstance(item, Retry) for item in found.values())


async def test_an_answer_without_results_settles_nothing() -> None:
    async with answering(lambda _: web.Response(body=b"{}"), atomic=True) as crm:
        with pytest.raises(Unsettled, match="no results"):
            await crm.write(batch(Op.UPSERT, row("a")))
