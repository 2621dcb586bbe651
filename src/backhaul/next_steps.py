"""What happens to a record next, as one table: by its stage, whether it was ever acknowledged, the sync's mode, and what the
destination offers for an insert whose outcome is unknown. A plan, a run's recovery and `settle` act by it, and `status`,
`records`, `why` and `plan` take their words from it. docs/next-steps.md is its page for users.
"""

from __future__ import annotations

from enum import StrEnum
from itertools import product
from typing import Any

from backhaul.changes import Stage, code
from backhaul.types import Mode, Op


class Step(StrEnum):
    """What happens to a record next."""

    NOTHING = "nothing"
    """Nothing, until the model or the mapping changes."""
    SEND = "send"
    """The next run sends its newest value."""
    REPEAT = "repeat"
    """The next run sends the same request again under its idempotency key."""
    LOOK_UP = "look_up"
    """The next run looks it up once the index lag is over: it is adopted, created, or quarantined."""
    WAIT = "wait"
    """A run or the destination works on it."""
    DECIDE = "decide"
    """A person decides."""


class Offer(StrEnum):
    """What the destination offers for an insert whose outcome is unknown, the best first."""

    REPEATABLE = "repeatable"
    """The same insert again has no further effect, or the sync allows a second record."""
    KEYED = "keyed"
    """Its request carried an idempotency key that still lives."""
    SEARCHABLE = "searchable"
    """Records can be looked up by their identifier."""
    NONE = "none"


_S, _O = Stage, Offer
_FIXED = {
    _S.PLANNED: Step.SEND,
    _S.RETRY: Step.SEND,
    _S.IN_FLIGHT: Step.WAIT,
    _S.HELD: Step.DECIDE,
    _S.REJECTED: Step.DECIDE,
    _S.QUARANTINED: Step.DECIDE,
    _S.ACKNOWLEDGED: Step.NOTHING,
}
"""Stages whose step depends on nothing else."""
_INSERT = {
    _O.REPEATABLE: Step.SEND,
    _O.KEYED: Step.REPEAT,
    _O.SEARCHABLE: Step.LOOK_UP,
    _O.NONE: Step.DECIDE,
}
"""An insert that may have been applied, by what the destination offers."""


def _step(stage: Stage, acknowledged: bool, mode: Mode, offer: Offer) -> Step:
    if stage in _FIXED:
        return _FIXED[stage]
    if mode is not Mode.INSERT:
        return Step.SEND  # the same key again has the same effect
    # a record that was acknowledged, or that another mode sent, has no request whose key still lives
    keyed = stage is _S.UNKNOWN and not acknowledged
    return _INSERT[_O.NONE if offer is _O.KEYED and not keyed else offer]


STEPS = {at: _step(*at) for at in product(Stage, (False, True), Mode, Offer)}
"""Every combination has one step."""


def next_step(stage: Stage, acknowledged: bool, mode: Mode, offer: Offer) -> Step:
    """What happens next to a record. `acknowledged`: the destination has ever acknowledged a value of it."""
    return STEPS[stage, acknowledged, mode, offer]


def offer_of(sync: Any, destination: Any, *, keyed: bool = True) -> Offer:
    """What the destination offers for the inserts of a sync; `keyed`: as long as their keys live."""
    searchable = destination.index_lag(sync.object) is not None
    life = destination.idempotency_life
    if keyed and life is not None:
        return _O.KEYED
    if searchable:
        return _O.SEARCHABLE
    if sync.unknown == "at_least_once" or (life is None and Op.INSERT in destination.repeatable):
        return _O.REPEATABLE
    return _O.NONE


def is_resent(mode: Mode, offer: Offer) -> str:
    """SQL of whether a known row is sent whatever its value is: by its stage (`_again`), and by whether it was never acknowledged
    (`never`)."""
    stored = (_S.DETECTED, _S.RETRY, _S.UNKNOWN, _S.QUARANTINED)
    rules = []
    for known, rule in ((False, "never"), (True, "NOT never")):
        sent = [code(stage) for stage in stored if next_step(stage, known, mode, offer) is Step.SEND]
        rules.append(f"({rule} AND _again IN ({', '.join(map(str, sent))}))")
    return f"({' OR '.join(rules)})"


def status_of(stage: Stage, acknowledged: bool, mode: Mode, offer: Offer) -> str:
    """The status that people are shown: what the next run sends is pending, whatever it waits for."""
    if stage in (_S.DETECTED, _S.RETRY, _S.PLANNED):
        step = next_step(stage, acknowledged, mode, offer)
        return "pending" if step is Step.SEND else "unknown"
    return stage.value


SENTENCES = {
    Step.NOTHING: "nothing has to be sent",
    Step.SEND: "the next run sends the newest value",
    Step.REPEAT: "the next run sends the same request again under its idempotency key",
    Step.LOOK_UP: "the next run looks it up in the destination",
    Step.WAIT: "a request is on its way",
    Step.DECIDE: "look in the destination, then tell backhaul what you found",
}
"""A step in words, for the middle of a sentence."""
