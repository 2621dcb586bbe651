"""Takes secrets out of texts that people see: those of the project, and those that this process was given at run time."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from html import escape
from threading import Lock
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Secrets of fewer characters are left: taking each out would leave no readable text."""

_USERINFO = re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@'\"]*:)[^\s/@'\"]+(?=@)")
_KEYWORD = re.compile(r"(\bpassword\s*=\s*)('(?:[^'\\]|\\.)*'|(?!\*\*\*)[^\s'\"&]+)", re.IGNORECASE)


_given: frozenset[str] = frozenset()
_giving = Lock()


def remember(secret: str) -> None:
    """Takes a secret that was given at run time, such as an access token, out of every text from now on, until the process
    ends. Call it before the secret is used."""
    global _given
    with _giving:
        _given |= {secret}


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """Replaces each secret, also in an encoded form, and any password in a DSN by `***`."""
    pattern = _pattern(frozenset(secrets) | _given)
    if pattern is not None:
        text = pattern.sub("***", text)
    return _KEYWORD.sub(r"\1***", _USERINFO.sub(r"\1***", text))


@lru_cache(maxsize=16)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(re.escape, longest_first))) if forms else None


def _forms(secret: str) -> set[str]:
    urls = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    urls |= {quote(url, safe="") for url in urls}
    lower = {re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), url) for url in urls}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    escaped |= {json.dumps(text)[1:-1] for text in escaped}
    digits = secret.encode().hex()
    pieces = {line for line in secret.splitlines() if len(line.strip()) >= 16} if "\n" in secret else set()
    return {
        secret,
        escape(secret),
        digits,
        digits.upper(),
        *urls,
        *lower,
        *escaped,
        *pieces,
        *_base64(secret.encode()),
    }


def _base64(secret: bytes) -> set[str]:
    """The base64 text, and what of it is the same wherever the secret stands inside a longer text."""
    forms = {b64encode(secret).decode().rstrip("=")}
    for before in (0, 1, 2):
        text = b64encode(b"\0" * before + secret).decode()
        first = (before * 8 + 5) // 6
        last = (before + len(secret)) * 8 // 6
        forms.add(text[first:last])
    forms |= {form.translate(str.maketrans("+/", "-_")) for form in forms}
    return {form for form in forms if len(form) >= SHORTEST}
