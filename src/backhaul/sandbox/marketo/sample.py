"""What the demo sends here."""

from __future__ import annotations

from backhaul.sandbox.kit import Sample

SAMPLE = Sample(
    type="marketo", credentials={"client_id": "local-sandbox", "client_secret": "local-secret"}, object="leads",
    identify={"customerId": "contact_id"},
    fields={
        "email": "email", "firstName": "first_name", "lastName": "last_name", "title": "job_title", "plan": "plan",
        "seats": "seats", "mrr": "mrr", "health": "health",
    },
)  # fmt: skip
