from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class KlaviyoRemote(SandboxRemote[KlaviyoSandbox]):
    """The simulated account, with wide limits: they have tests of their own."""

    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {"silent": {"truncate": 0.5}}

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            str(profile["external_id"]): profile
            | {f"properties.{name}": value for name, value in profile["properties"].items()}
            for profile in self.sandbox.profiles.values()
        }

    def lose(self, key: str) -> None:
        self.sandbox.drop(self.sandbox.named["external_id", key])


class TestKlaviyo(DestinationSuite):
    case = Case(
        object="profiles",
        identify="external_id",
        text="first_name",
        number="properties.seats",
        modes=("upsert",),
    )

    gaps: Mapping[str, str] = {
        "a_record_that_left_the_model_is_deleted": "profiles leave only by a data privacy deletion, for good and for every system",
    }

    @pytest.fixture
    def remote(self) -> Iterator[KlaviyoRemote]:
        sandbox = KlaviyoSandbox(scale=1000)
        sandbox.job_seconds = 0.0
        with serving(sandbox.app()) as url:
            yield KlaviyoRemote(
                sandbox,
                type="klaviyo",
                read_lag="1ms",
                base_url=url,
                api_key="local-sandbox",
                rate_limits=["10000/1s"],
                poll_interval="0.02s",
            )
