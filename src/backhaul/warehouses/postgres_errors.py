"""PostgreSQL's errors in one line each: what is wrong, never the DSN or a part of it."""

from __future__ import annotations

import re

from backhaul.errors import SourceError

_CONNECTION = {"connect_timeout": "10", "application_name": "backhaul", "keepalives_idle": "30",
               "keepalives_interval": "10", "keepalives_count": "3"}  # fmt: skip
"""Where the dsn does not say otherwise: a dead host is noticed in seconds, not hours (libpq, connection parameters)."""

_KNOWN = {
    "password authentication failed": "PostgreSQL refuses the user or password",
    "no password supplied": "PostgreSQL asks for a password and the dsn has none",
    "no pg_hba.conf entry": "PostgreSQL does not let this user in from here (pg_hba.conf)",
    "could not translate host name": "the host of the dsn does not exist",
    "Name or service not known": "the host of the dsn does not exist",
    "failed to resolve host": "the host of the dsn does not exist",
    "Connection refused": "PostgreSQL is not running at the host and port of the dsn",
    "timeout expired": "PostgreSQL does not answer at the host and port of the dsn",
    "certificate verify failed": "PostgreSQL's TLS certificate is not trusted",
    "root certificate file": "PostgreSQL's TLS certificate cannot be checked: the dsn names no root certificate that is there",
    "does not match host name": "PostgreSQL's TLS certificate is for another host",
    "does not support SSL": "the dsn asks for TLS and PostgreSQL does not offer it",
    "the database system is starting up": "PostgreSQL is starting up: run again in a moment",
    "too many clients": "PostgreSQL has no connection left",
    "terminating connection": "PostgreSQL ended the connection while the model was being read",
    "server closed the connection": "PostgreSQL closed the connection while the model was being read",
    "connection option": "the dsn is not a PostgreSQL address: write @, / and : in a password as %40, %2F and %3A",
    "invalid port number": "the dsn is not a PostgreSQL address: write @, / and : in a password as %40, %2F and %3A",
}


def address(dsn: str) -> str:
    """Return the dsn with the settings of every connection: the server converts text to UTF-8, whatever its database's encoding.

    Raises:
        SourceError: it is no address of a PostgreSQL database.
    """
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        return make_conninfo(dsn, **{**_CONNECTION, **conninfo_to_dict(dsn), "client_encoding": "UTF8"})
    except psycopg.Error:
        raise SourceError("the dsn is not a PostgreSQL address",
                          hint="write it as postgresql://user:${PASSWORD}@host:5432/database") from None  # fmt: skip


_OF_SQL = frozenset(("08", "0A", "25", "28", "34", "3D", "3F", "40", "42", "53", "54", "55", "57", "58"))
"""Classes of SQLSTATE whose texts quote the query, names and the server, and never a row's value (PostgreSQL documentation,
appendix A)."""


def is_of_values(error: Exception) -> bool:
    """Whether the server's text may quote a row's value. Errors within a stream do not carry their SQLSTATE."""
    state = getattr(error, "sqlstate", None)
    text = str(error)
    if state:
        return state[:2] not in _OF_SQL
    return "ERROR:  " in text and not any(part in text for part in _KNOWN)


def kind_of(state: str | None, column: str | None = None) -> str:
    """The kind of an error about a value, in words of ours."""
    from psycopg.errors import lookup

    said = f"the column {column} fails for a row" if column else "a value of a row makes it fail"
    if not state:
        return said
    try:
        name = lookup(state).__name__
    except KeyError:
        name = "Error"
    return f"{said}: {re.sub('(?<=[a-z])(?=[A-Z])', ' ', name).lower()} (SQLSTATE {state})"


def explain(error: Exception | str) -> str:
    """A driver's error in one line, without a row's values."""
    text = str(error)
    for part, said in _KNOWN.items():
        if part in text:
            return said
    if isinstance(error, Exception) and is_of_values(error):
        return kind_of(getattr(error, "sqlstate", None))
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith(("connection to server", "Multiple"))]
    if "FATAL:  " in text:
        lines = [text.split("FATAL:  ")[-1].split("\n")[0]]
    where = next((line for line in lines if line.startswith("LINE ")), "")
    first = lines[0].split("ERROR:  ")[-1] if lines else "PostgreSQL could not be read"
    return f"{first} [{where}]" if where else first
