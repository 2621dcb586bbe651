"""The simulated org's REST endpoints: collections of up to 200 records, describe, queries."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from backhaul.sandbox.kit import RECORDS
from backhaul.sandbox.salesforce.answers import Refusal, Whole, answer, success, written
from backhaul.sandbox.salesforce.field import FieldDef
from backhaul.sandbox.salesforce.soql import Query, parse
from backhaul.sandbox.salesforce.store import Record, SObject

if TYPE_CHECKING:
    from backhaul.sandbox.salesforce.api import SalesforceSandbox

Body = Mapping[str, Any]
MOST = 200
"""Records of a collection."""


def describe(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    kind = org.kind(request.match_info["object"])
    head = {
        "name": kind.name,
        "keyPrefix": kind.prefix,
        "createable": True,
        "updateable": True,
        "deletable": True,
    }
    return answer({**head, "fields": [item.describe() for item in kind.fields.values()]})


def limits(org: SalesforceSandbox, _: web.Request, __: Body) -> web.Response:
    return answer({"DailyApiRequests": {"Max": org.daily.count, "Remaining": org.daily.remaining}})


def query(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    place = 0
    if "locator" in request.match_info:
        text, place = org.locators[request.match_info["locator"]]
    else:
        text = request.query.get("q", "")
    asked = parse(text, org.kinds)
    every = asked.records()
    page = every[place : place + org.page_size]
    rows = [attributed(org, asked.kind, record) | _selected(org, asked, record) for record in page]
    body: dict[str, Any] = {"totalSize": len(every), "done": True, "records": rows}
    if place + org.page_size < len(every):
        locator = f"01gSb{len(org.locators)}-{place + org.page_size}"
        org.locators[locator] = (text, place + org.page_size)
        body |= {"done": False, "nextRecordsUrl": f"/services/data/{org.version}/query/{locator}"}
    return answer(body)


def _selected(org: SalesforceSandbox, asked: Query, record: Record) -> dict[str, Any]:
    """The fields of a query's record; those of a parent are nested."""
    values, found = record.shown(), dict[str, Any]()
    for name in asked.fields:
        target, _, path = name.rpartition(":")
        relationship, dot, inner = path.partition(".")
        if not dot:
            found[name] = values.get(name)
            continue
        reference = asked.kind.reference(relationship)
        parents = [(org.kind(one), values.get(reference.name)) for one in reference.targets]
        kind, parent = next(
            ((kind, held) for kind, own in parents if (held := kind.get(str(own)))), (None, None)
        )
        if kind is None or parent is None:
            found.setdefault(relationship, None)
            continue
        shown = {inner: parent.shown().get(inner)} if target in ("", kind.name) else {}
        found[relationship] = (found.get(relationship) or attributed(org, kind, parent)) | shown
    return found


def attributed(org: SalesforceSandbox, kind: SObject, record: Record) -> dict[str, Any]:
    url = f"/services/data/{org.version}/sobjects/{kind.name}/{record.id}"
    return {"attributes": {"type": kind.name, "url": url}}


def create_all(org: SalesforceSandbox, request: web.Request, body: Body) -> web.Response:
    def one(item: dict[str, Any]) -> dict[str, Any]:
        kind, values = _typed(org, item)
        return insert(org, kind, values, allow_save(request))

    return _collection(org, request, body, one)


def insert(org: SalesforceSandbox, kind: SObject, values: dict[str, Any], allow: bool) -> dict[str, Any]:
    """Raises: Refusal, Whole."""
    judge(org, values)
    values = resolved(org, kind, values)
    return success(kind.write(values, None, allow_save=allow).id)


