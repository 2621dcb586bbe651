"""What the demo sends here."""

from __future__ import annotations

from backhaul.sandbox.kit import Sample

SAMPLE = Sample(
    type="iterable", credentials={"api_key": "local-sandbox-key"}, object="users", identify={"email": "email"},
    fields={
        "userId": "contact_id::varchar", "name": "concat(first_name, ' ', last_name)", "plan": "plan", "seats": "seats",
        "mrr": "mrr", "signupDate": "last_seen",
    },
)  # fmt: skip
