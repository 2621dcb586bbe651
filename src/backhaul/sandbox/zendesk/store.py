"""The simulated account's users and organizations, their fields, and what values each takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import count
from typing import Any

_IDS = count(421_941_820_731)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_ROLES = ("end-user", "agent", "admin")
_NEVER = ("id", "url", "created_at", "updated_at", "active")
_SENT_ALONG = ("skip_verify_email",)


class Refusal(Exception):
    """What Zendesk says to one record that it does not take. `details`: attribute -> words; `code`: the details' code."""

    def __init__(self, status: int, error: str, details: Mapping[str, str] | str, code: str = "") -> None:
        super().__init__(details if isinstance(details, str) else "; ".join(details.values()))
        self.status, self.error, self.details, self.code = status, error, details, code

    def json(self) -> dict[str, Any]:
        if isinstance(self.details, str):
            return {"error": self.error, "description": self.details}
        coded = {"error": self.code} if self.code else {}
        each = {name: [{"description": words, **coded}] for name, words in self.details.items()}
        return {"error": self.error, "description": "Record validation errors", "details": each}


def invalid(name: str, words: str, code: str = "") -> Refusal:
    return Refusal(422, "RecordInvalid", {name: words}, code)


def not_found() -> Refusal:
    return Refusal(404, "RecordNotFound", "Not found")


def stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True)
class Custom:
    """One user or organization field; `options` are the values (tags) of a dropdown."""

    key: str
    type: str = "text"
    options: tuple[str, ...] = ()
    active: bool = True
    id: int = field(default_factory=lambda: next(_IDS))

    def json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "id": self.id, "key": self.key, "type": self.type, "title": self.key, "active": self.active, "system": False,
            "description": "", "position": 0, "regexp_for_validation": None, "created_at": stamp(), "updated_at": stamp(),
        }  # fmt: skip
        options = [
            {"id": number, "name": value.title(), "value": value} for number, value in enumerate(self.options)
        ]
        tag = {"tag": self.key} if self.type == "checkbox" else {}
        return body | tag | ({"custom_field_options": options} if self.options else {})

    def tags(self, value: Any) -> list[str]:
        """The tags that a record with this value has."""
        if self.type == "checkbox":
            return [self.key] if value else []
        return [one for one in (value if isinstance(value, list) else [value]) if one in self.options]

    def accept(self, value: Any) -> Any:
        """The value as it would be held. Raises: Refusal."""
        if value is None or value == "":
            return False if self.type == "checkbox" else None
        good = {
            "checkbox": isinstance(value, bool),
            "integer": type(value) is int,
            "decimal": type(value) in (int, float),
            "dropdown": value in self.options,
            "multiselect": isinstance(value, list) and all(item in self.options for item in value),
            "date": isinstance(value, str) and _is_date(value),
        }.get(self.type, isinstance(value, str))
        if not good:
            raise invalid(self.key, f"{self.key}: {value} is not a valid value for this {self.type} field")
        return f"{value[:10]}T00:00:00Z" if self.type == "date" else value


def _is_date(text: str) -> bool:
    try:
        return bool(date.fromisoformat(text[:10]))
    except ValueError:
        return False


@dataclass
class Record:
    """One user or organization. `emails` are a user's identities, the primary one first."""

    values: dict[str, Any]
    custom: dict[str, Any]
    id: int = field(default_factory=lambda: next(_IDS))
    created: str = field(default_factory=stamp)
    updated: str = ""
    active: bool = True
    emails: dict[int, str] = field(default_factory=dict)


