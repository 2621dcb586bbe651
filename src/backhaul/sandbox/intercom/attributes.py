"""The attributes of a simulated workspace, and what values each takes."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_NAME = re.compile(r"[\w$€£¥ -]+")
_TYPES = ("string", "integer", "float", "boolean", "datetime", "date", "options")
_LARGEST = 2**31 - 1


class Refusal(Exception):
    """What Intercom says to a request that it does not take."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.field = status, code, field


@dataclass(frozen=True, slots=True)
class Attribute:
    """One data attribute; `model` is contact or company."""

    name: str
    model: str
    kind: str = "string"
    custom: bool = False
    writable: bool = True
    options: tuple[str, ...] = ()
    archived: bool = False
    id: int = 0

    def json(self) -> dict[str, Any]:
        full = f"custom_attributes.{self.name}" if self.custom else self.name
        body: dict[str, Any] = {
            "type": "data_attribute", "name": self.name, "label": self.name, "full_name": full, "description": "",
            "data_type": self.kind,
            "api_writable": self.writable, "ui_writable": self.custom, "messenger_writable": True, "custom": self.custom,
            "archived": self.archived, "model": self.model,
        }  # fmt: skip
        if self.custom:
            body |= {
                "id": self.id,
                "admin_id": "1",
                "created_at": int(time.time()),
                "updated_at": int(time.time()),
            }
        return body | ({"options": list(self.options)} if self.options else {})

    def accept(self, value: Any, longest: int) -> Any:
        """The value as it would be held. Raises: Refusal."""
        if value is None:
            return None
        kinds: dict[str, tuple[type, ...]] = {
            "string": (str,), "boolean": (bool,), "integer": (int,), "float": (int, float), "date": (int,),
        }  # fmt: skip
        if type(value) not in kinds[self.kind]:
            said = f"{self.name} expects a value of type {self.kind}, but was given {str(value)[:40]!r}"
            raise Refusal(400, "parameter_invalid", said, self.name)
        if self.options and value not in self.options:
            raise Refusal(400, "parameter_invalid", f"{value!r} is not an option of {self.name}", self.name)
        return value[:longest] if self.custom and isinstance(value, str) else value


def _standard(model: str, **kinds: str) -> dict[str, Attribute]:
    return {name: Attribute(name, model, kind) for name, kind in kinds.items()}


def fresh() -> dict[str, dict[str, Attribute]]:
    """Model -> attributes by name."""
    contact = _standard(
        "contact", external_id="string", email="string", role="string", name="string", phone="string", avatar="string",
        owner_id="string", language_override="string", signed_up_at="date", last_seen_at="date",
        unsubscribed_from_emails="boolean", email_verified="boolean",
    )  # fmt: skip
    company = _standard(
        "company", company_id="string", name="string", plan="string", website="string", industry="string", size="integer",
        monthly_spend="integer", remote_created_at="date",
    )  # fmt: skip
    return {"contact": contact, "company": company}


def defined(body: Mapping[str, Any], held: Mapping[str, Mapping[str, Attribute]], number: int) -> Attribute:
    """A new custom attribute. Raises: Refusal, in the words of the OpenAPI document's examples."""
    name, model, kind = str(body.get("name") or ""), body.get("model"), body.get("data_type")
    if model not in held:
        raise Refusal(
            400,
            "parameter_invalid",
            "The Data Attribute model field must be either contact or company",
            "model",
        )
    if not _NAME.fullmatch(name):
        raise Refusal(
            400, "parameter_invalid",
            "Your name for this attribute must only contain alphanumeric characters, currency symbols, and hyphens", "name",
        )  # fmt: skip
    if any(name in attributes for attributes in held.values()):
        raise Refusal(400, "parameter_invalid", f"You already have '{name}' in your {model} data.", "name")
    if kind not in _TYPES:
        raise Refusal(400, "parameter_invalid", "Data Type isn't an option", "data_type")
    given = body.get("options") or ()
    options = tuple(str(item["value"]) if isinstance(item, dict) else str(item) for item in given)
    shown = {"datetime": "date", "options": "string"}.get(str(kind), str(kind))
    return Attribute(name, str(model), shown, custom=True, options=options, id=number)


def whole(name: str, value: Any) -> Any:
    """Companies' whole numbers cut what comes after the point, up to 2147483647 (OpenAPI document: monthly_spend)."""
    if isinstance(value, float):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value > _LARGEST:
        raise Refusal(400, "parameter_invalid", f"{name} is too large", name)
    return value
