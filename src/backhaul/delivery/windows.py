"""Reserves places in the windows of one credential: plain arithmetic over one document, the same for every kind of state.

A window is kept in slots of a two-hundredth of its length; a slot's requests leave the window when its end does. Requests
are counted as they leave, and by the destination as they arrive, on paths of uneven length: a window is kept a little
longer than it is, and longer still where answers take times that differ. Together that costs less than 4% of the rate, or 5%.

The document, times in seconds of the state's clock:
    at        the last exchange
    windows   length -> {named: last asked for, slots: [[number, requests], …] oldest first}
    held      [until, why]: the destination asked for silence
    left      length -> [requests, until]: what the destination says is left of a quota
    wants     owner -> [priority, waiting, {length: places it needs}, until]: who sends, and what others must leave
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from backhaul.types import Left, Rate

_MARGIN, _UNEVEN_MARGIN, _LONGEST_MARGIN = 0.03, 0.045, 0.25
"""What arrival may lag behind departure: a share of the window, at least and where answers take times that differ; and seconds
that the first is no longer than. The second has no such end: a server that paused for 0.4 s counts what came meanwhile that
much later, and what is sent a window of ten seconds after it on time."""
QUOTA = 3_600.0
"""Seconds. Windows as long as this are no matter of how requests arrive."""
_SLOTS = 200
_FORGOTTEN = 86_400.0
"""Seconds. A window that nobody asked for in so long, and in twice its length, goes."""
WANTED, WANTED_LONG = 1.0, 5.0
"""Seconds that a sender which fell silent (killed, slow) keeps its turn: while nobody knows how fast it is, and after."""
_TURN = (0.05, 1.0)
"""Seconds between two looks at whether a sender of higher priority is done: a twentieth of the window within these."""
LONGEST_HOLD = 86_400.0
"""Seconds. Whatever the destination or a stored hold says."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one sender asks for and reports. `owner` names it among all senders."""

    owner: str
    rates: Sequence[Rate] = ()
    count: int = 0
    """Requests that are ready to leave."""
    priority: int = 0
    needs: Mapping[str, int] = field(default_factory=dict)
    """Places it will need in each window (by `length`), beside those asked for now."""
    turn: float = WANTED_LONG
    """Seconds that they are kept for it, from when it may send, if it says nothing more."""
    moved: Sequence[float] = ()
    """When requests were reserved that left too long after it."""
    hold: tuple[float, str] | None = None
    """Seconds of silence that the destination asked for, and its words."""
    left: Mapping[str, Left] = field(default_factory=dict)
    """What the destination says is left, by `length`."""
    spread: float = 0.0
    """Seconds between the fastest and the slowest of the last answers."""


@dataclass(frozen=True, slots=True)
class Grant:
    """How many requests may leave now, and the seconds after which to ask for the others."""

    granted: int
    wait: float
    at: float
    """When, by the state's clock."""
    why: str = ""
    """What the others wait for."""
    turn: bool = False
    """They wait for a sender of higher priority alone."""


def length(rate: Rate) -> str:
    """A window's name in the document: windows of one length share their slots, whatever they allow."""
    return f"{rate.per:g}"


def margin(per: float) -> float:
    """Seconds that a window is kept longer than it is, at least."""
    return min(per * _MARGIN, _LONGEST_MARGIN)


def _margin(rate: Rate, ask: Ask) -> float:
    """The same where answers take times that differ: little of a window that holds the sender up; of one that does not, as
    long as another one does, as much as they differ by."""
    least = margin(rate.per)
    if rate.per >= QUOTA:
        return least
    tightest = min(one.count / one.per for one in ask.rates if one.per < QUOTA)
    spare = min(rate.count / tightest - rate.per, rate.per)
    uneven = max(rate.per * _UNEVEN_MARGIN, spare)
    return max(least, min(ask.spread, uneven))


def reserve(document: Document, ask: Ask, now: float) -> Grant:
    """Answers a sender, and changes the document accordingly. The caller stores it before any request leaves."""
    _turn_back(document, now)
    _note(document, ask, now)
    grant = _answer(document, ask, now)
    if ask.count or ask.needs:
        until = now + grant.wait + ask.turn
        document["wants"][ask.owner] = [ask.priority, ask.count - grant.granted, dict(ask.needs), until]
    return grant


def _answer(document: Document, ask: Ask, now: float) -> Grant:
    held, why = document.get("held") or (0.0, "")
    if held > now:
        return Grant(0, held - now, now, why)
    free = [
        _free(document, rate, now, _margin(rate, ask)) - _kept(document, ask, rate, now) for rate in ask.rates
    ]
    granted = max(min([ask.count, *free]), 0)
    _charge(document, granted, now)
    if granted == ask.count:
        return Grant(granted, 0.0, now)
    wait, rate = max(
        ((_wait(document, rate, now, _margin(rate, ask)), rate) for rate in ask.rates),
        key=lambda found: found[0],
    )
    if wait > 0:
        return Grant(granted, wait, now, f"the limit of {rate.count:,} in {spell(rate.per)} is used up")
    poll = min(max(rate.per / 20, _TURN[0]), _TURN[1])
    return Grant(granted, poll, now, "a sync of higher priority is sending", turn=True)