def update_all(org: SalesforceSandbox, request: web.Request, body: Body) -> web.Response:
    def one(item: dict[str, Any]) -> dict[str, Any]:
        kind, values = _typed(org, item)
        record_id = values.pop("id", None) or values.pop("Id", None)
        if not record_id:
            raise Refusal("MISSING_ARGUMENT", "Id not specified in an update call", ["Id"])
        record = kind.at(str(record_id))
        judge(org, {**record.values, **values})
        values = resolved(org, kind, values)
        return success(kind.write(values, record, allow_save=allow_save(request)).id)

    return _collection(org, request, body, one)


def upsert_all(org: SalesforceSandbox, request: web.Request, body: Body) -> web.Response:
    kind, name = org.kind(request.match_info["object"]), request.match_info["field"]
    seen: set[str] = set()
    external(kind, name)

    def one(item: dict[str, Any]) -> dict[str, Any]:
        typed, values = _typed(org, item)
        if typed is not kind:
            raise Whole("INVALID_INPUT", f"The type of each record has to be {kind.name}")
        return upsert(org, kind, name, values, seen, allow_save(request))

    return _collection(org, request, body, one)


def external(kind: SObject, name: str) -> None:
    """Raises: Whole where records are not found by this field."""
    field = kind.fields.get(name)
    if field is None or not (field.external_id or field.id_lookup or field.type == "email"):
        words = f"Provided external ID field does not exist or is not accessible: {name}"
        raise Whole("NOT_FOUND", words, 404)


def upsert(
    org: SalesforceSandbox, kind: SObject, name: str, values: dict[str, Any], seen: set[str], allow: bool
) -> dict[str, Any]:
    """One record by its external id, which no other of the request may have. Raises: Refusal, Whole."""
    if any(key.lower() == "id" for key in values):
        raise Refusal("INVALID_FIELD", "The Id field should not be specified in the sobject data.")
    key = values.get(name)
    if key is None or key == "":
        raise Refusal("MISSING_ARGUMENT", f"{name} not specified", [name])
    folded = kind.fields[name].fold(kind.fields[name].accept(key))
    if folded in seen:
        raise Refusal("DUPLICATE_VALUE", f"Duplicate external id specified: {key}", [name])
    seen.add(folded)
    judge(org, values)
    found = kind.matching(name, key)
    if len(found) > 1:
        ids = ", ".join(record.id for record in found)
        words = f"Provided external ID {key} matches more than one record: {ids}"
        raise Refusal("DUPLICATE_EXTERNAL_ID", words, [name])
    record = kind.write(resolved(org, kind, values), found[0] if found else None, allow_save=allow)
    return success(record.id, created=not found)


def resolved(org: SalesforceSandbox, kind: SObject, values: Body) -> dict[str, Any]:
    """The values with the id of each parent that is named by an external id. Raises: Refusal, Whole."""
    names = {item.relationship: item for item in kind.fields.values() if item.relationship}
    found = {name: value for name, value in values.items() if name not in names}
    for relationship in names.keys() & values.keys():
        reference, given = names[relationship], values[relationship]
        if not isinstance(given, dict) or len(given.keys() - {"attributes"}) != 1:
            raise Whole("JSON_PARSER_ERROR", f"{relationship} is not a record with one external id")
        ((by, value),) = ((name, value) for name, value in given.items() if name != "attributes")
        parents = org.kind(_target(reference, given))
        external(parents, by)
        records = parents.matching(by, value) if value is not None else []
        if len(records) != 1:
            words = f"Foreign key external ID: {value} not found for field {by} in entity {parents.name}"
            raise Refusal("INVALID_FIELD", words)
        found[reference.name] = records[0].id
    return found


def _target(reference: FieldDef, given: Body) -> str:
    """The object that a parent is of: its attributes have to say it where there are several. Raises: Refusal."""
    attributes = given.get("attributes")
    named = str(attributes.get("type") or "") if isinstance(attributes, dict) else ""
    if (len(reference.targets) > 1 and not named) or (named and named not in reference.targets):
        words = f"The relationship {reference.relationship} needs attributes with a type of {', '.join(reference.targets)}"
        raise Refusal("INVALID_FIELD", words)
    return named or reference.targets[0]


