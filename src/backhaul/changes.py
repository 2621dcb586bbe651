"""The life of one change, as one table: every room that says what became of a record says it in these words.

    detected ──> planned ──> in flight ──┬─ ok ───────────────> acknowledged
       ^  │         ^          ^  │      ├─ refused ──────────> rejected (leaves it when its value changes, or on replay)
       │  └> held ──┘          │  │      ├─ certainly not done > retry ──> planned
       │                       │  └──────┴─ nobody knows ─────> unknown
       └── newer value         └── the same again ─────────────┘   │
                                                                   └─ looked up ─> acknowledged | retry | quarantined

What is planned, in flight or acknowledged as a matter of course is a range of plan rows and never one object a row;
`Stage` and `after` are for the rows that left that way (delivery/tally.py), for ledger rows (ledger/ledger.py) and for
people (records.py).
"""

from __future__ import annotations

from enum import StrEnum


class Stage(StrEnum):
    """Where a change is."""

    DETECTED = "detected"
    """The model and the ledger differ; in memory only."""
    PLANNED = "planned"
    """A row of a plan that is being delivered; nothing has left."""
    IN_FLIGHT = "in_flight"
    """Its intent is durable: a request may be on its way."""
    ACKNOWLEDGED = "acknowledged"
    """The destination said that it holds this value, or a look-up showed it."""
    REJECTED = "rejected"
    """The destination or the mapping refused it for good."""
    RETRY = "retry"
    """Certainly not applied; planned again by this run or the next."""
    UNKNOWN = "unknown"
    """A request may have been applied, and nobody knows."""
    HELD = "held"
    """A guard or a missing approval keeps the plan."""
    QUARANTINED = "quarantined"
    """The destination holds several records where there should be one: a person decides."""


_STORED = (
    Stage.ACKNOWLEDGED,
    Stage.UNKNOWN,
    Stage.DETECTED,
    Stage.RETRY,
    Stage.QUARANTINED,
    Stage.REJECTED,
)
"""States by the number under which a ledger file and a fold know them; numbers are never given to another."""


def code(state: Stage) -> int:
    """The number of a state in a ledger file. Raises: ValueError at a state that is never stored there."""
    return _STORED.index(state)


def named(code: int) -> Stage:
    """The state that a ledger file knows under this number."""
    return _STORED[code]


class Event(StrEnum):
    """What happens to a change."""

    PLAN = "plan"
    HOLD = "hold"
    APPROVE = "approve"
    SUPERSEDE = "supersede"
    """The model has another value by now, or the row left it."""
    LEAVE = "leave"
    """The intent is committed; bytes may leave from now on."""
    OK = "ok"
    REFUSE = "refuse"
    NOT_APPLIED = "not_applied"
    SILENCE = "silence"
    """A reset, a timeout, a 5xx, garbage, or an answer that does not name the record."""
    FOUND = "found"
    """A look-up shows exactly one record."""
    ABSENT = "absent"
    """A look-up after the index lag shows none."""
    TWINS = "twins"
    """A look-up shows several."""
    REPLAY = "replay"
    """A person asks for it again, or its value or mapping changed."""


_S, _E = Stage, Event
TRANSITIONS: dict[tuple[Stage, Event], Stage] = {
    (_S.DETECTED, _E.PLAN): _S.PLANNED,
    (_S.DETECTED, _E.HOLD): _S.HELD,
    (_S.DETECTED, _E.REFUSE): _S.REJECTED,  # by the mapping
    (_S.HELD, _E.APPROVE): _S.PLANNED,
    (_S.HELD, _E.SUPERSEDE): _S.DETECTED,
    (_S.PLANNED, _E.LEAVE): _S.IN_FLIGHT,
    (_S.PLANNED, _E.SUPERSEDE): _S.DETECTED,
    (_S.IN_FLIGHT, _E.OK): _S.ACKNOWLEDGED,
    (_S.IN_FLIGHT, _E.REFUSE): _S.REJECTED,
    (_S.IN_FLIGHT, _E.NOT_APPLIED): _S.RETRY,
    (_S.IN_FLIGHT, _E.SILENCE): _S.UNKNOWN,
    (_S.RETRY, _E.PLAN): _S.PLANNED,
    (_S.RETRY, _E.LEAVE): _S.IN_FLIGHT,  # within its run the plan and the intent are still there
    (_S.RETRY, _E.SUPERSEDE): _S.DETECTED,
    (_S.UNKNOWN, _E.LEAVE): _S.IN_FLIGHT,  # a repeatable operation, or the same key and body
    (_S.UNKNOWN, _E.PLAN): _S.PLANNED,  # a repeatable operation, by the next run, with the newest value
    (_S.UNKNOWN, _E.FOUND): _S.ACKNOWLEDGED,
    (_S.UNKNOWN, _E.ABSENT): _S.RETRY,
    (_S.UNKNOWN, _E.TWINS): _S.QUARANTINED,
    (
        _S.DETECTED,
        _E.FOUND,
    ): _S.ACKNOWLEDGED,  # acknowledged before a reset: an insert is looked up, not repeated
    (_S.DETECTED, _E.ABSENT): _S.RETRY,
    (_S.DETECTED, _E.TWINS): _S.QUARANTINED,
    (_S.ACKNOWLEDGED, _E.SUPERSEDE): _S.DETECTED,
    (_S.ACKNOWLEDGED, _E.TWINS): _S.QUARANTINED,  # a create after an empty look-up is looked up again
    (_S.REJECTED, _E.REPLAY): _S.DETECTED,
    (_S.QUARANTINED, _E.FOUND): _S.ACKNOWLEDGED,
    (_S.QUARANTINED, _E.ABSENT): _S.RETRY,
}
"""All that can happen. A pair that is not here cannot."""


class IllegalTransition(AssertionError):
    """A change was about to take a way that does not exist: a fault in backhaul itself."""


def after(state: Stage, event: Event) -> Stage:
    """The state of a change in `state` once `event` has happened.

    Raises:
        IllegalTransition: it cannot happen there.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event} cannot happen to a change that is {state}") from None
