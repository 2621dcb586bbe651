"""What the demo sends here."""

from __future__ import annotations

from backhaul.sandbox.kit import Sample

SAMPLE = Sample(
    type="intercom", credentials={"access_token": "local-sandbox-token"}, object="contacts",
    identify={"external_id": "contact_id::varchar"},
    fields={
        "email": "email", "name": "concat(first_name, ' ', last_name)", "custom_attributes.plan_tier": "plan",
        "custom_attributes.health_score": "health", "last_seen_at": "last_seen::timestamptz",
    },
    rows=2_000,
)  # fmt: skip
