from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from backhaul.testing.conformance import Case, DestinationSuite
from backhaul.testing.serving import serving
from backhaul.testing.sink import Faults, Sink


class SinkRemote:
    """The package's own faulty batch API."""

    def __init__(self, sink: Sink, url: str) -> None:
        self.sink = sink
        answers = {"each": "results", "key": "id", "delivered": "status == 'ok'", "error": "error"}
        self.connection: Mapping[str, Any] = {
            "type": "http",
            "base_url": url,
            "idempotency_header": "Idempotency-Key",
            "objects": {
                "user": {
                    "key": "id",
                    "fields": ["id", "name", "score"],
                    "upsert": {
                        "request": "POST /upsert",
                        "batch_size": 100,
                        "body": {"records": "$records"},
                        "results": answers,
                    },
                    "insert": {
                        "request": "POST /insert",
                        "batch_size": 10,
                        "body": {"records": "$records"},
                        "results": answers,
                    },
                    "delete": {
                        "request": "POST /delete",
                        "batch_size": 100,
                        "body": {"ids": "$keys"},
                        "results": answers,
                    },
                    "read": {
                        "request": "POST /read",
                        "body": {"ids": "$keys"},
                        "each": "results",
                        "key": "id",
                    },
                }
            },
        }

    def records(self) -> Mapping[str, Mapping[str, Any]]:
        return self.sink.records

    def requests(self) -> int:
        return len(self.sink.seen)

    def lose(self, key: str) -> None:
        self.sink.records.pop(key)
        self.sink.creates.pop(key)

    def fault(self, name: str | None, key: str = "") -> None:
        switches: dict[str | None, dict[str, Any]] = {
            None: {}, "outage": {"status_500": 1.0}, "throttle": {"status_429": 0.5}, "reset_after": {"reset_after": 0.5},
            "silent": {"omit": 0.5}, "hollow": {"hollow": 1.0}, "refuse": {"refuse_key": key}, "poison": {"poison": key}, "reject_all": {"reject_all": "NO"}, "payment": {"payment": True},
        }  # fmt: skip
        self.sink.faults = Faults(**switches[name])


class TestHttp(DestinationSuite):
    case = Case(
        object="user", identify="id", text="name", number="score", modes=("upsert", "mirror", "insert")
    )

    @pytest.fixture
    def remote(self) -> Iterator[SinkRemote]:
        sink = Sink(honours_keys=True)
        with serving(sink.app()) as url:
            yield SinkRemote(sink, url)
        assert set(sink.creates.values()) <= {1}
