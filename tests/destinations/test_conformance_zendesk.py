from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.zendesk import ZendeskSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class ZendeskRemote(SandboxRemote[ZendeskSandbox]):
    """The simulated account, with wide limits: they have tests of their own."""

    refusal = "InvalidValue"
    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "reset_after": {"reset_after": 0.3},
        "silent": {"omit": 0.3, "shuffle": True},
    }

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        room = self.sandbox.rooms["users"]
        return {str(record.values["external_id"]): room.flat(record) for record in room.live()}

    def lose(self, key: str) -> None:
        room = self.sandbox.rooms["users"]
        record = room.held("external_id", key)
        assert record is not None
        room.remove(record)


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
            yield ZendeskRemote(
                sandbox,
                type="zendesk",
                base_url=url,
                access_token="local-sandbox",
                rate_limits=["100000/1m"],
                poll_interval="0.02s",
            )
