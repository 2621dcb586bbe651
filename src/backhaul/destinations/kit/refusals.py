"""Tables of codes: what a refusal with each of them is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from backhaul.types import RefusalClass


def refusal_table(
    *, record: Iterable[str] = (), configuration: Iterable[str] = (), capacity: Iterable[str] = (),
    reference_missing: Iterable[str] = (), conflict: Iterable[str] = (), transient: Iterable[str] = (),
    credential: Iterable[str] = (),
) -> dict[str, RefusalClass]:  # fmt: skip
    """A table of codes from the codes of each class."""
    classes = {
        RefusalClass.RECORD: record,
        RefusalClass.CONFIGURATION: configuration,
        RefusalClass.CAPACITY: capacity,
        RefusalClass.REFERENCE: reference_missing,
        RefusalClass.CONFLICT: conflict,
        RefusalClass.TRANSIENT: transient,
        RefusalClass.CREDENTIAL: credential,
    }
    return {code: kind for kind, codes in classes.items() for code in codes}


HTTP_REFUSALS = refusal_table(
    record=("400", "403", "404", "410", "412", "413", "422"),
    configuration=("405", "415"),
    capacity=("402", "507"),
    conflict=("409",),
)
"""The class of a status where the connector does not list it (RFC 9110, RFC 4918 for 422 and 507). A 403 becomes a record's only
where the destination takes others (`Forbidden`)."""


def class_of(refusals: Mapping[str, RefusalClass], code: str) -> RefusalClass | None:
    """The class of a code in a table of codes: its own, else that of its longest beginning; None where there is none."""
    beginnings = (f"{code[:length]}*" for length in range(len(code), 0, -1))
    return next((refusals[name] for name in (code, *beginnings) if name in refusals), None)
