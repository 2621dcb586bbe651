from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.customerio import CustomerIoSandbox
from backhaul.sandbox.kit import Faults
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class CustomerIoRemote:
    """The simulated workspace, with wide limits: they have tests of their own."""

    def __init__(self, sandbox: CustomerIoSandbox, url: str) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "customerio", "base_url": url, "site_id": "local-sandbox", "api_key": "local-sandbox", "app_key": "local-sandbox",
            "rate_limits": ["10000/1s"],
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(person.attributes["id"]): person.attributes for person in self.sandbox.people.values()}

    def requests(self) -> int:
        return sum(item.records > 0 for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        self.sandbox.drop(self.sandbox.named["id", key])

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.5}, "silent": {"truncate": 0.5}, "refuse": {"refuse_key": key},
            "poison": {"poison_key": key}, "reject_all": {"refuse_all": "unwelcome"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestCustomerIo(DestinationSuite):
    case = Case(object="people", identify="id", text="plan", number="seats")
    gaps: Mapping[str, str] = {
        "a_field_that_does_not_exist_is_named_before_anything_is_sent": "attributes are made by being sent, and none are described",
    }

    @pytest.fixture
    def remote(self) -> Iterator[CustomerIoRemote]:
        sandbox = CustomerIoSandbox(track=10_000, app=10_000)
        with serving(sandbox.app()) as url:
            yield CustomerIoRemote(sandbox, url)
