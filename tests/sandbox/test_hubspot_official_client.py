"""The vendor's own client drives the simulation unchanged."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.testing.serving import serving

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def sandbox() -> HubSpotSandbox:
    return HubSpotSandbox()


@pytest.fixture
def client(sandbox: HubSpotSandbox) -> Iterator[Any]:
    import hubspot

    with serving(sandbox.app()) as url:
        client = hubspot.Client.create(access_token="local-sandbox", host=url)
        yield client


def upsert(client: Any, *inputs: dict[str, Any]) -> Any:
    from hubspot.crm.contacts import BatchInputSimplePublicObjectBatchInputUpsert

    return client.crm.contacts.batch_api.upsert(
        BatchInputSimplePublicObjectBatchInputUpsert(inputs=list(inputs))
    )


def contact(email: str, trace: str = "t", **properties: str) -> dict[str, Any]:
    return {"idProperty": "email", "id": email, "objectWriteTraceId": trace, "properties": properties}


def test_upsert_creates_then_updates(client: Any, sandbox: HubSpotSandbox) -> None:
    first = upsert(client, contact("Ada@Example.com", firstname="Ada"))
    second = upsert(client, contact("ada@example.com", lastname="Lovelace"))
    assert [first.results[0].new, second.results[0].new] == [True, False]
    assert first.results[0].id == second.results[0].id
    assert second.results[0].properties["email"] == "ada@example.com"
    (held,) = sandbox.records()["contacts"].values()
    assert (held["firstname"], held["lastname"]) == ("Ada", "Lovelace")


def test_a_207_is_parsed_with_its_errors(client: Any) -> None:
    answer = upsert(client, contact("ok@example.com", "row-1"), contact("not an address", "row-2"))
    assert [item.object_write_trace_id for item in answer.results] == ["row-1"]
    assert answer.num_errors == 1
    assert answer.errors[0].category == "VALIDATION_ERROR"
    assert answer.errors[0].context == {"objectWriteTraceId": ["row-2"]}


def test_create_read_search_archive(client: Any) -> None:
    from hubspot.crm.contacts import (
        BatchInputSimplePublicObjectBatchInputForCreate,
        BatchInputSimplePublicObjectId,
        BatchReadInputSimplePublicObjectId,
        PublicObjectSearchRequest,
    )

    batch = client.crm.contacts.batch_api
    inputs = [
        {"properties": {"email": f"u{number}@example.com", "city": "Oslo"}, "associations": []}
        for number in range(3)
    ]
    made = batch.create(BatchInputSimplePublicObjectBatchInputForCreate(inputs=inputs))
    assert len(made.results) == 3
    asked = BatchReadInputSimplePublicObjectId(
        id_property="email",
        inputs=[{"id": "u1@example.com"}, {"id": "gone@example.com"}],
        properties=["city"],
        properties_with_history=[],
    )
    read = batch.read(asked)
    assert read.results[0].properties["city"] == "Oslo"
    assert read.errors[0].category == "OBJECT_NOT_FOUND"
    found = client.crm.contacts.search_api.do_search(
        PublicObjectSearchRequest(
            filter_groups=[
                {"filters": [{"propertyName": "email", "operator": "EQ", "value": "u2@example.com"}]}
            ],
            limit=10,
        )
    )
    assert found.total == 1
    batch.archive(BatchInputSimplePublicObjectId(inputs=[{"id": item.id} for item in made.results]))
    assert client.crm.contacts.search_api.do_search(PublicObjectSearchRequest(limit=10)).total == 0


def test_a_create_that_exists_is_a_conflict_naming_it(client: Any) -> None:
    from hubspot.crm.contacts import ApiException, BatchInputSimplePublicObjectBatchInputForCreate

    inputs = BatchInputSimplePublicObjectBatchInputForCreate(
        inputs=[{"properties": {"email": "a@example.com"}, "associations": []}]
    )
    first = client.crm.contacts.batch_api.create(inputs)
    with pytest.raises(ApiException) as caught:
        client.crm.contacts.batch_api.create(inputs)
    assert caught.value.status == 409
    assert first.results[0].id in caught.value.body


@pytest.mark.parametrize(("inputs", "said"), [
    ([contact("a@example.com"), contact("A@example.com ")], "Duplicate IDs"),
    ([contact(f"u{n}@example.com") for n in range(101)], "101 inputs"),
    ([contact("a@example.com", nope="x")], "nope"),
    ([{"idProperty": "city", "id": "Oslo", "properties": {}}], "non-unique"),
])  # fmt: skip
def test_a_request_that_is_wrong_is_refused_whole(
    client: Any, sandbox: HubSpotSandbox, inputs: list[Any], said: str
) -> None:
    from hubspot.crm.contacts import ApiException

    with pytest.raises(ApiException, match=said) as caught:
        upsert(client, *inputs)
    assert caught.value.status == 400
    assert not sandbox.types["contacts"].records


def test_unknown_properties_can_be_dropped_in_silence(client: Any, sandbox: HubSpotSandbox) -> None:
    sandbox.unknown_properties = "drop"
    answer = upsert(client, contact("a@example.com", nope="x", city="Rome"))
    assert answer.results[0].properties["city"] == "Rome"
    assert "nope" not in answer.results[0].properties


def test_properties_are_listed_and_made(client: Any) -> None:
    from hubspot.crm.properties import PropertyCreate

    made = PropertyCreate(
        name="tier", label="Tier", type="enumeration", field_type="select", group_name="g",
        options=[{"label": "Pro", "value": "pro", "hidden": False, "displayOrder": 0}],
    )  # fmt: skip
    client.crm.properties.core_api.create("contacts", made)
    listed = {item.name: item for item in client.crm.properties.core_api.get_all("contacts").results}
    assert [option.value for option in listed["tier"].options] == ["pro"]
    assert listed["createdate"].modification_metadata.read_only_value


def test_limits_answer_429_with_their_headers(sandbox: HubSpotSandbox) -> None:
    sandbox.burst.count = 3
    with serving(sandbox.app()) as url:
        request = urllib.request.Request(  # noqa: S310
            f"{url}/crm/v3/properties/contacts", headers={"Authorization": "Bearer x"}
        )
        for left in (2, 1, 0):
            with urllib.request.urlopen(request) as answer:  # noqa: S310
                assert answer.headers["X-HubSpot-RateLimit-Remaining"] == str(left)
                assert answer.headers["X-HubSpot-RateLimit-Interval-Milliseconds"] == "10000"
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request)  # noqa: S310
        assert caught.value.code == 429
        assert b"TEN_SECONDLY_ROLLING" in caught.value.read()


def test_no_token_is_401_and_a_missing_scope_403(sandbox: HubSpotSandbox) -> None:
    with serving(sandbox.app()) as url:
        for headers, scopes, status in (
            ({}, frozenset(), 401),
            (
                {"Authorization": "Bearer x"},
                frozenset({"crm.objects.contacts.read", "crm.schemas.contacts.read"}),
                403,
            ),
        ):
            sandbox.missing_scopes = scopes
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(  # noqa: S310
                    urllib.request.Request(f"{url}/crm/v3/properties/contacts", headers=headers)  # noqa: S310
                )
            assert caught.value.code == status
            caught.value.close()


def test_the_page_shows_records_and_faults(client: Any, sandbox: HubSpotSandbox) -> None:
    upsert(client, contact("<b>@example.com", firstname="<script>alert(1)</script>"))
    upsert(client, contact("ada@example.com", firstname="<script>alert(1)</script>"))
    sandbox.faults.latency = 0.01
    with serving(sandbox.app()) as url, urllib.request.urlopen(url) as answer:  # noqa: S310
        page = answer.read().decode()
    assert "ada@example.com" in page
    assert "latency" in page
    assert "<script>" not in page
