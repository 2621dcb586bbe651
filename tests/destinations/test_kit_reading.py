"""What connectors read answers with: an error's object, a listing's pages, moments in two spellings."""

from __future__ import annotations

from datetime import timedelta

import pytest

from backhaul.destinations.kit import Answer, inner, listed, paged, same_moment
from backhaul.errors import Unsettled

PAGES = {"": (["a", "b"], "2"), "2": (["c"], "3"), "3": ([], "4"), "4": (["d"], None)}


async def test_every_page_is_read_once() -> None:
    asked = []

    async def page(cursor: str) -> tuple[list[str], str | None]:
        asked.append(cursor)
        return PAGES[cursor]

    assert [item async for item in paged(page)] == ["a", "b", "c", "d"]
    assert asked == ["", "2", "3", "4"]


@pytest.mark.parametrize("back", ["2", "3"])
async def test_a_listing_that_turns_in_a_circle_ends(back: str) -> None:
    async def page(cursor: str) -> tuple[list[str], str | None]:
        return [cursor], {"": "2", "2": "3", "3": back}[cursor]

    with pytest.raises(Unsettled, match="leads back"):
        [item async for item in paged(page)]


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'"x"', b"null", b'{"errors": 1}', b'{"errors": ["x", 2]}']
)
def test_what_is_not_there_is_nothing(body: bytes) -> None:
    said = Answer(500, {}, body).members()
    assert listed(said, "errors") == []
    assert inner(said, "errors", "code") is None


def test_a_day_ends_by_the_answers_own_clock() -> None:
    assert Answer(200, {"date": "Tue, 24 Nov 2026 23:59:58 GMT"}).until_midnight() == 2
    assert 0 < Answer(200, {"date": "yesterday"}).until_midnight() <= 86_400


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2026-01-01T10:00:00Z", "2026-01-01T12:00:00.4+02:00", True),
        ("2026-01-01", "2026-01-01T00:00:00", True),
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:01Z", False),
        ("2026-02-30", "2026-02-30", False),
        (None, "2026-01-01", False),
    ],
)
def test_moments_are_the_same_within_a_precision(one: str | None, other: str, same: bool) -> None:
    assert same_moment(one, other, timedelta(seconds=1)) is same
