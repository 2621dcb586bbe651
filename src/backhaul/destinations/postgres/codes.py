"""What PostgreSQL's codes are about."""

from __future__ import annotations

from backhaul.types import RefusalClass

REFUSALS = {
    **dict.fromkeys(
        ("08*", "40*", "25006", "53*", "55006", "55P03", "57*", "58*", "72000"), RefusalClass.TRANSIENT
    ),
    **dict.fromkeys(("21*", "22*", "23*", "44*", "54*", "P0001"), RefusalClass.RECORD),
    **dict.fromkeys(("0A*", "2F*", "3F*", "42*"), RefusalClass.CONFIGURATION),
    **dict.fromkeys(("28*", "3D*"), RefusalClass.CREDENTIAL),
    **dict.fromkeys(("skipped", "exists", "not_found"), RefusalClass.RECORD),
    "23503": RefusalClass.REFERENCE,
    "23505": RefusalClass.CONFLICT,
    "23P01": RefusalClass.CONFLICT,
    "53100": RefusalClass.CAPACITY,
}
"""By SQLSTATE or its beginning (PostgreSQL documentation, appendix A). Any other, such as one that a trigger makes up, is
unlisted."""
