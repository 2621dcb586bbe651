"""Where a MySQL or MariaDB server is, from a URL with the parameter names of MySQL's own URI-like connection strings."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from backhaul.errors import Halt

_HERE = ("127.0.0.1", "localhost", "::1")
_MODES = ("DISABLED", "REQUIRED", "VERIFY_CA", "VERIFY_IDENTITY")
_SHAPE = "mysql://user:password@host:3306/database"


def address(dsn: str) -> dict[str, Any]:
    """What the driver needs to connect. Without `ssl-mode` the connection is encrypted, but for one to this machine.

    Raises:
        Halt: the DSN is none, without showing it.
    """
    try:
        parts = urlsplit(dsn)
        port = parts.port or 3306
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise not_one("is not a MySQL connection string") from None
    if parts.scheme not in ("mysql", "mariadb") or not parts.username:
        raise not_one("is not a MySQL connection string")
    more = {name.lower().replace("_", "-"): value for name, value in given}
    unknown = sorted(more.keys() - {"ssl-mode", "ssl-ca", "socket"})
    if unknown:
        raise not_one(f"has a parameter that is not known here: {unknown[0]}")
    host = parts.hostname or "127.0.0.1"
    return {
        "host": host, "port": port, "user": unquote(parts.username), "password": unquote(parts.password or ""),
        "db": unquote(parts.path[1:]) or None, "unix_socket": more.get("socket"),
        "ssl": encryption(more, local=host in _HERE or "socket" in more),
    }  # fmt: skip


def encryption(given: dict[str, str], *, local: bool) -> ssl.SSLContext | None:
    ca = given.get("ssl-ca")
    usual = "VERIFY_CA" if ca else "DISABLED" if local else "REQUIRED"
    mode = given.get("ssl-mode", usual).upper()
    if mode not in _MODES:
        raise not_one(f"has an ssl-mode that is none of {', '.join(_MODES)}")
    if mode == "DISABLED":
        return None
    if ca and not Path(ca).is_file():
        raise not_one(f"names an ssl-ca that is no file: {ca}")
    context = ssl.create_default_context(cafile=ca)
    context.check_hostname = mode == "VERIFY_IDENTITY"
    context.verify_mode = ssl.CERT_NONE if mode == "REQUIRED" else ssl.CERT_REQUIRED
    return context


def not_one(problem: str) -> Halt:
    return Halt(f"dsn {problem}", hint=f"{_SHAPE}, with ?ssl-mode=, ssl-ca= or socket= where needed")
