"""python-intercom, the vendor's own client, drives the simulated workspace unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from backhaul.sandbox.intercom import IntercomSandbox
from backhaul.testing.serving import serving

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def sandbox() -> IntercomSandbox:
    return IntercomSandbox(window=200)


@pytest.fixture
def client(sandbox: IntercomSandbox) -> Iterator[Any]:
    from intercom import Intercom

    with serving(sandbox.app()) as url:
        yield Intercom(token="local-sandbox", base_url=url)


def made(client: Any, **values: Any) -> Any:
    from intercom import CreateContactRequestWithExternalId

    return client.contacts.create(request=CreateContactRequestWithExternalId(**values))


def test_contacts(client: Any, sandbox: IntercomSandbox) -> None:
    from intercom import SingleFilterSearchRequest

    one = made(client, external_id="7", email="ada@example.com", custom_attributes={"plan_tier": "pro"})
    assert client.contacts.find(one.id).custom_attributes == {"plan_tier": "pro"}
    assert client.contacts.show_contact_by_external_id("7").id == one.id
    assert client.contacts.update(one.id, name="Ada").name == "Ada"
    query = SingleFilterSearchRequest(field="email", operator="=", value="ada@example.com")
    assert [item.id for item in client.contacts.search(query=query)] == [one.id]
    assert client.contacts.archive(one.id).archived is True
    assert client.contacts.unarchive(one.id).archived is False
    assert client.contacts.delete(one.id).deleted is True
    assert not sandbox.contacts.live


def test_a_contact_that_is_there_is_a_conflict_that_names_it(client: Any) -> None:
    from intercom.core.api_error import ApiError

    one = made(client, external_id="7")
    with pytest.raises(ApiError) as raised:
        made(client, external_id="7")
    assert raised.value.status_code == 409
    assert one.id in raised.value.body["errors"][0]["message"]


def test_errors_are_typed(client: Any) -> None:
    from intercom.errors import NotFoundError

    with pytest.raises(NotFoundError) as raised:
        client.companies.find("nobody")
    assert raised.value.body["errors"][0]["code"] == "company_not_found"


def test_companies_and_attributes(client: Any) -> None:
    from intercom import (
        CreateDataAttributeRequestOne,
        CreateOrUpdateCompanyRequest,
    )

    first = CreateOrUpdateCompanyRequest(company_id="c1", name="Acme", monthly_spend=100)
    company = client.companies.create_or_update(request=first)
    again = client.companies.create_or_update(request=CreateOrUpdateCompanyRequest(company_id="c1", size=3))
    assert (again.id, again.name, again.size, again.monthly_spend) == (company.id, "Acme", 3, 100)
    assert client.companies.delete(company.id).deleted is True
    names = {item.full_name for item in client.data_attributes.list(model="contact").data}
    assert {"email", "custom_attributes.plan_tier"} <= names
    one = CreateDataAttributeRequestOne(name="seats_used", model="contact", data_type="integer")
    made = client.data_attributes.create(request=one)
    assert (made.data_type, made.custom) == ("integer", True)
