from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class SalesforceRemote(SandboxRemote[SalesforceSandbox]):
    """The simulated org. It promises the order of its results, so that none of its faults changes it."""

    refusal = "INVALID_FIELD"

    def __init__(self, sandbox: SalesforceSandbox, url: str, **more: Any) -> None:
        super().__init__(
            sandbox,
            type="salesforce",
            base_url=url,
            client_id="app",
            client_secret="sandbox",
            works_on="1ms",
            **more,
        )

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        live = self.sandbox.kinds["Customer__c"].records.values()
        return {str(record.values["External_Id__c"]): record.values for record in live}

    def requests(self) -> int:
        return sum(item.method != "GET" and "/oauth2/" not in item.path for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        kind = self.sandbox.kinds["Customer__c"]
        (record,) = kind.matching("External_Id__c", key)
        kind.remove(record)


class TestSalesforce(DestinationSuite):
    case = Case(
        object="Customer__c",
        identify="External_Id__c",
        text="Plan__c",
        number="Score__c",
        modes=("upsert", "mirror", "insert"),
    )

    @pytest.fixture
    def remote(self) -> Iterator[SalesforceRemote]:
        sandbox = SalesforceSandbox()
        with serving(sandbox.app()) as url:
            yield SalesforceRemote(sandbox, url)
