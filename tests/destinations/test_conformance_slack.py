from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.slack import SlackSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving

CHANNEL = "C04KB5X4D"
TWICE = "Slack cannot tell whether a message was posted before: one whose answer was lost is shown to a person, and not posted again"


class SlackRemote:
    """The simulated workspace, with wide limits. A message goes by the name that it is posted under."""

    def __init__(self, sandbox: SlackSandbox, url: str) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "slack", "base_url": url, "token": "sandbox", "rate_limits": ["100000/1s"],
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {message["username"]: message for message in self.sandbox.channels[CHANNEL].messages.values()}

    def requests(self) -> int:
        return sum(item.path.endswith("chat.postMessage") for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        raise NotImplementedError("messages are only added")

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.5}, "silent": {"truncate": 0.5}, "refuse": {"refuse_key": key},
            "poison": {"refuse_key": key}, "reject_all": {"refuse_all": "unwelcome"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestSlack(DestinationSuite):
    case = Case(
        object=f"channels/{CHANNEL}",
        identify="id",
        text="text",
        number="icon_emoji",
        modes=("insert",),
        also={"username": "k"},
    )
    gaps: Mapping[str, str] = {
        "written_records_can_be_read_back": "messages are not read back",
        "creates_in_doubt_make_one_record_each": TWICE,
        "an_outage_rejects_nobody": TWICE,
    }

    @pytest.fixture
    def remote(self) -> Iterator[SlackRemote]:
        sandbox = SlackSandbox(per_second=100_000)
        with serving(sandbox.app()) as url:
            yield SlackRemote(sandbox, url)
