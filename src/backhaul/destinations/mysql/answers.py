"""What an error of MySQL or MariaDB means for a batch (MySQL Server Error Message Reference; MariaDB Error Codes)."""

from __future__ import annotations

import re

from backhaul.errors import BackhaulError, Forbidden, Halt, NotApplied, Refused, Throttled, Unsettled
from backhaul.types import RefusalClass

REFUSED = frozenset((
    1048, 1118, 1153, 1263, 1264, 1265, 1292, 1300, 1364, 1365, 1366, 1367, 1369, 1406, 1411, 1416,
    1441, 1467, 1525, 1526, 1644, 1690, 1748, 3140, 3141, 3156, 3157, 3819, 3903,
    3907, 3988, 4025, 4078,
))  # fmt: skip
"""They speak of the rows: data, constraints, a SIGNAL of a trigger. 4025 is MariaDB's CHECK, 3819 MySQL's."""
HALT = frozenset((
    1044, 1045, 1046, 1049, 1054, 1064, 1095, 1109, 1130, 1132, 1133, 1141, 1142, 1143, 1146, 1147, 1161, 1227, 1235,
    1251, 1275, 1290, 1356, 1370, 1396, 1449, 1471, 1524, 1665, 1698, 1702, 1792, 1820, 1836, 1862, 2049, 2059, 2061,
    3118, 3159, 3955, 4151,
))  # fmt: skip
"""They speak of us: authentication, permission, no such database, table or column, a server that is read-only."""
THROTTLED = frozenset((1040, 1203, 1226))
"""Too many connections, of all or of this account, or its hourly resources are used up."""
GONE = frozenset((0, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1180, 1184, 2000, 2002, 2003, 2006, 2012, 2013, 2014,
                  2027, 2055))  # fmt: skip
"""The connection, or the server, went away; during COMMIT nobody knows what it did. 1180: the COMMIT itself failed."""
EXISTS = 1062
LATER = frozenset((
    1020, 1026, 1030, 1037, 1038, 1041, 1047, 1205, 1206, 1213, 1317, 1412, 1614, 1637, 1689, 1969, 3024, 3101, 3572,
))  # fmt: skip
"""Locks, time limits, memory, a cluster that is not ready: nothing of the batch was done."""
CREDENTIAL = frozenset(
    (1044, 1045, 1049, 1130, 1251, 1396, 1524, 1698, 1820, 1862, 2049, 2059, 2061, 3118, 3159, 3955, 4151)
)
REFUSALS = {
    str(code): kind
    for kind, codes in {
        RefusalClass.RECORD: REFUSED,
        RefusalClass.CONFIGURATION: HALT - CREDENTIAL,
        RefusalClass.CREDENTIAL: CREDENTIAL,
        RefusalClass.TRANSIENT: LATER | THROTTLED | GONE,
        RefusalClass.REFERENCE: (1216, 1217, 1451, 1452),
        RefusalClass.CONFLICT: (1022, 1062, 1557, 1586, 1761, 1762),
        RefusalClass.CAPACITY: (1021, 1114),
    }.items()
    for code in sorted(codes)
}
"""The class of each number; one that is not here is unlisted."""

_VALUE = re.compile(r"\b(value|entry|string)(:?) '.*'(?= for )|\b(value|entry|string)(:?) '.*'$", re.DOTALL)
_STAGED = re.compile(r"[`\"]?[^`\"\s]*[`\"]?\.[`\"]?backhaul_batch[`\"]?\.")
_PLACE = re.compile(r" at row \d+$")


def number(error: BaseException) -> tuple[int, str]:
    """The server's (or client's) error number, 0 where it gave none, and its words."""
    args = error.args
    if len(args) >= 2 and isinstance(args[0], int):
        return args[0], str(args[1])
    return 0, str(args[0]) if args else type(error).__name__


def meaning(error: BaseException, *, committing: bool) -> BackhaulError:
    """An error before the commit has undone everything."""
    code, said = number(error)
    text = described(said)
    if code in CREDENTIAL:
        return Halt(f"the MySQL server refuses: {text} (error {code})", hint=advised(code))
    if code in HALT:
        return Forbidden(
            f"the MySQL server refuses: {text} (error {code})", hint=advised(code), code=str(code)
        )
    if code in THROTTLED:
        return Throttled(f"the MySQL server is busy: {text}", code=str(code))
    if code in GONE:
        return lost(text, committing, str(code or 2013))
    return NotApplied(text, code=str(code)) if code in LATER else Refused(text, code=str(code))


def advised(code: int) -> str | None:
    if code in (1044, 1142, 1143):
        return "grant SELECT, INSERT, UPDATE on the table (DELETE for mode mirror) and CREATE TEMPORARY TABLES on its database"
    if code in (1045, 1698, 1049):
        return "check user, password and database in the dsn"
    return None


def not_connected(error: BaseException) -> BackhaulError:
    """A server that answers refuses us, unless it says that it is only busy."""
    code, said = number(error)
    text = described(said)
    if "SSL" in text or "certificate" in text or "cryptography" in text:
        hint = "set ssl-mode in the dsn: DISABLED, REQUIRED, VERIFY_CA with ssl-ca, or VERIFY_IDENTITY"
        return Halt(f"no secure connection to the MySQL server: {text}", hint=hint)
    if code in HALT or code in THROTTLED:
        return meaning(error, committing=False)
    return NotApplied(f"the MySQL server is not reachable: {text}", code=str(code or 2003))


def lost(text: str, committing: bool, code: str = "2013") -> BackhaulError:
    kind = Unsettled if committing else NotApplied
    return kind(f"the connection to the MySQL server was lost: {text}", code=code)


def described(text: str, limit: int = 300) -> str:
    """The server's words on one line, without the row's values, the row's place and our own table's name."""
    text = _STAGED.sub("", _VALUE.sub(r"\1\3", _PLACE.sub("", text)))
    return " ".join(text.split())[:limit]
