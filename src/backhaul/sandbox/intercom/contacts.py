"""The endpoints of contacts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.intercom.attributes import Refusal
from backhaul.sandbox.intercom.store import Item

if TYPE_CHECKING:
    from backhaul.sandbox.intercom.api import IntercomSandbox

Body = dict[str, Any]
_FILTERS, _PAGE = 15, 150


def _live(account: IntercomSandbox, request: web.Request) -> Item:
    """The contact that the path names. Raises: Refusal."""
    found = account.contacts.live.get(request.match_info["id"])
    if found is None:
        raise Refusal(404, "not_found", "User Not Found")
    return found


def _checked(account: IntercomSandbox, body: Body, item: Item | None) -> tuple[Body, Body]:
    """Raises: Refusal."""
    values, custom = account.contacts.accepted(body)
    if values.get("role") not in (None, "user", "lead"):
        raise Refusal(400, "parameter_invalid", "role must be either user or lead", "role")
    if "email_verified" in body and not body.get("email"):
        raise Refusal(400, "parameter_invalid", "email_verified needs an email", "email_verified")
    if values.get("email") and "@" not in values["email"]:
        raise Refusal(400, "parameter_invalid", "Invalid email address", "email")
    lead = (values.get("role") or (item.values.get("role") if item else None)) == "lead"
    for name in ("external_id",) if lead or not account.unique_emails else ("external_id", "email"):
        other = account.contacts.held(name, values.get(name))
        if (
            other is not None
            and other is not item
            and (name != "email" or other.values.get("role") != "lead")
        ):
            kind = "An archived" if other.id in account.contacts.archived else "A"
            said = f"{kind} contact matching those details already exists with id={other.id}"
            raise Refusal(409, "conflict", said)
    return values, custom


def create(account: IntercomSandbox, request: web.Request, body: Body) -> Body:
    account.faulted(request, str(body.get("external_id") or ""), str(body.get("email") or ""))
    if not any(body.get(name) for name in ("email", "external_id", "role")):
        raise Refusal(400, "parameter_invalid", "one of email, external_id or role is required")
    values, custom = _checked(account, body, None)
    item = Item()
    account.contacts.store(item, {"role": "user", **values}, custom)
    return account.shown(item)


def update(account: IntercomSandbox, request: web.Request, body: Body) -> Body:
    item = _live(account, request)
    account.faulted(request, str(item.values.get("external_id") or ""), str(item.values.get("email") or ""))
    if body.get("role") == "lead" and item.values.get("role") == "user":
        raise Refusal(400, "client_error", "Contact with user role can't be converted to a lead")
    account.contacts.store(item, *_checked(account, body, item))
    return account.shown(item)


def get(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    return account.whole(_live(account, request))


def by_external_id(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    """Users; leads it does not find (OpenAPI)."""
    found = account.contacts.held("external_id", request.match_info["external_id"])
    if found is None or found.id not in account.contacts.live or found.values.get("role") == "lead":
        raise Refusal(404, "not_found", "User Not Found")
    return account.whole(found)


def _reference(item: Item) -> Body:
    return {"type": "contact", "id": item.id, "external_id": item.values.get("external_id")}


def delete(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    item = _live(account, request)
    account.faulted(request, str(item.values.get("external_id") or ""))
    account.contacts.erase(item)
    return {**_reference(item), "deleted": True} if account.spoil([item]) else {}


def archive(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    item = _live(account, request)
    account.faulted(request, str(item.values.get("external_id") or ""))
    account.contacts.archived[item.id] = account.contacts.live.pop(item.id)
    return {**_reference(item), "archived": True} if account.spoil([item]) else {}


def unarchive(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    room, key = account.contacts, request.match_info["id"]
    if key in room.erased:
        said = "User has been marked for permanent deletion and is not restorable."
        raise Refusal(account.unrestorable, "client_error", said)
    item = room.archived.pop(key, None) or _live(account, request)
    room.live[item.id] = item
    return {**_reference(item), "archived": False}


def page(account: IntercomSandbox, request: web.Request, _: Body) -> Body:
    number = max(int(request.query.get("page", 1)), 1)
    return _paged(account, list(account.contacts.live.values()), request.query.get("per_page", 50), number)


def _paged(account: IntercomSandbox, found: list[Item], size: Any, number: int) -> Body:
    per = min(int(size), _PAGE)
    shown = found[(number - 1) * per : number * per]
    pages = {"type": "pages", "page": number, "per_page": per, "total_pages": -(-len(found) // per)}
    return {
        "type": "list",
        "data": [account.whole(item) for item in shown],
        "total_count": len(found),
        "pages": pages,
    }


def search(account: IntercomSandbox, _: web.Request, body: Body) -> Body:
    """Over an index that lags behind the contacts by the switch `lag`: it lacks new ones, and has others as they were."""
    before = time.monotonic() - account.faults.lag
    query = body["query"]
    indexed = (item if item.changed <= before else item.before for item in account.contacts.live.values())
    found = [item for item in indexed if item is not None and _matches(item, query, depth=0)]
    return _paged(account, found, (body.get("pagination") or {}).get("per_page", 50), 1)


def _matches(item: Item, query: Mapping[str, Any], depth: int) -> bool:
    operator, value = query["operator"], query["value"]
    if operator in ("AND", "OR"):
        if depth > 1 or not isinstance(value, list) or len(value) > _FILTERS:
            raise Refusal(400, "parameter_invalid", "too many filters, or nested too deep", "query")
        each = [_matches(item, inner, depth + 1) for inner in value]
        return all(each) if operator == "AND" else any(each)
    held = item.flat().get(query["field"])
    texts = [str(one).lower() for one in (value if isinstance(value, list) else [value])]
    if operator not in ("=", "!=", "IN", "NIN"):
        raise Refusal(400, "parameter_invalid", f"{operator} is not an operator of this field", "query")
    return (held is not None and str(held).lower() in texts) is (operator in ("=", "IN"))


def attach(account: IntercomSandbox, request: web.Request, body: Body) -> Body:
    item = _live(account, request)
    company = account.companies.live.get(str(body.get("id")))
    if company is None:
        raise Refusal(404, "company_not_found", "Company Not Found")
    item.companies = [*dict.fromkeys([*item.companies, company.id])]
    return account.whole(company)


ENDPOINTS = (
    ("POST", "/contacts", create),
    ("GET", "/contacts", page),
    ("POST", "/contacts/search", search),
    ("GET", "/contacts/find_by_external_id/{external_id}", by_external_id),
    ("GET", "/contacts/{id}", get),
    ("PUT", "/contacts/{id}", update),
    ("DELETE", "/contacts/{id}", delete),
    ("POST", "/contacts/{id}/archive", archive),
    ("POST", "/contacts/{id}/unarchive", unarchive),
    ("POST", "/contacts/{id}/companies", attach),
)
