"""The simulated org's endpoints of single records, by their own id or an external one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.salesforce.answers import Whole, answer, not_found, success
from backhaul.sandbox.salesforce.rest import allow_save, attributed, external, judge, resolved
from backhaul.sandbox.salesforce.store import Record, SObject

if TYPE_CHECKING:
    from backhaul.sandbox.salesforce.api import SalesforceSandbox

Body = Mapping[str, Any]


def create(org: SalesforceSandbox, request: web.Request, body: Body) -> web.Response:
    kind = org.kind(request.match_info["object"])
    judge(org, body)
    return answer(
        success(kind.write(resolved(org, kind, body), None, allow_save=allow_save(request)).id), 201
    )


def _single(org: SalesforceSandbox, request: web.Request) -> tuple[SObject, Record | None]:
    """The record that a path names, by its id or an external id. Raises: Whole; 300 where there are several."""
    kind, name = org.kind(request.match_info["object"]), request.match_info.get("field", "Id")
    value = request.match_info["id"]
    if name == "Id":
        found = kind.get(value)
        return kind, found
    external(kind, name)
    records = kind.matching(name, value)
    if len(records) > 1:
        raise Several(
            [f"/services/data/{org.version}/sobjects/{kind.name}/{record.id}" for record in records]
        )
    return kind, records[0] if records else None


class Several(Exception):
    """A single record was meant, and several have the external id."""

    def __init__(self, urls: list[str]) -> None:
        super().__init__()
        self.urls = urls


def get(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    kind, record = _single(org, request)
    if record is None:
        raise not_found()
    names = [name for name in request.query.get("fields", "").split(",") if name] or list(kind.fields)
    values = record.shown()
    return answer(attributed(org, kind, record) | {kind.known(name).name: values.get(name) for name in names})


def patch(org: SalesforceSandbox, request: web.Request, body: Body) -> web.Response:
    """An update by id, or an upsert by external id, which the body must not repeat."""
    kind, record = _single(org, request)
    name = request.match_info.get("field", "Id")
    if "Id" in body or name in body:
        raise Whole("INVALID_FIELD", f"The {name} field should not be specified in the sobject data.")
    if name == "Id":
        if record is None:
            raise not_found()
        kind.write(resolved(org, kind, body), record, allow_save=allow_save(request))
        return web.Response(status=204)
    if record is None and request.query.get("updateOnly") == "true":
        raise not_found()
    values = {**body, name: request.match_info["id"]}
    made = kind.write(resolved(org, kind, values), record, allow_save=allow_save(request))
    return answer(success(made.id, created=record is None), 201 if record is None else 200)


def delete(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    kind, record = _single(org, request)
    if record is None:
        raise not_found()
    kind.remove(record)
    return web.Response(status=204)