def delete_all(org: SalesforceSandbox, request: web.Request, _: Body) -> web.Response:
    def one(item: dict[str, Any]) -> dict[str, Any]:
        kind = next((kind for kind in org.kinds.values() if item["id"].startswith(kind.prefix)), None)
        if kind is None:
            raise Refusal("MALFORMED_ID", f"malformed id {item['id']}")
        record = kind.at(item["id"])
        kind.remove(record)
        return success(record.id)

    ids = [{"id": one} for one in request.query.get("ids", "").split(",") if one]
    whole = {"records": ids, "allOrNone": request.query.get("allOrNone") == "true"}
    return _collection(org, request, whole, one)


def _collection(
    org: SalesforceSandbox, request: web.Request, body: Body, one: Callable[[dict[str, Any]], dict[str, Any]]
) -> web.Response:
    """One result a record, in the order of the request. What refuses the request as a whole leaves nothing of it."""
    records = written(body, "records")
    request[RECORDS] = len(records)
    if len(records) > MOST:
        words = f"record limit reached. cannot submit more than {MOST} records into this call"
        raise Whole("EXCEEDED_MAX_SIZE_REQUEST", words)
    before = snapshot(org) if body.get("allOrNone") else None
    _check(org, records)
    results = []
    for item in records:
        try:
            results.append(one(dict(item)))
        except Refusal as refusal:
            results.append(refusal.result())
    if before is not None and not all(result["success"] for result in results):
        roll_back(org, before)
        rolled = Refusal("ALL_OR_NONE_OPERATION_ROLLED_BACK", "Record rolled back because not all records were valid and the "
                         "request was using AllOrNone header")  # fmt: skip
        results = [rolled.result() if result["success"] else result for result in results]
    return answer(org.spoil(results))


Snapshot = dict[str, tuple[Any, Any, Any]]


def snapshot(org: SalesforceSandbox) -> Snapshot:
    """What the org holds now."""
    return copy.deepcopy(
        {name: (kind.records, kind.deleted, kind.indexes) for name, kind in org.kinds.items()}
    )


def roll_back(org: SalesforceSandbox, before: Snapshot) -> None:
    for name, kind in org.kinds.items():
        kind.records, kind.deleted, kind.indexes = before[name]


def _check(org: SalesforceSandbox, records: list[dict[str, Any]]) -> None:
    """What refuses the request before any record is looked at: an object or a field that is not there, a value of another
    type. Raises: Whole."""
    for item in records:
        if "attributes" not in item:
            continue
        kind, values = _typed(org, item)
        for name, value in values.items():
            if name.lower() == "id" or name in {known.relationship for known in kind.fields.values()}:
                continue
            field = kind.known(name)
            try:
                field.accept(value)
            except Refusal:
                continue
        if org.faults.poison_key and org.faults.poison_key in values.values():
            raise Whole("JSON_PARSER_ERROR", "Unexpected character in the request")


def _typed(org: SalesforceSandbox, item: dict[str, Any]) -> tuple[SObject, dict[str, Any]]:
    attributes = item.get("attributes")
    named = attributes.get("type") if isinstance(attributes, dict) else None
    if not named:
        raise Whole("INVALID_INPUT", "Object type must be specified under attributes in the record")
    return org.kind(str(named)), {name: value for name, value in item.items() if name != "attributes"}


def judge(org: SalesforceSandbox, values: Body) -> None:
    """A record that a switch refuses."""
    keys = [str(value) for name, value in values.items() if name.endswith("_Id__c") and value]
    if org.refuses(*keys):
        code = org.faults.refuse_code or "FIELD_CUSTOM_VALIDATION_EXCEPTION"
        raise Refusal(code, "Refused by a switch of the sandbox")


def allow_save(request: web.Request) -> bool:
    return "allowsave=true" in request.headers.get("Sforce-Duplicate-Rule-Header", "").lower().replace(
        " ", ""
    )
