from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.customerio import CustomerIoSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class CustomerIoRemote(SandboxRemote[CustomerIoSandbox]):
    """The simulated workspace, with wide limits: they have tests of their own."""

    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {"silent": {"truncate": 0.5}}

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(person.attributes["id"]): person.attributes for person in self.sandbox.people.values()}

    def lose(self, key: str) -> None:
        self.sandbox.drop(self.sandbox.named["id", key])


class TestCustomerIo(DestinationSuite):
    case = Case(object="people", identify="id", text="plan", number="seats")
    gaps: Mapping[str, str] = {
        "an_answer_that_names_nobody_delivers_nobody": "an empty object is Customer.io's answer to a batch of which it took everything",
        "a_field_that_does_not_exist_is_named_before_anything_is_sent": "attributes are made by being sent, and none are described",
    }

    @pytest.fixture
    def remote(self) -> Iterator[CustomerIoRemote]:
        sandbox = CustomerIoSandbox(track=10_000, app=10_000)
        with serving(sandbox.app()) as url:
            yield CustomerIoRemote(
                sandbox,
                type="customerio",
                read_lag="1ms",
                base_url=url,
                site_id="local-sandbox",
                api_key="local-sandbox",
                app_key="local-sandbox",
                rate_limits=["10000/1s"],
            )
