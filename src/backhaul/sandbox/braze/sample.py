"""What the demo sends here."""

from __future__ import annotations

from backhaul.sandbox.kit import Sample

SAMPLE = Sample(
    type="braze", credentials={"api_key": "local-sandbox-key"}, object="users", identify={"external_id": "contact_id"},
    fields={
        "email": "email", "first_name": "first_name", "last_name": "last_name", "plan_tier": "plan",
        "health_score": "health", "renews_at": "last_seen::timestamptz", "logins": "seats",
    },
)  # fmt: skip
