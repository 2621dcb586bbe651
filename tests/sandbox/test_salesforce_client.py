"""simple-salesforce, a client that others wrote, drives the simulated org unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.serving import serving


@pytest.fixture
def org() -> SalesforceSandbox:
    return SalesforceSandbox(daily=1000)


@pytest.fixture
def client(org: SalesforceSandbox) -> Iterator[Any]:
    """The client speaks https alone: its own transport is led to plain HTTP."""
    import requests
    from requests.adapters import HTTPAdapter
    from simple_salesforce import Salesforce

    class Plain(HTTPAdapter):
        def send(self, request: Any, *args: Any, **more: Any) -> Any:
            request.url = request.url.replace("https://", "http://", 1)
            return super().send(request, *args, **more)

    with serving(org.app()) as url, requests.Session() as session:
        session.mount("https://", Plain())
        place = url.removeprefix("http://")
        yield Salesforce(session_id="a session", instance=place, version="67.0", session=session)


def test_single_records(client: Any, org: SalesforceSandbox) -> None:
    from simple_salesforce.exceptions import SalesforceMalformedRequest, SalesforceResourceNotFound

    made = client.Account.create({"Name": "Acme", "External_Id__c": "a"})
    assert made["success"]
    assert client.Account.get(made["id"])["Name"] == "Acme"
    assert client.Account.get_by_custom_id("External_Id__c", "a")["Id"] == made["id"]
    assert client.Account.update(made["id"], {"Name": "Acme 2"}) == 204
    assert client.Account.upsert("External_Id__c/a", {"Name": "Acme 3"}) == 200
    assert client.Account.upsert("External_Id__c/b", {"Name": "Other"}) == 201
    with pytest.raises(SalesforceMalformedRequest, match="should not be specified"):
        client.Account.upsert("External_Id__c/a", {"Name": "x", "External_Id__c": "a"})
    assert client.Account.delete(made["id"]) == 204
    with pytest.raises(SalesforceResourceNotFound):
        client.Account.get(made["id"])
    client.limits()
    assert client.api_usage["api-usage"].used == 10


def test_one_external_id_of_several_records(client: Any, org: SalesforceSandbox) -> None:
    from simple_salesforce.exceptions import SalesforceMoreThanOneRecord

    for _ in range(2):
        org.kinds["Customer__c"].write({"Loose_Id__c": "a"}, None)
    with pytest.raises(SalesforceMoreThanOneRecord, match="More than one record"):
        client.Customer__c.upsert("Loose_Id__c/a", {"Plan__c": "x"})


def test_collections(client: Any, org: SalesforceSandbox) -> None:
    rows = [{"attributes": {"type": "Account"}, "Name": n, "External_Id__c": n} for n in ("a", "b", "")]
    path = "composite/sobjects/Account/External_Id__c"
    found = client.restful(path, method="PATCH", json={"allOrNone": False, "records": rows})
    assert [item["success"] for item in found] == [True, True, False]
    assert found[2]["errors"][0]["statusCode"] == "MISSING_ARGUMENT"
    rolled = client.restful(
        path, method="PATCH", json={"allOrNone": True, "records": [{**rows[0], "Name": "z"}, rows[2]]}
    )
    assert rolled[0]["errors"][0]["statusCode"] == "ALL_OR_NONE_OPERATION_ROLLED_BACK"
    assert {record.values["Name"] for record in org.kinds["Account"].records.values()} == {"a", "b"}
    gone = client.restful("composite/sobjects", method="DELETE", params={"ids": found[0]["id"]})
    assert gone[0]["success"]
    with pytest.raises(Exception, match="more than 200"):
        client.restful(path, method="PATCH", json={"records": rows[:1] * 201})


def test_queries_page_by_page(client: Any, org: SalesforceSandbox) -> None:
    for number in range(5):
        org.kinds["Customer__c"].write({"External_Id__c": f"k{number}", "Score__c": number}, None)
    org.page_size = 2
    found = client.query_all("SELECT Id, External_Id__c FROM Customer__c WHERE Score__c IN (1, 2, 3, 9)")
    assert {record["External_Id__c"] for record in found["records"]} == {"k1", "k2", "k3"}
    for wrong, said in (
        ("SELECT Nothing__c FROM Customer__c", "No such column"), ("SELECT Id FROM Nothing", "is not supported"),
        ("SELECT Id FROM Customer__c WHERE Score__c = '1'", "should not be enclosed"), ("SELECT", "unexpected token"),
    ):  # fmt: skip
        with pytest.raises(Exception, match=said):
            client.query(wrong)


def test_describe_and_limits(client: Any) -> None:
    fields = {item["name"]: item for item in client.Account.describe()["fields"]}
    assert fields["External_Id__c"]["externalId"]
    assert client.limits()["DailyApiRequests"]["Max"] == 1000


def test_values_are_as_strictly_typed_as_json(client: Any) -> None:
    good = {"Name": "a", "NumberOfEmployees": "10000", "Active__c": True}
    assert client.Account.create(good)["success"]
    for wrong, code in (
        ({"Name": 1}, "JSON_PARSER_ERROR"), ({"Active__c": None}, "JSON_PARSER_ERROR"), ({"Nothing__c": 1}, "INVALID_FIELD"),
        ({"Rating": "Boiling"}, "RESTRICTED_PICKLIST"), ({"Health__c": 1}, "INVALID_FIELD_FOR_INSERT_UPDATE"),
        ({"NumberOfEmployees": 2**40}, "NUMBER_OUTSIDE_VALID_RANGE"), ({"AnnualRevenue": "much"}, "JSON_PARSER_ERROR"),
    ):  # fmt: skip
        with pytest.raises(Exception, match=code):
            client.Account.create({**good, **wrong})
    with pytest.raises(Exception, match="MALFORMED_ID"):
        client.Contact.create({"LastName": "x", "AccountId": "nobody"})


def test_a_session_that_ended_and_a_quota_that_is_used_up(client: Any, org: SalesforceSandbox) -> None:
    from simple_salesforce.exceptions import SalesforceExpiredSession, SalesforceRefusedRequest

    org.faults = Faults(expire_after=1)
    client.limits()
    with pytest.raises(SalesforceExpiredSession, match="INVALID_SESSION_ID"):
        client.limits()
    org.faults = Faults()
    org.daily.count = 0
    with pytest.raises(SalesforceRefusedRequest, match="TotalRequests"):
        client.limits()
