"""What a simulated Klaviyo takes of a profile, and what it goes by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Body = dict[str, Any]
WHO = ("external_id", "email", "phone_number")
_KNOWN = {
    *WHO,
    "first_name",
    "last_name",
    "organization",
    "locale",
    "title",
    "image",
    "location",
    "properties",
}
_EMAIL, _PHONE = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+"), re.compile(r"\+[1-9]\d{7,14}")


class Invalid(Exception):
    """One profile is not taken."""

    def __init__(self, name: str, detail: str, code: str = "invalid") -> None:
        super().__init__(detail)
        self.name, self.code = name, code

    def json(self, pointer: str) -> Body:
        return {"id": "0", "code": self.code, "title": "Invalid input.", "detail": str(self),
                "source": {"pointer": f"{pointer}/attributes/{self.name}"}}  # fmt: skip


def check(attributes: Mapping[str, Any]) -> None:
    """Raises: Invalid."""
    if strange := attributes.keys() - _KNOWN:
        raise Invalid(min(strange), f"{min(strange)!r} is not a valid field for the resource 'profile'.")
    if not any(attributes.get(kind) for kind in WHO):
        raise Invalid("email", "One of email, phone_number, external_id is required.")
    if attributes.get("email") and not _EMAIL.fullmatch(attributes["email"]):
        raise Invalid("email", "Invalid email address")
    if attributes.get("phone_number") and not _PHONE.fullmatch(attributes["phone_number"]):
        raise Invalid("phone_number", "Invalid phone number format (Example of a valid format: +12345678901)")


def fold(kind: str, value: Any) -> tuple[str, str]:
    return kind, str(value).lower() if kind == "email" else str(value)


def keys_of(attributes: Body) -> tuple[str, ...]:
    return tuple(str(attributes[kind]) for kind in WHO if attributes.get(kind))
