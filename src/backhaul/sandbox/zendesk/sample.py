"""What the demo sends here."""

from __future__ import annotations

from backhaul.sandbox.kit import Sample

SAMPLE = Sample(
    type="zendesk", credentials={"access_token": "local-sandbox-token"}, object="users",
    identify={"external_id": "contact_id::varchar"},
    fields={
        "name": "concat(first_name, ' ', last_name)", "email": "email", "notes": "job_title",
        "user_fields.plan": "if(plan in ('free', 'enterprise'), plan, 'pro')", "user_fields.mrr": "mrr",
        "user_fields.renews_on": "last_seen",
    },
    rows=4_000,
)  # fmt: skip
