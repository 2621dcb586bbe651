"""Insisting on an answer that changes nothing."""

from __future__ import annotations

import pytest

from backhaul.delivery.budget import Budget
from backhaul.delivery.connect import insist
from backhaul.errors import BackhaulError, Exhausted, Halt, NotApplied, Refused, Throttled, Unsettled


class Asked:
    """An act that ends badly in the given ways, and then well."""

    def __init__(self, *errors: BackhaulError) -> None:
        self.errors = list(errors)
        self.times = 0

    async def __call__(self) -> str:
        self.times += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


async def test_it_is_asked_again_while_the_destination_is_busy_or_away() -> None:
    asked = Asked(NotApplied("away"), Unsettled("reset"), Throttled("busy", after=0.01))
    assert await insist(asked, Budget("d", ())) == "answer"
    assert asked.times == 4


async def test_a_destination_that_stays_away_ends_the_run() -> None:
    with pytest.raises(Halt, match="away"):
        await insist(Asked(*(NotApplied("away") for _ in range(9))), Budget("d", ()))


@pytest.mark.parametrize("error", [Exhausted("no room"), Halt("not for you")])
async def test_what_asking_again_cannot_mend_is_raised_at_once(error: BackhaulError) -> None:
    asked = Asked(error)
    with pytest.raises(type(error)):
        await insist(asked, Budget("d", ()))
    assert asked.times == 1


async def test_a_refused_question_is_not_repeated() -> None:
    asked = Asked(Refused("no such object"))
    with pytest.raises(Halt, match="no such object"):
        await insist(asked, Budget("d", ()))
    assert asked.times == 1


async def test_the_answer_to_the_last_question_holds_everybody_too() -> None:
    """I29."""
    budget = Budget("d", ())
    with pytest.raises(Halt, match="busy"):
        await insist(Asked(*(NotApplied("away") for _ in range(3)), Throttled("busy", after=7200)), budget)
    with pytest.raises(Exhausted):
        await budget.acquire()
