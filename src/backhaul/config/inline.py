"""Secrets written into files: what counts as one, and which values have to stay out of messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_origin
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, SecretBytes, SecretStr

from backhaul.config.documents import Document, Where
from backhaul.config.interpolate import Interpolated, Text
from backhaul.config.shape import at, is_secret
from backhaul.errors import Problem

# Vendors' own marks of their tokens, as their documentation and GitHub's secret scanning patterns list them.
_TOKEN = re.compile(
    r"\b(?:pat-(?:na|eu|ap)\d-|[sr]k_(?:live|test)_|whsec_|xox[abeoprs]-|xapp-|gh[pousr]_|github_pat_|glpat-|"
    r"shpat_|shpss_|sk-ant-|sk-proj-|npm_|pypi-)[A-Za-z0-9_.~+/=-]{4,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[A-Za-z0-9_-]{30,}|\bya29\.[A-Za-z0-9_-]{20,}|\bdapi[0-9a-f]{32}"
    r"|\bSG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|\bEAA[A-Z][A-Za-z0-9]{30,}|\b00D[A-Za-z0-9]{12,15}![\w.]{20,}"
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----|hooks\.slack\.com/services/\w+"
)
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:token|secret|password|passwd|pwd|passphrase|auth|authorization|cookie|credentials?|signature|"
    r"(?:api|app|private|access|auth|secret|signing|subscription|account)[_-]?key)$",
    re.IGNORECASE,
)
_ADDRESS_KEY = re.compile(r"(?:^|_)(?:dsn|url|uri|host|endpoint|path|state)$", re.IGNORECASE)
_PLACEHOLDER = re.compile(r"\$[a-z_]+")
"""What a body of the HTTP destination has in place of records and keys."""
_SANDBOX = re.compile(r"(?:sandbox|local|demo|test|dummy|example|fake)(?:[ _-][a-z0-9]+){0,3}", re.IGNORECASE)
_SCHEME = re.compile(r"(?:bearer|basic|token|apikey)\s+", re.IGNORECASE)
_KEYWORD = re.compile(r"\bpassword\s*=\s*('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)
_HOST = re.compile(r"\bhost(?:addr)?\s*=\s*'?([^\s',]+)", re.IGNORECASE)
_WITH_SECRETS: tuple[Where, ...] = (
    ("warehouses",),
    ("destinations",),
    ("state",),
    ("dead_letters",),
)
_LOOPBACK = frozenset({"", "localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Password:
    """A password inside a DSN, in the spellings it may show up in."""

    spellings: frozenset[str]
    loopback: bool
    is_user: bool


def password_in(text: str) -> Password | None:
    """The password of a URL with a user, or of a `host=… password=…` string."""
    keyword = _KEYWORD.search(text)
    if keyword:
        found, host = keyword[1].strip("'"), _HOST.search(text)
        return Password(frozenset({found}), not host or host[1] in _LOOPBACK or host[1][0] == "/", False)
    try:
        parts = urlsplit(text.strip())
        secret, user, host_name = parts.password, parts.username, parts.hostname
    except ValueError:
        return None
    if not secret:
        return None
    return Password(frozenset({secret, unquote(secret)}), (host_name or "") in _LOOPBACK, secret == user)


def refuse_inline(
    document: Document, found: Interpolated, types: dict[Where, type[BaseModel]]
) -> Iterator[tuple[Where, Problem]]:
    """A problem for each secret that stands in the file itself. `types`: the class of each connection."""
    for where, text in found.texts.items():
        connection = next((prefix for prefix in types if where[: len(prefix)] == prefix), None)
        typed = connection is not None and _is_secret_key(types[connection], where[len(connection) :])
        reason = _reason(where, text, typed)
        if reason:
            yield where, document.problem(where, *reason)


def _is_secret_key(config: type[BaseModel], where: Where) -> bool:
    """Whether a key of a class is a secret; in a mapping of secrets (headers) the key's name tells."""
    in_mapping = any(get_origin(one) is dict for one in at(config, where[:-1]))
    return not in_mapping and any(map(is_secret, at(config, where)))


def _reason(where: Where, text: Text, secret_type: bool) -> tuple[str, str] | None:
    key = next((part for part in reversed(where) if isinstance(part, str)), "")
    place = str(where[1] if where[1] != key else where[0]) if len(where) > 2 else ""
    variable = re.sub(r"\W", "_", f"{place}_{key}").strip("_").upper()
    hint = f"write it as ${{{variable}}} and set {variable} in the environment or in .env"
    if _TOKEN.search(text.literal):
        return f"`{key}` holds a secret in plain text", hint
    if where[:1] not in _WITH_SECRETS:
        return None
    password = password_in(text.literal)
    if password and not password.loopback:
        return f"`{key}` holds a password in plain text", hint
    if name := next(
        (name for name, value in _parameters(text.literal) if _looks_secret(name, value, False)), None
    ):
        return f"`{name}` in the address of `{key}` is a secret and stands here in plain text", hint
    if where[:1] == ("state",):
        return None
    written = text.defaults if text.referenced else (text.literal,)
    if any(_looks_secret(key, value, secret_type) for value in written):
        return f"`{key}` is a secret and stands here in plain text", f"{hint}; a sandbox takes `sandbox`"
    return None


def _parameters(text: str) -> list[tuple[str, str]]:
    """The parameters of an address' query."""
    _, mark, query = text.partition("?")
    return parse_qsl(query.split("#")[0]) if mark and " " not in query else []


def _looks_secret(key: str, literal: str, secret_type: bool) -> bool:
    value = _SCHEME.sub("", literal.strip(), count=1)
    if not value or _PLACEHOLDER.fullmatch(value) or _SANDBOX.fullmatch(value):
        return False
    if _ADDRESS_KEY.search(key):
        return False
    return bool(_SECRET_KEY.search(key)) or secret_type


def secrets_of(found: Interpolated, prefix: Where, config: BaseModel) -> frozenset[str]:
    """The values below `prefix` that references brought to where a secret can stand: a secret key, a place of any type, such as
    one in a request's body, or the query of an address; and the passwords of DSNs."""
    secrets: set[str] = {value for value in _held(config) if value in found.brought}
    for where, text in found.texts.items():
        if where[: len(prefix)] != prefix or not text.brought:
            continue
        key = next((part for part in reversed(where) if isinstance(part, str)), "")
        places = at(type(config), where[len(prefix) :])
        secret = (
            any(map(is_secret, places)) or not all(map(_is_plain, places)) or bool(_SECRET_KEY.search(key))
        )
        secrets.update(_confidential(text, secret or "?" in text.literal))
    return frozenset(secrets)


def _is_plain(kind: Any) -> bool:
    """Whether the type says what stands there: a name, a number, a choice, a file."""
    return get_origin(kind) is Literal or (
        isinstance(kind, type) and issubclass(kind, str | int | float | Enum | Path | NoneType)
    )


def _confidential(text: Text, secret: bool) -> Iterator[str]:
    for value in text.brought:
        password = password_in(value)
        if password:
            yield value
            if not password.is_user:
                yield from password.spellings
        elif secret:
            yield value


def _held(value: Any) -> Iterator[str]:
    """Every secret below a configuration object."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode("utf-8", "replace")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _held(getattr(value, name))
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _held(item)
