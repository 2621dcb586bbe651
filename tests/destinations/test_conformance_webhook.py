from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.sandbox.kit import Faults
from backhaul.sandbox.webhook import SECRET, WebhookSandbox
from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving


class WebhookRemote:
    """A receiver that checks signatures."""

    def __init__(self, sandbox: WebhookSandbox, url: str) -> None:
        self.sandbox = sandbox
        self.connection: Mapping[str, Any] = {
            "type": "webhook", "base_url": url, "path": "/hooks?from=backhaul", "secrets": ["${SIGNING_SECRET}"], "batch_size": 20,
            "idempotency_life": "1d",
        }  # fmt: skip

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.sandbox.held.get("contact", {})

    def requests(self) -> int:
        return len(self.sandbox.requests)

    def lose(self, key: str) -> None:
        del self.sandbox.held["contact"][key]

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"error": 1.0}, "throttle": {"throttle": 0.5, "retry_after": 0.05},
            "reset_after": {"reset_after": 0.5}, "silent": {"truncate": 0.5}, "refuse": {"refuse_key": key},
            "poison": {"poison_key": key}, "reject_all": {"refuse_all": "unwelcome"},
        }  # fmt: skip
        self.sandbox.faults = Faults(**switches[name])


class TestWebhook(DestinationSuite):
    case = Case(
        object="contact", identify="id", text="plan", number="seats", modes=("upsert", "mirror", "insert")
    )
    gaps: Mapping[str, str] = {
        "written_records_can_be_read_back": "a receiver of events cannot be read",
        "a_field_that_does_not_exist_is_named_before_anything_is_sent": "a receiver declares no fields",
    }

    @pytest.fixture
    def remote(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookRemote]:
        monkeypatch.setenv("SIGNING_SECRET", SECRET)
        sandbox = WebhookSandbox()
        with serving(sandbox.app()) as url:
            yield WebhookRemote(sandbox, url)
