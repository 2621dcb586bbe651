from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.intercom import IntercomSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class IntercomRemote(SandboxRemote[IntercomSandbox]):
    """The simulated workspace, with wide limits: they have tests of their own."""

    refusal = "parameter_invalid"
    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "throttle": {"throttle": 0.2, "retry_after": 0.05},
        "reset_after": {"reset_after": 0.1},
        "silent": {"omit": 0.1},
    }

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        live = self.sandbox.contacts.live.values()
        return {str(item.values["external_id"]): item.flat() for item in live}

    def requests(self) -> int:
        return sum(item.records for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        item = self.sandbox.contacts.held("external_id", key)
        assert item is not None
        self.sandbox.contacts.erase(item)


class TestIntercom(DestinationSuite):
    case = Case(
        object="contacts",
        identify="external_id",
        text="name",
        number="custom_attributes.health_score",
        modes=("upsert", "mirror", "insert"),
        keys=tuple(f"k{number}" for number in range(100)),
    )

    @pytest.fixture
    def remote(self) -> Iterator[IntercomRemote]:
        sandbox = IntercomSandbox(window=100_000)
        with serving(sandbox.app()) as url:
            yield IntercomRemote(
                sandbox,
                type="intercom",
                base_url=url,
                access_token="local-sandbox",
                rate_limits=["100000/10s"],
            )
