"""The HTTP destination: answers that list failures alone, and results by key."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from backhaul.destinations.http.config import Results
from backhaul.destinations.http.results import outcomes_of
from backhaul.destinations.kit import Answer
from backhaul.types import Delivered, Outcomes, Rejected

KEYS = ["1", "2", "3"]
MAP = {"each": "errors", "map": True, "error": "@", "unnamed": "delivered", "success": "stat == 'ok'"}
LIST = {"each": "failed", "key": "id", "error": "why", "unnamed": "delivered"}


def told(results: dict[str, Any], body: Any) -> dict[str, Any] | str:
    found = outcomes_of(Results(**results), Answer(200, {}, orjson.dumps(body)), KEYS)
    if found == Outcomes(everything=True):
        return "everything"
    return {
        item.key: item.message if isinstance(item, Rejected) else isinstance(item, Delivered)
        for item in found.items
    }


@pytest.mark.parametrize(
    ("results", "body", "expected"),
    [
        (MAP, {"stat": "fail", "errors": {"1": "invalid"}}, {"1": "invalid", "2": True, "3": True}),
        (MAP, {"stat": "ok"}, "everything"),
        (MAP, {"stat": "ok", "errors": {}}, "everything"),
        (MAP, {"stat": "fail"}, {}),
        (MAP, {}, {}),
        (MAP, {"errors": ["invalid"]}, {}),
        (MAP, {"stat": "fail", "errors": {"01": "of which?", "2": "bad"}}, {"2": "bad"}),
        (LIST, {"failed": [{"id": 2, "why": "no"}]}, {"1": True, "2": "no", "3": True}),
        (LIST, {"failed": []}, "everything"),
        (LIST, {"failed": [{"why": "of which?"}]}, {}),
        (LIST, {}, {}),
        ({"each": "results", "map": True, "delivered": "ok"}, {"results": {"1": {"ok": True}, "2": {"ok": False}}},
         {"1": True, "2": "the destination gave no reason"}),
    ],
)  # fmt: skip
def test_what_is_not_named_is_delivered_only_where_the_answer_is_sure(
    results: dict[str, Any], body: Any, expected: Any
) -> None:
    assert told(results, body) == expected


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"each": "errors", "key": "id"}, "results need `delivered`"),
        ({"each": "errors", "map": True, "key": "id", "delivered": "ok"}, "one of `key`, `index: true` and `map: true`"),
        ({"each": "errors", "index": True, "unnamed": "delivered"}, "leave out `unnamed`"),
    ],
)  # fmt: skip
def test_results_that_cannot_be_read_are_refused(results: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Results(**results)
