from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.iterable import IterableSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class IterableRemote(SandboxRemote[IterableSandbox]):
    """The simulated project, with wide limits: they have tests of their own."""

    refusal = "BadParams"

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(user.user_id): user.data for user in self.sandbox.project.users}

    def requests(self) -> int:
        return sum(item.method != "GET" for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        user = self.sandbox.project.find(None, key)
        assert user is not None
        self.sandbox.project.remove(user)


class TestIterable(DestinationSuite):
    case = Case(object="users", identify="userId", text="plan", number="seats")

    @pytest.fixture
    def remote(self) -> Iterator[IterableRemote]:
        sandbox = IterableSandbox(by_email=False, bulk=10_000, deletes=10_000, reads=10_000)
        with serving(sandbox.app()) as url:
            yield IterableRemote(
                sandbox,
                type="iterable",
                base_url=url,
                api_key="local-sandbox",
                rate_limits=["10000/10s"],
                read_lag="1ms",
            )
