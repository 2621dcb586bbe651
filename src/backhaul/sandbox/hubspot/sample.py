"""What the demo sends here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backhaul.sandbox.kit import Sample

_PROPERTIES = {
    "plan_tier": ("enumeration", "select", ["FREE", "TEAM", "BUSINESS", "ENTERPRISE"]),
    "mrr": ("number", "number", []),
    "seats": ("number", "number", []),
    "health_score": ("number", "number", []),
    "churn_risk": ("number", "number", []),
    "last_seen": ("date", "date", []),
}
"""Custom contact properties: type, field type, options."""


def _property(name: str, kind: str, widget: str, options: Sequence[str]) -> dict[str, Any]:
    return {
        "name": name, "label": name, "type": kind, "fieldType": widget, "groupName": "contactinformation",
        "options": [{"label": option.title(), "value": option} for option in options],
    }  # fmt: skip


SAMPLE = Sample(
    type="hubspot", credentials={"access_token": "local-sandbox-token"}, object="contacts", identify={"email": "email"},
    fields={
        "firstname": "first_name", "lastname": "last_name", "jobtitle": "job_title", "plan_tier": "upper(plan)",
        "mrr": "mrr", "seats": "seats", "health_score": "round(health, 1)", "churn_risk": "churn_risk",
        "last_seen": "last_seen",
    },
    first=tuple(
        ("POST", "/crm/v3/properties/contacts", _property(name, *about)) for name, about in _PROPERTIES.items()
    ),
)  # fmt: skip
