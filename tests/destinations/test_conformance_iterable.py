from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.iterable import IterableSandbox
from backhaul.sandbox.kit import Faults
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class IterableRemote:
    """The simulated project, with wide limits: they have tests of their own."""

    def __init__(self, sandbox: IterableSandbox, url: str) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "iterable", "base_url": url, "api_key": "local-sandbox", "rate_limits": ["10000/10s"],
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(user.user_id): user.data for user in self.sandbox.project.users}

    def requests(self) -> int:
        return sum(item.method != "GET" for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        user = self.sandbox.project.find(None, key)
        assert user is not None
        self.sandbox.project.remove(user)

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5}, "reset_after": {"reset_after": 0.5},
            "silent": {"omit": 0.5}, "refuse": {"refuse_key": key}, "poison": {"poison_key": key},
            "reject_all": {"refuse_all": "BadParams"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestIterable(DestinationSuite):
    case = Case(object="users", identify="userId", text="plan", number="seats")

    @pytest.fixture
    def remote(self) -> Iterator[IterableRemote]:
        sandbox = IterableSandbox(by_email=False, bulk=10_000, deletes=10_000, reads=10_000)
        with serving(sandbox.app()) as url:
            yield IterableRemote(sandbox, url)
