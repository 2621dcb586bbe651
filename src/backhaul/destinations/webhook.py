"""Signed webhooks: every change is an event, posted to an address of yours.

The form is that of the Standard Webhooks specification 1.0.0 (github.com/standard-webhooks/standard-webhooks): the headers
`webhook-id`, `webhook-timestamp` and `webhook-signature`, and bodies of `type`, `timestamp` and `data`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import BeforeValidator
from pydantic import Field as Setting

from backhaul.destinations.kit import (
    HTTP_REFUSALS,
    Answer,
    Batch,
    Destination,
    DestinationConfig,
    Http,
    Secret,
    Spec,
    classify_status,
)
from backhaul.errors import BackhaulError, Halt
from backhaul.types import COMMON_OPS, BatchLimits, ObjectSchema, Op, Outcomes, RefusalClass
from backhaul.values import Duration

_PREFIX = "whsec_"
_KEY_BYTES = (24, 64)
"""What the specification asks of a symmetric key."""
_LARGEST = 1_000_000
_HAPPENED = {Op.UPSERT: "upserted", Op.INSERT: "created", Op.UPDATE: "updated", Op.DELETE: "deleted"}


def _several(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


def _key(secret: Secret) -> bytes:
    """Raises: Halt: that is no signing secret."""
    try:
        key = base64.b64decode(secret.get_secret_value().removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not _KEY_BYTES[0] <= len(key) <= _KEY_BYTES[1]:
        raise Halt(
            "a signing secret is whsec_ and 24 to 64 bytes in base64",
            hint='make one with `echo "whsec_$(openssl rand -base64 32)"`, and give it to the receiver too',
        )
    return key


class WebhookConfig(DestinationConfig):
    """The keys of `type: webhook`."""

    base_url: str
    """The receiver's scheme and host."""
    path: str = Setting(default="/", pattern=r"^/")
    """Where it takes events."""
    secrets: Annotated[tuple[Secret, ...], BeforeValidator(_several)] = Setting(min_length=1)
    """A signing secret, `whsec_…`, or a list: each of them signs, so that the receiver can go over from one to the next."""
    batch_size: int = Setting(default=1, ge=1, le=10_000)
    """Records in one event. With 1 `data` is the record, with more a list of records."""
    headers: Mapping[str, Secret] = Setting(default_factory=dict)
    """More headers of every request."""
    idempotency_life: Duration | None = None
    """For how long the receiver knows a `webhook-id` again. Unset: a create that got no answer is not sent again by itself."""


class Webhook(Destination[WebhookConfig]):
    """One receiver. An object is the first part of the type of its events: `contact.upserted`, `contact.deleted`."""

    spec: ClassVar[Spec] = Spec(
        name="webhook",
        config=WebhookConfig,
        docs="Signed events (Standard Webhooks) to an address of yours; any object.",
        batch={op: BatchLimits(bytes=_LARGEST) for op in COMMON_OPS},
        concurrency=4,
        describes_offline=True,
        nulls="null is sent as JSON null.",
        unlisted=RefusalClass.RECORD,
        refusals=HTTP_REFUSALS,
        sources="RFC 9110; Standard Webhooks",
        fixes={
            "413": "this record alone is larger than the receiver takes: shorten its longest field in the model"
        },
    )

    def __init__(self, config: WebhookConfig, http: Http) -> None:
        super().__init__(config, http)
        self.base_url = config.base_url
        self._keys: list[bytes] = []

    async def open(self) -> None:
        self._keys = [_key(secret) for secret in self.config.secrets]

    @property
    def idempotency_life(self) -> float | None:
        return None if self.config.idempotency_life is None else float(self.config.idempotency_life)

    def batch_limits(self, object: str, op: Op, rows: int = 0) -> BatchLimits:
        return BatchLimits(self.config.batch_size, _LARGEST)

    async def describe(self, object: str) -> ObjectSchema:
        return ObjectSchema(object, {}, open=True)

    def describe_delete(self, object: str, *, erase: bool = False) -> str:
        return "told that the record is deleted"

    async def write(self, batch: Batch) -> Outcomes:
        now = time.time()
        data = batch.text() if self.config.batch_size == 1 else b"[" + batch.text() + b"]"
        body = orjson.dumps({
            "type": f"{batch.object}.{_HAPPENED[batch.op]}",
            "timestamp": datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            "data": orjson.Fragment(data),
        })  # fmt: skip
        await self.http.request(
            "POST", self.config.path, body=body, headers=self._signed(batch.idempotency_key, int(now), body)
        )
        return Outcomes(everything=True)

    def _signed(self, event: str, now: int, body: bytes) -> Mapping[str, str]:
        signed = f"{event}.{now}.".encode() + body
        marks = (base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in self._keys)
        return {
            **{name: value.get_secret_value() for name, value in self.config.headers.items()},
            "webhook-id": event, "webhook-timestamp": str(now), "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
        }  # fmt: skip

    def classify(self, answer: Answer) -> BackhaulError | None:
        """Any 2xx is a yes, and its body is nobody's business; 410 is a receiver that wants no more (specification,
        "Operational considerations")."""
        if answer.status == 410:
            return Halt(
                "the receiver is gone (HTTP 410)",
                hint="take the destination out, or mend `base_url` and `path`",
            )
        return classify_status(answer)
