from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class MarketoRemote:
    """The simulated instance, with wide limits: they have tests of their own."""

    def __init__(self, sandbox: MarketoSandbox, url: str) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "marketo", "base_url": url, "client_id": "service", "client_secret": "sandbox",
            "rate_limits": ["100000/20s"],
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(lead["customerId"]): lead for lead in self.sandbox.instance.leads.records.values()}

    def requests(self) -> int:
        return sum(item.records > 0 for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        (own,) = self.sandbox.instance.leads.find(("customerId",), [key])
        self.sandbox.instance.drop_lead(own)

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.5}, "silent": {"omit": 0.5}, "refuse": {"refuse_key": key},
            "poison": {"poison_key": key}, "reject_all": {"refuse_all": "709"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestMarketo(DestinationSuite):
    case = Case(object="leads", identify="customerId", text="plan", number="seats")

    @pytest.fixture
    def remote(self) -> Iterator[MarketoRemote]:
        sandbox = MarketoSandbox(calls=100_000)
        with serving(sandbox.app()) as url:
            yield MarketoRemote(sandbox, url)
