"""`forget` deletes for good where the vendor can, and says what was done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import places
import pytest

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.intercom import IntercomSandbox
from backhaul.sandbox.kit import Sandbox
from backhaul.sandbox.salesforce import SalesforceSandbox
from backhaul.sandbox.zendesk import ZendeskSandbox
from backhaul.testing.serving import serving

TOKEN = {"access_token": "local-sandbox"}
APP = {"client_id": "app", "client_secret": "local-sandbox"}


def forgotten(
    folder: Path, sandbox: Sandbox, kind: str, keys: dict[str, Any], sync: dict[str, Any]
) -> tuple[str, list[str]]:
    """Delivers two records and forgets one: what is said of it, and the requests that were made for it."""
    with serving(sandbox.app()) as url:
        table = "SELECT i AS id, 'p' || i || '@example.com' AS email, 'k' || i AS ext, 'P ' || i AS name FROM range(2) x(i)"
        destination = {"type": kind, "base_url": url, **keys}
        with places.project(folder, destination, {"mode": "upsert", **sync}, table) as project:
            assert project.run("s").report.delivered == 2
            before = len(sandbox.requests)
            said = project.forget("s", "1")["destination"]
    asked = [f"{one.method} {one.path}" for one in list(sandbox.requests)[before:] if one.method != "GET"]
    return said, asked


def test_hubspot_deletes_a_contact_by_its_privacy_delete(tmp_path: Path) -> None:
    sandbox = HubSpotSandbox()
    sync = {"object": "contacts", "identify": {"email": "email"}, "fields": {"firstname": "name"}}
    said, asked = forgotten(tmp_path, sandbox, "hubspot", TOKEN, sync)
    assert said == "permanently deleted (HubSpot's privacy delete)"
    assert asked == ["POST /crm/objects/2026-09/contacts/gdpr-delete"] or asked == [
        "POST /crm/v3/objects/contacts/gdpr-delete"
    ]
    assert len(sandbox.privacy_deleted) == 1
    assert not sandbox.blocked
    assert len(sandbox.types["contacts"].records) == 1
    assert not sandbox.types["contacts"].archive


def test_hubspot_says_that_other_records_are_archived(tmp_path: Path) -> None:
    sandbox = HubSpotSandbox()
    sync = {"object": "2-1001", "identify": {"external_id": "ext"}, "fields": {"name": "name"}}
    said, asked = forgotten(tmp_path, sandbox, "hubspot", TOKEN, sync)
    assert said == "archived (HubSpot can restore it for 90 days)"
    assert [one.rpartition("/")[2] for one in asked] == ["archive"]


def test_zendesk_deletes_a_user_permanently(tmp_path: Path) -> None:
    sandbox = ZendeskSandbox()
    sync = {"object": "users", "identify": {"external_id": "ext"}, "fields": {"name": "name"}}
    said, asked = forgotten(tmp_path, sandbox, "zendesk", {**TOKEN, "poll_interval": "0.01s"}, sync)
    assert said == "permanently deleted"
    assert [one.rsplit("/", 1)[0] for one in asked] == [
        "DELETE /api/v2/users",
        "DELETE /api/v2/deleted_users",
    ]
    assert len(sandbox.rooms["users"].records) == 1


def test_intercom_deletes_a_contact_for_good_though_a_mirror_archives(tmp_path: Path) -> None:
    sandbox = IntercomSandbox()
    sync = {"object": "contacts", "identify": {"external_id": "ext"}, "fields": {"name": "name"}}
    said, asked = forgotten(tmp_path, sandbox, "intercom", TOKEN, sync)
    assert said == "permanently deleted"
    assert [one.split()[0] for one in asked] == ["DELETE"]


def test_salesforce_says_that_its_recycle_bin_keeps_the_record(tmp_path: Path) -> None:
    sandbox = SalesforceSandbox()
    sync = {"object": "Customer__c", "identify": {"External_Id__c": "ext"}, "fields": {"Plan__c": "name"}}
    said, _ = forgotten(tmp_path, sandbox, "salesforce", APP, sync)
    assert said == "deleted (Salesforce keeps it in the recycle bin for 15 days)"


@pytest.mark.parametrize("missing", [False, True])
async def test_an_e_mail_that_no_contact_has_is_never_given_to_the_privacy_delete(missing: bool) -> None:
    import hubspot_calls

    from backhaul.sandbox.kit import serve
    from backhaul.types import Delivered, Op

    sandbox = HubSpotSandbox()
    if not missing:
        sandbox.types["contacts"].create({"email": "ada@example.com"})
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        (item,) = (await crm.erase(hubspot_calls.batch(Op.DELETE, {"email": "ada@example.com"}))).items
    assert isinstance(item, Delivered)
    assert not sandbox.blocked
    assert len(sandbox.privacy_deleted) == (not missing)
