"""What ends a delivery, or a batch's part in it, before all is said."""

from __future__ import annotations

from backhaul.errors import BackhaulError, Halt, SendError


class Underway(BackhaulError):
    """A job is not over, and nobody waits for it any longer."""


def silent(error: SendError) -> Halt:
    return Halt(
        f"the destination does not answer: {error}", hint="nothing is lost: the rest is sent by the next run"
    )


class Systemic(Halt):
    """The destination refuses record after record for one reason; `code` is its own."""

    def __init__(self, code: str, said: str) -> None:
        super().__init__(
            f"stopped, because this looks like configuration and not like data: {said}",
            hint="mend the mapping or the destination and run again; these records are not dead letters",
        )
        self.code = code
