from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.marketo import MarketoSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class MarketoRemote(SandboxRemote[MarketoSandbox]):
    """The simulated instance, with wide limits: they have tests of their own."""

    refusal = "709"

    def __init__(self, sandbox: MarketoSandbox, url: str, **more: Any) -> None:
        super().__init__(
            sandbox,
            type="marketo",
            read_lag="1ms",
            base_url=url,
            client_id="service",
            client_secret="sandbox",
            rate_limits=["100000/20s"],
            **more,
        )

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(lead["customerId"]): lead for lead in self.sandbox.instance.leads.records.values()}

    def lose(self, key: str) -> None:
        (own,) = self.sandbox.instance.leads.find(("customerId",), [key])
        self.sandbox.instance.drop_lead(own)


class TestMarketo(DestinationSuite):
    case = Case(object="leads", identify="customerId", text="plan", number="seats")

    @pytest.fixture
    def remote(self) -> Iterator[MarketoRemote]:
        sandbox = MarketoSandbox(calls=100_000)
        with serving(sandbox.app()) as url:
            yield MarketoRemote(sandbox, url)
