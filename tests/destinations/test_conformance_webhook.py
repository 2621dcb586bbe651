from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from backhaul.sandbox.webhook import SECRET, WebhookSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.remote import SandboxRemote
from backhaul.testing.serving import serving


class WebhookRemote(SandboxRemote[WebhookSandbox]):
    """A receiver that checks signatures."""

    switches: ClassVar[Mapping[str, Mapping[str, Any]]] = {"silent": {"truncate": 0.5}}

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.sandbox.held.get("contact", {})

    def requests(self) -> int:
        return len(self.sandbox.requests)

    def lose(self, key: str) -> None:
        del self.sandbox.held["contact"][key]


class TestWebhook(DestinationSuite):
    case = Case(
        object="contact", identify="id", text="plan", number="seats", modes=("upsert", "mirror", "insert")
    )
    gaps: Mapping[str, str] = {
        "an_answer_that_names_nobody_delivers_nobody": "a receiver says with its status alone that it took an event",
        "written_records_can_be_read_back": "a receiver of events cannot be read",
        "a_field_that_does_not_exist_is_named_before_anything_is_sent": "a receiver declares no fields",
    }

    @pytest.fixture
    def remote(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookRemote]:
        monkeypatch.setenv("SIGNING_SECRET", SECRET)
        sandbox = WebhookSandbox()
        with serving(sandbox.app()) as url:
            yield WebhookRemote(
                sandbox,
                type="webhook",
                base_url=url,
                path="/hooks?from=backhaul",
                secrets=["${SIGNING_SECRET}"],
                batch_size=20,
                idempotency_life="1d",
            )
