"""What the demo sends here, and the custom properties for it."""

from __future__ import annotations

from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.kit import Sample

PROPERTIES = (
    Property(
        "plan_tier", "enumeration", "select", options=("FREE", "TEAM", "BUSINESS", "ENTERPRISE"), own=False
    ),
    *(
        Property(name, "number", "number", own=False)
        for name in ("mrr", "seats", "health_score", "churn_risk")
    ),
    Property("last_seen", "date", "date", own=False),
)
"""Custom properties of contacts."""


SAMPLE = Sample(
    type="hubspot", credentials={"access_token": "local-sandbox-token"}, object="contacts", identify={"email": "email"},
    fields={
        "firstname": "first_name", "lastname": "last_name", "jobtitle": "job_title", "plan_tier": "upper(plan)",
        "mrr": "mrr", "seats": "seats", "health_score": "round(health, 1)", "churn_risk": "churn_risk",
        "last_seen": "last_seen",
    },
)  # fmt: skip
