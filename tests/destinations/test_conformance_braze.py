from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.braze import BrazeSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class BrazeRemote(SandboxRemote[BrazeSandbox]):
    """The simulated workspace, with wide limits: they have tests of their own."""

    refusal = "The request is not taken"
    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reset_after": {"reset_after": 0.3},
        "silent": {"omit": 0.3, "shuffle": True},
    }

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {str(user.external_id): user.flat() for user in self.sandbox.store.users.values()}

    def lose(self, key: str) -> None:
        self.sandbox.store.remove(self.sandbox.store.external[key])


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
            yield BrazeRemote(
                sandbox,
                type="braze",
                base_url=url,
                api_key="local-sandbox",
                rate_limits=["100000/1m"],
                read_lag="1ms",
            )
