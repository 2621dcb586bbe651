"""What refusals lead to: the one place that decides by their class (docs/refusals.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from backhaul.delivery.failures import Systemic
from backhaul.delivery.tally import Totals
from backhaul.destinations.kit import Destination
from backhaul.errors import Forbidden, Halt, NotApplied, Refused, RunError, SendError
from backhaul.state.journal import Reason
from backhaul.types import RefusalClass

_PROBES = 3
"""So many requests refused for want of capacity, or so many records forbidden, and nothing taken between them: it is no matter of
single records."""
_FORBIDDEN = 10
"""So many requests forbidden, of any size, and nothing taken: the credential lacks the permission."""
_FEW, _MANY = 5, 50
"""Single records refused with one code, and none taken: after a few, others are tried alone; after many it is configuration."""
SHARE, _BREAKER_COUNT = 0.2, 50
"""More than that share of the records refused with one code, and so many: it looks like configuration."""


class Refusals:
    """The refusals of one delivery. `known`: codes that earlier runs found to be about single records; `cleared`: codes with
    which many records were refused, while others further back in the plan were taken."""

    def __init__(
        self, destination: Destination[Any], known: Iterable[str] = (), cleared: Iterable[str] = ()
    ) -> None:
        self._destination = destination
        self._known = frozenset(known)
        self._taken = False
        self._alone: Counter[str] = Counter()
        self._forbidden: Forbidden | None = None
        self._forbidden_requests = 0
        self._without_room = 0
        self.cleared = set(cleared)

    @property
    def has_taken(self) -> bool:
        """Whether any record was taken."""
        return self._taken

    def class_of(self, code: str) -> RefusalClass:
        return self._destination.refusal_class(code)

    def reason(self, error: SendError) -> Reason:
        kind = self._class(error) if isinstance(error, Refused) else RefusalClass.TRANSIENT
        return Reason(error.code, str(error), kind)

    def answered(self, taken: int, without_room: bool) -> bool:
        """Notes how many records an answer took, and whether others of it found no room. True where the destination has no room
        for any more."""
        if taken:
            self._taken, self._without_room = True, 0
        elif without_room:
            self._without_room += 1
        return self._without_room >= _PROBES

    def read(self, error: SendError | Forbidden) -> SendError:
        """What an error means, by its class. A request that is forbidden is a refusal to be narrowed down.

        Raises:
            Halt: the credential is refused.
        """
        if isinstance(error, Forbidden):
            self._forbidden = self._forbidden or error
            self._forbidden_requests += 1
            if self._forbidden_requests >= _FORBIDDEN and not self._taken and error.code not in self._known:
                raise error
            return Refused(str(error), code=error.code, kind=RefusalClass.RECORD)
        if isinstance(error, Refused):
            kind = self._class(error)
            if kind is RefusalClass.CREDENTIAL:
                raise Halt(f"the destination refuses our credentials or permission: {error}")
            if kind is RefusalClass.TRANSIENT:
                return NotApplied(str(error), code=error.code)
        return error

    def is_suspect(self, error: Refused) -> bool:
        """Whether every record seems to be refused for this reason, so that others are tried one by one."""
        if self._taken or error.code in self._known:
            return False
        early = self._is_forbidden(error.code) or self._class(error) is RefusalClass.CONFIGURATION
        return early or self._alone[error.code] >= _FEW

    def refused_alone(self, error: Refused) -> None:
        """Notes a record that was refused in a request of its own.

        Raises:
            RunError: enough others were refused for the same reason, and none was taken.
        """
        if self._taken or error.code in self._known:
            return
        self._alone[error.code] += 1
        most = _PROBES if self._is_forbidden(error.code) else _MANY
        if self._class(error) is RefusalClass.CONFIGURATION:
            most = _FEW
        if self._alone[error.code] >= most:
            raise self._conclusion(error.code, str(error))

    def at_the_end(self, totals: Totals) -> RunError | None:
        """What it means that a whole plan was tried and no record of it taken; None where that says nothing of the settings."""
        if self._taken or totals.delivered or len(self._alone) != 1:
            return None
        code, count = next(iter(self._alone.items()))
        least = 1 if self._is_forbidden(code) else _FEW
        if self.class_of(code) is RefusalClass.CONFIGURATION:
            least = 2
        return self._conclusion(code, totals.words.get(code, code)) if count >= least else None

    def too_many(self, totals: Totals, *, whole: bool = False) -> Systemic | None:
        """Whether so many records were refused with one code that it looks like a fault of the settings; `whole`: of the whole
        plan, in which records further back tell no more."""
        for code, count in totals.codes.items():
            many = count >= _BREAKER_COUNT and count > SHARE * totals.settled
            if many and (whole or code not in self.cleared):
                return Systemic(
                    code,
                    f"{count:,} of {totals.settled:,} records were refused with {code}: {totals.words[code]}",
                )
        return None

    def _class(self, error: Refused) -> RefusalClass:
        return error.kind or self.class_of(error.code)

    def _is_forbidden(self, code: str) -> bool:
        return self._forbidden is not None and self._forbidden.code == code

    def _conclusion(self, code: str, said: str) -> RunError:
        if self._forbidden is not None and self._forbidden.code == code:
            return self._forbidden
        count = self._alone[code]
        return Systemic(code, f"all {count} records that were tried one by one were refused: {said}")
