"""What Klaviyo's answers hold (JSON:API), and whom their errors are about."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from backhaul.destinations.kit import Answer, inner, listed
from backhaul.types import Outcome, Rejected, Retry

_PLACE = re.compile(r"/data/attributes/(?:profiles|events-bulk-create)/data/(\d+)(?:/|$)")


def errors_of(answer: Answer) -> list[dict[str, Any]]:
    """The errors of an answer; none where it is of another form."""
    return listed(answer.members(), "errors")


def place_of(error: Mapping[str, Any]) -> int | None:
    """The place in the request that an error points at."""
    found = _PLACE.match(str(inner(error.get("source"), "pointer") or ""))
    return int(found[1]) if found else None


def key_at(keys: Sequence[str], error: Mapping[str, Any]) -> str | None:
    """The key of the record that an error points at."""
    place = place_of(error)
    return keys[place] if place is not None and place < len(keys) else None


def refused_by_place(keys: Sequence[str], answer: Answer) -> Iterator[Outcome]:
    """A request was refused because of some of its records: the others were not taken either."""
    errors = errors_of(answer)
    refused = {key: error for error in errors if (key := key_at(keys, error)) is not None}
    for key in keys:
        if (error := refused.get(key)) is not None:
            said = str(error.get("detail") or "not valid")
            yield Rejected(key, str(error.get("code") or "invalid"), said)
        else:
            yield Retry(key, "another record of its request was refused")
