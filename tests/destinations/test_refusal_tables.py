"""Every connector's table of codes: complete for what was recorded, and the one on its page."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from vendor_recordings import recordings

from backhaul.destinations.braze import answers as braze
from backhaul.destinations.kit import Answer, Destination, class_of
from backhaul.destinations.marketo.answers import classify as marketo
from backhaul.destinations.salesforce.answers import refusal
from backhaul.destinations.zendesk.answers import about
from backhaul.errors import Halt
from backhaul.types import RefusalClass, Rejected

DOCS = Path(__file__).parents[2] / "docs" / "destinations"
KINDS = {
    entry.name: entry
    for entry in entry_points(group="backhaul.destinations")
    if entry.value.startswith("backhaul.")
}
C = RefusalClass
MEANT = {
    "permanent": {C.RECORD, C.CONFLICT, C.REFERENCE, C.CONFIGURATION},
    "partial": {C.RECORD, C.CONFLICT, C.REFERENCE, C.CONFIGURATION},
    "retryable": {C.CONFLICT, C.TRANSIENT},
    "throttled": {C.TRANSIENT, C.CAPACITY},
    "auth": {C.CREDENTIAL},
}
"""What the recordings call a class."""


def kind(name: str) -> type[Destination[Any]]:
    found: type[Destination[Any]] = KINDS[name].load()
    return found


def codes_in(body: Any) -> Iterator[str]:
    """The codes of an answer, by the members that vendors name them with."""
    if isinstance(body, list):
        for item in body:
            yield from codes_in(item)
    elif isinstance(body, dict):
        for name in ("statusCode", "errorCode", "category", "code"):
            if isinstance(body.get(name), str):
                yield body[name]
        if body.get("ok") is False:
            yield str(body.get("error"))
        for name in ("errors", "reasons", "result", "body", "compositeResponse"):
            yield from codes_in(body.get(name))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_table_has_sources_and_every_code_with_advice(name: str) -> None:
    spec = kind(name).spec
    assert spec.sources
    found = {code: class_of(spec.refusals, code) for code in spec.fixes}
    assert [code for code, of in found.items() if of is None] == []


@pytest.mark.parametrize("name", sorted(KINDS))
def test_the_page_has_the_table(name: str) -> None:
    page = (DOCS / f"{name}.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    for code, of in kind(name).spec.refusals.items():
        assert any(f"`{code}`" in row and f"| {of} |" in row for row in rows), code


@pytest.mark.parametrize(
    "name", ["hubspot", "salesforce", "intercom", "iterable", "marketo", "slack", "braze", "zendesk"]
)
def test_every_recorded_code_has_an_acceptable_class(name: str) -> None:
    given = recordings(name)
    if not given:
        pytest.skip("the recordings are not beside the repository")
    table = kind(name).spec.refusals
    for item in given:
        if "success" in item["acceptable"] or (name == "braze" and item["response"]["status"] == 400):
            continue  # Braze's own words, and codes of endpoints that are not used
        for code in codes_in(item["response"]["body"]):
            allowed = set[RefusalClass]().union(*(MEANT[meaning] for meaning in item["acceptable"]))
            assert class_of(table, code) in allowed, (code, item["acceptable"])


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"postgres", "mysql", "sqlite"}))
def test_payment_is_capacity_everywhere(name: str) -> None:
    assert class_of(kind(name).spec.refusals, "402") in (C.CAPACITY, None)
    error = Destination.classify(None, Answer(402, {}, b"{}"))  # type: ignore[arg-type]
    assert getattr(error, "kind", None) is C.CAPACITY


def test_salesforce_tells_storage_and_missing_parents_from_bad_values() -> None:
    table = kind("salesforce").spec.refusals
    assert table["STORAGE_LIMIT_EXCEEDED"] is table["REQUEST_LIMIT_EXCEEDED"] is C.CAPACITY
    gone = refusal(
        "k", "INVALID_FIELD", "Foreign key external ID: 7 not found for field Ext__c in entity Account"
    )
    assert isinstance(gone, Rejected)
    assert gone.kind is C.REFERENCE


def test_zendesk_tells_taken_values_and_missing_organizations_by_its_words() -> None:
    assert about("Email: a@b.c is already being used by another user") is C.CONFLICT
    assert about("Organization: 12 does not exist") is C.REFERENCE
    assert about("Name: is too short") is None


@pytest.mark.parametrize(
    ("details", "kind"),
    [
        ({"organization": [{"description": "Organization cannot be blank", "error": "BlankValue"}]}, C.REFERENCE),
        ({"name": [{"description": "Name: x", "error": "DuplicateValue"}]}, C.CONFLICT),
        ({"name": [{"description": "Name: is too short"}]}, None),
        ("Email: x is already being used by another user", None),
    ],
)  # fmt: skip
def test_zendesk_s_details_say_what_its_words_leave_open(details: Any, kind: Any) -> None:
    assert about("", details) is kind


def test_braze_errors_without_an_array_or_in_plain_words_are_of_the_record_they_name() -> None:
    keys = ["ada", "bob", "carl"]

    def outcomes(*errors: Any) -> list[str]:
        import orjson

        body = {"message": "success", "attributes_processed": 2, "errors": list(errors)}
        return [item.key for item in braze.outcomes(Answer(201, {}, orjson.dumps(body)), "attributes", keys).items
                if isinstance(item, Rejected)]  # fmt: skip

    assert outcomes({"type": "'external_id' is required", "index": 1}) == ["bob"]
    assert outcomes("the object at index 2 is not valid") == ["carl"]
    assert outcomes("user ada has too many attributes") == ["ada"]
    assert outcomes({"type": "x", "input_array": "events", "index": 1}) == []
    assert outcomes("nobody knows") == []


def test_marketo_stops_at_a_wrong_content_type() -> None:
    body = b'{"requestId": "1", "success": false, "errors": [{"code": "612", "message": "Invalid Content Type"}]}'
    assert isinstance(marketo(Answer(200, {}, body)), Halt)


def test_a_table_knows_beginnings() -> None:
    table = {"23*": C.RECORD, "23505": C.CONFLICT}
    found = [class_of(table, code) for code in ("23505", "23502", "24000", "")]
    assert found == [C.CONFLICT, C.RECORD, None, None]
