from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.slack import SlackSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving

CHANNEL = "C04KB5X4D"
TWICE = "Slack cannot tell whether a message was posted before: one whose answer was lost is shown to a person, and not posted again"


class SlackRemote(SandboxRemote[SlackSandbox]):
    """The simulated workspace, with wide limits. A message goes by the name that it is posted under."""

    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {"silent": {"truncate": 0.5}}

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return {message["username"]: message for message in self.sandbox.channels[CHANNEL].messages.values()}

    def requests(self) -> int:
        return sum(item.path.endswith("chat.postMessage") for item in self.sandbox.requests)

    def lose(self, key: str) -> None:
        raise NotImplementedError("messages are only added")

    def fault(self, name: str | None, key: str = "") -> None:
        super().fault("refuse" if name == "poison" else name, key)


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
            yield SlackRemote(sandbox, type="slack", base_url=url, token="sandbox", rate_limits=["100000/1s"])
