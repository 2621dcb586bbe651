"""The life of a change: what may follow what, and that nothing else can."""

from __future__ import annotations

import itertools

import pytest

from backhaul.changes import TRANSITIONS, Event, IllegalTransition, Stage, after, code, named


def reachable(start: Stage) -> set[Stage]:
    found, new = {start}, {start}
    while new:
        new = {to for (came, _), to in TRANSITIONS.items() if came in new} - found
        found |= new
    return found


def test_every_stage_is_reached_and_none_is_a_dead_end() -> None:
    assert reachable(Stage.DETECTED) == set(Stage)
    for stage in Stage:
        assert Stage.ACKNOWLEDGED in reachable(stage), stage


def test_what_is_not_in_the_table_cannot_happen() -> None:
    for stage, event in itertools.product(Stage, Event):
        if (stage, event) in TRANSITIONS:
            assert after(stage, event) is TRANSITIONS[stage, event]
        else:
            with pytest.raises(IllegalTransition, match=f"{event} cannot happen to a change that is {stage}"):
                after(stage, event)


def test_i2_only_an_answer_or_a_look_up_acknowledges() -> None:
    ways = {event for (_, event), to in TRANSITIONS.items() if to is Stage.ACKNOWLEDGED}
    assert ways == {Event.OK, Event.FOUND}
    assert {came for (came, event) in TRANSITIONS if event is Event.OK} == {Stage.IN_FLIGHT}


def test_i5_nothing_is_in_flight_without_an_intent() -> None:
    assert {event for (_, event), to in TRANSITIONS.items() if to is Stage.IN_FLIGHT} == {Event.LEAVE}


def test_stored_numbers_stay_as_they_are() -> None:
    numbers = {
        Stage.ACKNOWLEDGED: 0,
        Stage.UNKNOWN: 1,
        Stage.DETECTED: 2,
        Stage.RETRY: 3,
        Stage.QUARANTINED: 4,
        Stage.REJECTED: 5,
    }
    for stage, number in numbers.items():
        assert (code(stage), named(number)) == (number, stage)
