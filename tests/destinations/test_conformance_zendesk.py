from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.zendesk import ZendeskSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class ZendeskRemote:
    """The simulated account, with wide limits: they have tests of their own."""

    def __init__(self, sandbox: ZendeskSandbox, url: str, **config: Any) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "zendesk", "base_url": url, "access_token": "local-sandbox", "rate_limits": ["100000/1m"],
            "poll_interval": "0.02s", **config,
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        room = self.sandbox.rooms["users"]
        return {str(record.values["external_id"]): room.flat(record) for record in room.live()}

    def requests(self) -> int:
        return sum(item.records > 0 for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        room = self.sandbox.rooms["users"]
        record = room.held("external_id", key)
        assert record is not None
        room.remove(record)

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.3}, "silent": {"omit": 0.3, "shuffle": True}, "refuse": {"refuse_key": key},
            "poison": {"poison_key": key}, "reject_all": {"refuse_all": "InvalidValue"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestZendesk(DestinationSuite):
    case = Case(
        object="users",
        identify="external_id",
        text="notes",
        number="user_fields.mrr",
        also={"name": "'Ada'"},
    )

    @pytest.fixture
    def remote(self) -> Iterator[ZendeskRemote]:
        sandbox = ZendeskSandbox(minute=100_000)
        with serving(sandbox.app()) as url:
            yield ZendeskRemote(sandbox, url)
