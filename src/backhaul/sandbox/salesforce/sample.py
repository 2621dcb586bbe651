"""What the demo sends here."""

from __future__ import annotations

from backhaul.sandbox.kit import Sample

SAMPLE = Sample(
    type="salesforce", credentials={"client_id": "local-sandbox", "client_secret": "local-secret"}, object="Contact",
    identify={"External_Id__c": "contact_id"},
    fields={
        "FirstName": "first_name", "LastName": "last_name", "Email": "email", "Score__c": "round(health, 1)",
        "Description": "job_title", "Seen__c": "last_seen::timestamptz",
    },
)  # fmt: skip