def leave(document: Document, owner: str) -> None:
    """A sender is done: nobody waits for it any more."""
    document.get("wants", {}).pop(owner, None)


def _turn_back(document: Document, now: float) -> None:
    """Where the clock went back, what is stored goes back with it: nothing of it lies in the future, nothing is forgotten."""
    gone = document.get("at", now) - now
    document["at"] = now
    if gone <= 0:
        return
    for name, window in document.get("windows", {}).items():
        slot = float(name) / _SLOTS
        for entry in window["slots"]:
            entry[0] = min(ceil(entry[0] - gone / slot), int(now / slot))
        window["named"] -= gone
    if document.get("held"):
        document["held"][0] -= gone
    for entry in document.get("left", {}).values():
        entry[1] -= gone
    for want in document.get("wants", {}).values():
        want[3] -= gone


def _note(document: Document, ask: Ask, now: float) -> None:
    """Takes in what a sender reports, and drops what is over."""
    windows = document.setdefault("windows", {})
    for rate in ask.rates:
        windows.setdefault(length(rate), {"slots": []})["named"] = now
    for name, window in list(windows.items()):
        per = float(name)
        longest = per if per < QUOTA else _LONGEST_MARGIN
        while window["slots"] and _ends(window["slots"][0][0], per, longest) <= now:
            window["slots"].pop(0)
        if now - window["named"] > max(_FORGOTTEN, 2 * per):
            del windows[name]
        else:
            for at in ask.moved:
                _move(window["slots"], per, at, now)
    if ask.hold is not None:
        until = now + min(ask.hold[0], LONGEST_HOLD)
        if until > (document.get("held") or [0.0])[0]:
            document["held"] = [until, ask.hold[1]]
    known = document.setdefault("left", {})
    for name, left in ask.left.items():
        known[name] = [left.requests, now + min(left.seconds, LONGEST_HOLD)]
    wants = document.setdefault("wants", {})
    for owner in [owner for owner, want in wants.items() if want[3] <= now]:
        del wants[owner]


def _ends(number: int, per: float, margin: float) -> float:
    """When a slot's requests have left the window."""
    return (number + 1) * per / _SLOTS + per + margin


def _move(slots: list[list[int]], per: float, at: float, now: float) -> None:
    """Counts a request when it left, not when it was reserved."""
    number = int(at * _SLOTS / per)
    for entry in slots:
        if entry[0] == number and entry[1] > 0:
            entry[1] -= 1
            break
    _add(slots, per, 1, now)


def _add(slots: list[list[int]], per: float, count: int, now: float) -> None:
    number = int(now * _SLOTS / per)
    if slots and slots[-1][0] >= number:
        slots[-1][1] += count
    else:
        slots.append([number, count])


def _charge(document: Document, granted: int, now: float) -> None:
    """In every window of the credential, also those that this sender does not keep."""
    if not granted:
        return
    for name, window in document["windows"].items():
        _add(window["slots"], float(name), granted, now)
    for entry in document["left"].values():
        entry[0] -= granted


def _inside(document: Document, rate: Rate, now: float, margin: float) -> list[list[int]]:
    """The slots whose requests are in the window still, oldest first."""
    slots: list[list[int]] = document["windows"][length(rate)]["slots"]
    left = (place for place, slot in enumerate(slots) if _ends(slot[0], rate.per, margin) > now)
    return slots[next(left, len(slots)) :]


def _free(document: Document, rate: Rate, now: float, margin: float) -> int:
    free: int = rate.count - sum(used for _, used in _inside(document, rate, now, margin))
    left = document["left"].get(length(rate))
    return min(free, int(left[0])) if left and left[1] > now else free


def _kept(document: Document, ask: Ask, rate: Rate, now: float) -> int:
    """Places of a window that senders of higher priority wait for or will need."""
    above = [want for want in document["wants"].values() if want[0] > ask.priority and want[3] > now]
    return sum(max(want[1], want[2].get(length(rate), 0)) for want in above)


def _wait(document: Document, rate: Rate, now: float, margin: float) -> float:
    """Seconds until one more request fits into the window; 0 where it fits now."""
    wait, over = 0.0, 1 - rate.count
    slots = _inside(document, rate, now, margin)
    over += sum(used for _, used in slots)
    for number, used in slots:
        if over <= 0:
            break
        over -= used
        wait = _ends(number, rate.per, margin) - now
    left = document["left"].get(length(rate))
    if left and left[0] < 1 and left[1] > now:
        wait = max(wait, left[1] - now)
    return wait


def spell(seconds: float) -> str:
    """A length of time in words."""
    seconds = round(seconds) if seconds >= 60 else seconds
    for unit, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds == unit or seconds >= 1.5 * unit:
            number = seconds / unit
            return f"{number:.3g} {name}{'' if number == 1 else 's'}"
    return f"{seconds:.3g} second{'' if seconds == 1 else 's'}"
