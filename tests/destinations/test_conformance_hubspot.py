from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.hubspot.property import Property
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class HubSpotRemote(SandboxRemote[HubSpotSandbox]):
    """The simulated account, with wide limits: they have tests of their own."""

    refusal = "VALIDATION_ERROR"
    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {"silent": {"omit": 0.5, "shuffle": True}}

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        live = self.sandbox.types["2-1001"].records.values()
        return {str(record.properties["external_id"]): record.properties for record in live}

    def requests(self) -> int:
        return sum("batch" in item.path and not item.path.endswith("read") for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        objects = self.sandbox.types["2-1001"]
        record = objects.find("external_id", key)
        assert record is not None
        objects.remove(record)


class TestHubSpot(DestinationSuite):
    case = Case(
        object="2-1001",
        identify="external_id",
        text="name",
        number="size",
        modes=("upsert", "mirror", "insert"),
    )

    @pytest.fixture
    def remote(self) -> Iterator[HubSpotRemote]:
        sandbox = HubSpotSandbox(burst=10_000)
        sandbox.types["2-1001"].properties["size"] = Property("size", "number", "number")
        with serving(sandbox.app()) as url:
            yield HubSpotRemote(
                sandbox, type="hubspot", base_url=url, access_token="local-sandbox", rate_limits=["10000/10s"]
            )
