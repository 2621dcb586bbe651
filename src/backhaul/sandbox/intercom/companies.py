"""The endpoints of companies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.intercom.attributes import Refusal
from backhaul.sandbox.intercom.store import Item

if TYPE_CHECKING:
    from backhaul.sandbox.intercom.api import IntercomSandbox

Body = dict[str, Any]


def _live(account: IntercomSandbox, request: web.Request) -> Item:
    """The company that the path names. Raises: Refusal."""
    found = account.companies.live.get(request.match_info["id"])
    if found is None:
        raise Refusal(404, "company_not_found", "Company Not Found")
    return found


def upsert(account: IntercomSandbox, request: web.Request, body: Body) -> Body:
    key = body.get("company_id")
    if not isinstance(key, str) or not key:
        raise Refusal(400, "bad_request", "bad 'company_id' parameter")
    account.faulted(request, key)
    item = account.companies.held("company_id", key) or Item()
    account.companies.store(item, *account.companies.accepted(body))
    return account.shown(item)


def update(account: IntercomSandbox, request: web.Request, body: Body) -> Body:
    """A company_id is never changed (OpenAPI document: company_id)."""
    item = _live(account, request)
    account.faulted(request, str(item.values.get("company_id")))
    values, custom = account.companies.accepted(body)
    account.companies.store(item, {**values, "company_id": item.values["company_id"]}, custom)
    return account.shown(item)


def get(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    return account.whole(_live(account, request))


def find(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    """By company_id, by name, or a page of all; the document has a list, its words a single company."""
    key, name = request.query.get("company_id"), request.query.get("name")
    found = list(account.companies.live.values())
    if key is not None:
        item = account.companies.held("company_id", key)
        if item is None:
            raise Refusal(404, "company_not_found", "Company Not Found")
        if account.single_company:
            return account.whole(item)
        found = [item]
    found = [item for item in found if name in (None, item.values.get("name"))]
    pages = {"type": "pages", "page": 1, "per_page": len(found), "total_pages": 1}
    data = [account.whole(item) for item in found]
    return {"type": "list", "data": data, "total_count": len(found), "pages": pages}


def delete(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    item = _live(account, request)
    account.faulted(request, str(item.values.get("company_id")))
    account.companies.erase(item)
    return {"id": item.id, "object": "company", "deleted": True} if account.spoil([item]) else {}


ENDPOINTS = (
    ("POST", "/companies", upsert),
    ("GET", "/companies", find),
    ("GET", "/companies/{id}", get),
    ("PUT", "/companies/{id}", update),
    ("DELETE", "/companies/{id}", delete),
)
