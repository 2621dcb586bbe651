"""HubSpot: contacts that were merged into others."""

from __future__ import annotations

from typing import Any

import hubspot_calls
from aiohttp import web

from backhaul.sandbox.hubspot import HubSpotSandbox
from backhaul.sandbox.kit import serve
from backhaul.types import Delivered, Op


async def test_a_contact_that_was_merged_away_is_delivered_under_the_id_it_has_now() -> None:
    sandbox = HubSpotSandbox()
    kind = sandbox.types["contacts"]
    ada, bob = (kind.create({"email": f"{name}@example.com"}) for name in ("ada", "bob"))
    kind.merge(ada, bob)
    rows = [hubspot_calls.person("bob", firstname="Bob"), hubspot_calls.person("cy", firstname="Cy")]
    cy = kind.create({"email": "cy@example.com"})
    async with serve(sandbox) as url, hubspot_calls.connected(url) as crm:
        found = await crm.write(hubspot_calls.batch(Op.UPDATE, *rows, remote_ids=[bob.id, cy.id]))
    assert hubspot_calls.by_key(found) == {
        "bob": Delivered("bob@Example.com", ada.id), "cy": Delivered("cy@Example.com", cy.id),
    }  # fmt: skip


async def test_results_that_name_nobody_are_given_out_only_where_one_record_is_left() -> None:
    def answer(body: dict[str, Any]) -> web.Response:
        return web.json_response({"status": "COMPLETE", "results": [{"id": "7"}, {"id": "8"}]})

    rows = [hubspot_calls.person("ada"), hubspot_calls.person("bob")]
    async with hubspot_calls.answering(answer) as crm:
        found = await crm.write(hubspot_calls.batch(Op.UPDATE, *rows, remote_ids=["1", "2"]))
    assert found.items == ()


async def test_a_merged_contact_is_known_by_its_other_e_mails_and_former_ids() -> None:
    def answer(body: dict[str, Any]) -> web.Response:
        results = [
            {"id": "9", "properties": {"hs_merged_object_ids": "1;4"}},
            {"id": "8", "properties": {"hs_merged_object_ids": "2"}},
        ]
        return web.json_response({"status": "COMPLETE", "results": results})

    rows = [hubspot_calls.person("ada"), hubspot_calls.person("bob")]
    async with hubspot_calls.answering(answer) as crm:
        found = await crm.write(hubspot_calls.batch(Op.UPDATE, *rows, remote_ids=["1", "2"]))
    assert hubspot_calls.by_key(found) == {
        "ada": Delivered("ada@Example.com", "9"), "bob": Delivered("bob@Example.com", "8"),
    }  # fmt: skip
