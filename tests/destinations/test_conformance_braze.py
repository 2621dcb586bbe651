from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.braze import BrazeSandbox
from backhaul.sandbox.kit import Faults
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class BrazeRemote:
    """The simulated workspace, with wide limits: they have tests of their own."""

    def __init__(self, sandbox: BrazeSandbox, url: str, **config: Any) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "braze", "base_url": url, "api_key": "local-sandbox", "rate_limits": ["100000/1m"], **config,
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(user.external_id): user.flat() for user in self.sandbox.store.users.values()}

    def requests(self) -> int:
        return sum(item.records > 0 for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        self.sandbox.store.remove(self.sandbox.store.external[key])

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.3}, "silent": {"omit": 0.3, "shuffle": True}, "refuse": {"refuse_key": key},
            "poison": {"poison_key": key}, "reject_all": {"refuse_all": "The request is not taken"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestBraze(DestinationSuite):
    case = Case(object="users", identify="external_id", text="plan_tier", number="health_score")
    gaps: Mapping[str, str] = {
        "only_what_changed_is_sent": "a change costs two requests: the first asks whether the user is still there, "
        "since Braze would make one of the changed attributes alone (`check_existing: false` leaves it out)",
    }

    @pytest.fixture
    def remote(self) -> Iterator[BrazeRemote]:
        sandbox = BrazeSandbox(track=100_000)
        with serving(sandbox.app()) as url:
            yield BrazeRemote(sandbox, url)
