"""Listings that come in pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

from backhaul.errors import Unsettled

T = TypeVar("T")


async def paged(page: Callable[[str], Awaitable[tuple[Iterable[T], str | None]]]) -> AsyncIterator[T]:
    """The items of all pages, one page after the other. `page` gives those of the page that a cursor stands for ('' is the
    first), and the cursor of the next page, if there is one.

    Raises:
        Unsettled: a cursor leads back to a page that was read.
    """
    cursor, read = "", {""}
    while True:
        items, following = await page(cursor)
        for item in items:
            yield item
        if not following:
            return
        if following in read:
            raise Unsettled("the destination's listing leads back to a page that was read")
        read.add(following)
        cursor = following
