"""The endpoints of one record, of a page of records, and search."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from aiohttp import web

from backhaul.sandbox.hubspot.answers import Refusal, answer, not_found
from backhaul.sandbox.hubspot.batch import created
from backhaul.sandbox.hubspot.call import Call
from backhaul.sandbox.hubspot.store import Record

_LARGEST_PAGE, _LARGEST_SEARCH = 100, 200


def get(call: Call) -> web.Response:
    record = call.record()
    if record is None:
        return not_found()
    return answer(record.json(call.shown(record, _asked(call), call.id_property)))


def patch(call: Call) -> web.Response:
    record = call.record()
    if record is None:
        raise Refusal("OBJECT_NOT_FOUND", "resource not found")
    properties = call.texts(call.body.get("properties"))
    if not properties:
        raise Refusal("VALIDATION_ERROR", "No properties found to update, please provide at least one.")
    call.kind.update(record, properties)
    return answer(record.json(call.written(record, properties)))


def post(call: Call) -> web.Response:
    properties = call.texts(call.body.get("properties"))
    record = created(call, properties)
    return answer(record.json(call.written(record, properties)), 201)


def merge(call: Call) -> web.Response:
    """Two contacts become one (OpenAPI document: CRM objects, PublicMergeInput)."""
    primary = call.kind.find(None, str(call.body["primaryObjectId"]))
    other = call.kind.find(None, str(call.body["objectIdToMerge"]))
    if primary is None or other is None or primary is other:
        raise Refusal("VALIDATION_ERROR", "Both records of a merge have to exist, and to be two")
    call.kind.merge(primary, other)
    return answer(primary.json(call.shown(primary, None)))


def gdpr_delete(call: Call) -> web.Response:
    """Deletes a contact for ever; of an e-mail that nobody has, keeps it from ever being made."""
    value, name = str(call.body["objectId"]), call.body.get("idProperty")
    record = call.kind.find(name, value)
    if record is not None:
        call.kind.remove(record)
        del call.kind.archive[record.id]
        call.account.privacy_deleted.append(record.id)
    else:
        call.account.blocked.add(value)
    return web.Response(status=204)


def delete(call: Call) -> web.Response:
    """204 whatever was there."""
    record = call.record()
    if record is not None:
        call.kind.remove(record)
    return web.Response(status=204)


def page(call: Call) -> web.Response:
    """Records in the order of their ids; `after` is the id of the last one seen."""
    limit = _limit(call.request.query.get("limit", 10), _LARGEST_PAGE)
    after = int(call.request.query.get("after") or 0)
    ids = sorted(number for number in map(int, call.kind.records) if number > after)
    chosen = [call.kind.records[str(number)] for number in ids[:limit]]
    body: dict[str, Any] = {"results": [record.json(call.shown(record, _asked(call))) for record in chosen]}
    if len(ids) > limit:
        body["paging"] = {"next": {"after": chosen[-1].id, "link": f"?after={chosen[-1].id}"}}
    return answer(body)


def search(call: Call) -> web.Response:
    """Over an index that lags behind the records by the switch `lag`: a younger change hides its record."""
    groups = call.body.get("filterGroups") or [{"filters": call.body.get("filters") or []}]
    limit, after = _limit(call.body.get("limit", 10), _LARGEST_SEARCH), int(call.body.get("after") or 0)
    before = time.monotonic() - call.account.faults.lag
    found = [
        record
        for record in call.kind.records.values()
        if record.changed <= before
        and any(all(_matches(record, item) for item in group["filters"]) for group in groups)
    ]
    for sort in reversed(call.body.get("sorts") or []):
        name = sort["propertyName"]
        found.sort(
            key=lambda record: _order(record.values().get(name)),
            reverse=sort.get("direction") == "DESCENDING",
        )
    shown = found[after : after + limit]
    results = [record.json(call.shown(record, call.body.get("properties"))) for record in shown]
    body: dict[str, Any] = {"total": len(found), "results": results}
    if after + limit < len(found):
        body["paging"] = {"next": {"after": str(after + limit)}}
    return answer(body)


def _asked(call: Call) -> list[str]:
    return [name for value in call.request.query.getall("properties", []) for name in value.split(",")]


def _limit(value: Any, most: int) -> int:
    if not str(value).isdigit() or not 0 < int(value) <= most:
        raise Refusal("VALIDATION_ERROR", f"limit is {value}; it takes 1 to {most}")
    return int(value)


def _order(value: str | None) -> tuple[bool, Decimal, str]:
    """A value's place: numbers before texts."""
    try:
        return False, Decimal(value or ""), ""
    except InvalidOperation:
        return True, Decimal(0), value or ""


_COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "LT": lambda one, other: one < other,
    "LTE": lambda one, other: one <= other,
    "GT": lambda one, other: one > other,
    "GTE": lambda one, other: one >= other,
}


def _lower(values: Sequence[Any]) -> list[str]:
    return [str(value).lower() for value in values]


def _matches(record: Record, item: Mapping[str, Any]) -> bool:
    """Raises: Refusal at an operator that does not exist."""
    held, operator = record.values().get(item["propertyName"]) or None, str(item["operator"])
    if operator in ("HAS_PROPERTY", "NOT_HAS_PROPERTY"):
        return bool(held) is (operator == "HAS_PROPERTY")
    if operator in ("IN", "NOT_IN"):
        return held is not None and (held.lower() in [str(one).lower() for one in item["values"]]) == (
            operator == "IN"
        )
    value = str(item.get("value", ""))
    if operator in ("EQ", "NEQ"):
        return (held is not None and held.lower() == value.lower()) == (operator == "EQ")
    if operator in ("CONTAINS_TOKEN", "NOT_CONTAINS_TOKEN"):
        return (held is not None and value.strip("*").lower() in held.lower()) == (
            operator == "CONTAINS_TOKEN"
        )
    if operator in _COMPARISONS:
        return held is not None and _COMPARISONS[operator](_order(held), _order(value))
    if operator == "BETWEEN":
        return held is not None and _order(value) <= _order(held) <= _order(str(item["highValue"]))
    raise Refusal("VALIDATION_ERROR", f"{operator} is not an operator of search")