@dataclass
class Room:
    """One kind of record. `one`, `many` and `custom` are its names in bodies."""

    one: str
    many: str
    custom: str
    blank: Mapping[str, Any]
    fields: dict[str, Custom]
    records: dict[int, Record] = field(default_factory=dict)
    index: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def is_users(self) -> bool:
        return self.one == "user"

    def live(self) -> list[Record]:
        return [record for record in self.records.values() if record.active]

    def held(self, name: str, value: Any) -> Record | None:
        found = self.index.get((name, str(value).lower())) if value not in (None, "") else None
        return None if found is None else self.records[found]

    def matched(self, body: Mapping[str, Any]) -> Record | None:
        """By external_id in any case, then a user by e-mail; an organization never by name."""
        names = ("external_id", "email") if self.is_users else ("external_id",)
        if not self.is_users and body.get("id") is not None:
            return self.at(body["id"])
        return next((found for name in names if (found := self.held(name, body.get(name)))), None)

    def at(self, number: Any) -> Record:
        """Raises: Refusal."""
        record = self.records.get(int(number)) if str(number).isdecimal() else None
        if record is None or not record.active:
            raise not_found()
        return record

    def save(self, record: Record | None, body: Mapping[str, Any]) -> Record:
        """Raises: Refusal; nothing is changed."""
        values, custom = self._accepted(body, record)
        if record is None:
            record = Record(dict(self.blank), {key: item.accept(None) for key, item in self.fields.items()})
        email = values.pop("email", None)
        self._unindex(record)
        record.values.update(values)
        record.custom.update(custom)
        if email and email.lower() not in [held.lower() for held in record.emails.values()]:
            record.emails[next(_IDS)] = email
        record.updated = stamp()
        self.records[record.id] = record
        self.reindex(record)
        return record

    def _accepted(
        self, body: Mapping[str, Any], record: Record | None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Names that Zendesk does not know are let pass without a word; from memory."""
        values = {name: value for name, value in body.items() if name in self.blank or name == "email"}
        if not values.get("name", record is not None):
            raise invalid("name", "Name: is too short (minimum one characters)")
        if values.get("role") not in (None, *_ROLES):
            raise invalid("role", f"Role: {values['role']} is not a role")
        if values.get("email") and not _EMAIL.fullmatch(str(values["email"])):
            raise invalid("email", f"Email: {values['email']} is not properly formatted")
        for name in self._unique():
            other = self.held(name, values.get(name))
            if other is not None and other is not record:
                said = f"{values[name]} is already being used by another {self.one}"
                raise invalid(name, f"{name.title()}: {said}", "DuplicateValue")
        custom = body.get(self.custom) or {}
        return values, {
            key: self.fields[key].accept(value) for key, value in custom.items() if key in self.fields
        }

    def _unique(self) -> Sequence[str]:
        return ("external_id", "email") if self.is_users else ("external_id", "name")

    def reindex(self, record: Record) -> None:
        for name in ("external_id", "name"):
            if record.values.get(name) and (name != "name" or not self.is_users):
                self.index[name, str(record.values[name]).lower()] = record.id
        for email in record.emails.values():
            self.index["email", email.lower()] = record.id

    def _unindex(self, record: Record) -> None:
        for place in [place for place in self._places(record) if self.index.get(place) == record.id]:
            del self.index[place]

    def _places(self, record: Record) -> list[tuple[str, str]]:
        own = [(name, str(record.values.get(name)).lower()) for name in ("external_id", "name")]
        return own + [("email", email.lower()) for email in record.emails.values()]

    def remove(self, record: Record) -> None:
        """Softly: it is held, and not found any more."""
        self._unindex(record)
        record.active = False

    def json(self, record: Record, url: str) -> dict[str, Any]:
        body = {"id": record.id, "url": f"{url}/api/v2/{self.many}/{record.id}.json", **record.values}
        body |= {"created_at": record.created, "updated_at": record.updated, self.custom: record.custom}
        body["tags"] = self.tags(record)
        if self.is_users:
            email = next(iter(record.emails.values()), None) if record.active else None
            body |= {"email": email, "active": record.active}
        return body

    def tags(self, record: Record) -> list[str]:
        """Its own tags, and those that its dropdowns and checkboxes add."""
        added = (tag for key, item in self.fields.items() for tag in item.tags(record.custom.get(key)))
        return list(dict.fromkeys([*record.values["tags"], *added]))

    def flat(self, record: Record) -> dict[str, Any]:
        email = {"email": next(iter(record.emails.values()), None)} if self.is_users else {}
        return {
            **record.values,
            **email,
            **{f"{self.custom}.{key}": value for key, value in record.custom.items()},
        }


def fresh() -> dict[str, Room]:
    user: dict[str, Any] = {
        "external_id": None, "name": "", "phone": None, "role": "end-user", "alias": None, "details": None, "notes": None,
        "locale": "en-US", "time_zone": "Etc/UTC", "organization_id": None, "verified": False, "suspended": False, "tags": [],
    }  # fmt: skip
    organization: dict[str, Any] = {
        "external_id": None, "name": "", "details": None, "notes": None, "group_id": None, "domain_names": [], "tags": [],
        "shared_tickets": False, "shared_comments": False,
    }  # fmt: skip
    plans = ("free", "pro", "enterprise")
    of_users = [Custom("plan", "dropdown", plans), Custom("mrr", "decimal"), Custom("trial", "checkbox"),
                Custom("renews_on", "date"), Custom("interests", "multiselect", ("api", "apps", "voice"))]  # fmt: skip
    of_organizations = [Custom("tier", "dropdown", plans), Custom("seats", "integer")]
    return {
        "users": Room("user", "users", "user_fields", user, {item.key: item for item in of_users}),
        "organizations": Room(
            "organization", "organizations", "organization_fields", organization, {item.key: item for item in of_organizations},
        ),
    }  # fmt: skip
