"""Records that are applied together or not at all: several collections in one composite request, which is one call.

From Salesforce's REST API guide (Composite, its subrequests, and allOrNone in composite and collections requests) and a recorded
answer; how many collections a composite takes is from issue threads of client libraries.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backhaul.destinations.kit import Answer
from backhaul.destinations.salesforce.answers import BUSY, each, refused, whole
from backhaul.errors import Unsettled
from backhaul.types import BatchLimits, Op, Outcome, Outcomes, Retry

COLLECTION = 200
"""Records of one collection."""
LIMITS = BatchLimits(5 * COLLECTION, 3_000_000)
OPS = (Op.UPSERT, Op.UPDATE, Op.INSERT)


def order(
    method: str, path: str, records: Sequence[Mapping[str, Any]], headers: Mapping[str, str]
) -> dict[str, Any]:
    """A composite of collections that all have this path. A subrequest is given the headers of its own."""
    parts = [records[low : low + COLLECTION] for low in range(0, len(records), COLLECTION)]
    return {
        "allOrNone": True,
        "collateSubrequests": False,
        "compositeRequest": [
            {"method": method, "url": path, "referenceId": f"part{number}", "httpHeaders": dict(headers),
             "body": {"allOrNone": True, "records": part}}
            for number, part in enumerate(parts)
        ],
    }  # fmt: skip


def outcomes(answer: Answer, keys: Sequence[str]) -> Outcomes:
    """One outcome for each record. Those that were rolled back because of others are to be sent again.

    Raises:
        Refused: a collection was refused as a whole, and with it the request.
        Unsettled: the answer is none to a composite.
    """
    said = answer.json()
    results = said.get("compositeResponse") if isinstance(said, dict) else None
    if answer.status == 404:
        raise refused(answer)
    if not isinstance(results, list):
        raise Unsettled("Salesforce's answer to a composite request has no results")
    parts = {
        f"part{low // COLLECTION}": keys[low : low + COLLECTION] for low in range(0, len(keys), COLLECTION)
    }
    found: list[Outcome] = []
    for item in results:
        part = parts.pop(str(item.get("referenceId")), ())
        found += _part(item, part)
    return Outcomes(tuple(found))


def _part(item: Mapping[str, Any], keys: Sequence[str]) -> Iterator[Outcome]:
    """What became of one collection's records.

    Raises:
        Refused: the collection itself is wrong.
    """
    body = item.get("body")
    if not keys or not isinstance(body, list):
        return
    if all(isinstance(result, dict) and "success" in result for result in body):
        yield from each(body, keys)
        return
    error = whole(int(item.get("httpStatusCode") or 400), body)
    if error.code not in BUSY:
        raise error
    yield from (Retry(key, str(error)) for key in keys)
