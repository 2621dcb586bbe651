"""One tree, by recovery: what the engine or the user does next is in the type.

BackhaulError
├── UsageError            the command or the files are wrong: nothing ran (exit 2)
├── RunError              this run failed, nothing is lost: mend and run again (exit 1)
│   ├── SourceError       the warehouse or the model
│   ├── StateError        the state folder or database
│   ├── Held              a guard or a missing approval: review the plan, then `run --plan ID`
│   ├── PlanMoved         the world moved since the plan was reviewed: plan again
│   └── Halt              the destination refuses us, not a record: credentials, permission, configuration
│       ├── Forbidden     permission is refused (HTTP 403): the credential's, or that of single records
│       └── Unreachable   it does not answer
└── SendError             one request did not end well; the delivery engine acts on the type
    ├── NotApplied        certainly not applied: send again later
    │   ├── Throttled     the whole bucket waits
    │   ├── Exhausted     the budget has no room for so long that the run ends `deferred`
    │   └── Expired       the access token is not valid any more: the door fetches another and sends again
    ├── Unsettled         nobody knows whether it was applied
    └── Refused           the whole request was refused: halve it down to the bad record
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from backhaul.types import RefusalClass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a project: where, what, and what to do. Lines and columns count from 1."""

    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    hint: str | None = None

    def __str__(self) -> str:
        where = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.hint})" if self.hint else text


class BackhaulError(Exception):
    """Something backhaul can name went wrong. `hint` says what to do next."""

    def __init__(self, message: str | None = None, *, hint: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n")[0])
        self.hint = hint


class UsageError(BackhaulError):
    """The command or the project files are wrong; nothing ran."""

    def __init__(
        self, message: str | None = None, *, hint: str | None = None, problems: Sequence[Problem] = ()
    ) -> None:
        super().__init__(message or "\n".join(str(problem) for problem in problems) or None, hint=hint)
        self.problems = tuple(problems)


class RunError(BackhaulError):
    """The run failed; nothing is lost, the next run continues from here."""


class SourceError(RunError):
    """The model could not be read completely, so nothing was planned."""


class StateError(RunError):
    """The state could not be read or written, so nothing was sent."""


class Held(RunError):
    """A guard stopped the run before anything was sent."""


class PlanMoved(RunError):
    """The plan is no longer what the model and the ledger give, so nothing was sent."""


class Halt(RunError):
    """The destination refuses the sync as a whole: credentials, permission or configuration."""


class Forbidden(Halt):
    """The destination forbids this request (HTTP 403). Where it takes other records of the same run, the refusal is a matter of
    the record; otherwise of the credential, and the run stops."""

    def __init__(self, message: str | None = None, *, hint: str | None = None, code: str = "403") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class Unreachable(Halt):
    """The destination does not answer."""


class SendError(BackhaulError):
    """One request did not end well. `code` is the destination's own code where it gave one."""

    def __init__(self, message: str | None = None, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class NotApplied(SendError):
    """The destination certainly did not apply the request."""


class Throttled(NotApplied):
    """The destination asks for fewer requests. `after` is in seconds, None where it did not say. `endpoints` is what it asks it
    of, as the kit's `Destination.endpoints` has it: the door says so."""

    def __init__(self, message: str | None = None, *, code: str = "", after: float | None = None) -> None:
        super().__init__(message, code=code)
        self.after = after
        self.endpoints: tuple[str, ...] = ("",)


class Exhausted(NotApplied):
    """The destination's budget has no room for longer than a run waits; the rest stays pending.

    `after` is in seconds, None where the run is stopping.
    """

    def __init__(self, message: str | None = None, *, code: str = "", after: float | None = None) -> None:
        super().__init__(message, code=code)
        self.after = after


class Expired(NotApplied):
    """The access token that the request carried is not valid any more."""


class Unsettled(SendError):
    """The request may or may not have been applied."""


class Refused(SendError):
    """The destination refused the whole request because of what is in it. `kind` is the class of the refusal where the
    connector's table of codes does not say it."""

    def __init__(
        self, message: str | None = None, *, code: str = "", kind: RefusalClass | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.kind = kind
