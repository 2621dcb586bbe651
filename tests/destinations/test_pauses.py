"""What an answer says of how long to be silent (I29)."""

from __future__ import annotations

import pytest

from backhaul.destinations.kit import Answer, classify_status
from backhaul.errors import Throttled

DATE = "Mon, 23 Nov 2026 10:00:00 GMT"
UNIX = 1_795_428_000


@pytest.mark.parametrize(
    ("headers", "after"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after": "Mon, 23 Nov 2026 10:01:30 GMT", "date": DATE}, 90.0),
        ({"retry-after": "Mon, 23 Nov 2026 09:00:00 GMT", "date": DATE}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "3", "ratelimit-reset": "60"}, 3.0),
        ({"ratelimit-reset": "60"}, 60.0),
        ({"x-ratelimit-reset": str(UNIX + 45), "date": DATE}, 45.0),
        ({"x-ratelimit-reset": str(UNIX - 45), "date": DATE}, 0.0),
        ({"x-ratelimit-reset": "60000"}, None),
        ({"x-ratelimit-reset": ""}, None),
        ({}, None),
    ],
)
def test_i29_a_throttled_answer_says_for_how_long(headers: dict[str, str], after: float | None) -> None:
    error = classify_status(Answer(429, headers))
    assert isinstance(error, Throttled)
    assert error.after == after
