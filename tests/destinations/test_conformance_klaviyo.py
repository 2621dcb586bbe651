from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.klaviyo import KlaviyoSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class KlaviyoRemote:
    """The simulated account, with wide limits: they have tests of their own."""

    def __init__(self, sandbox: KlaviyoSandbox, url: str) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "klaviyo", "base_url": url, "api_key": "local-sandbox", "rate_limits": ["10000/1s"], "poll_interval": "0.02s",
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {
            str(profile["external_id"]): profile
            | {f"properties.{name}": value for name, value in profile["properties"].items()}
            for profile in self.sandbox.profiles.values()
        }

    def requests(self) -> int:
        return sum(item.records > 0 for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        self.sandbox.drop(self.sandbox.named["external_id", key])

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.5}, "silent": {"truncate": 0.5}, "refuse": {"refuse_key": key},
            "poison": {"poison_key": key}, "reject_all": {"refuse_all": "unwelcome"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


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
            yield KlaviyoRemote(sandbox, url)
