"""The users of a simulated workspace, its custom attributes, and what becomes of a value that does not fit: Braze mostly drops
or cuts it without a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from typing import Any

import orjson

Body = dict[str, Any]
STANDARD = (
    "first_name", "last_name", "email", "phone", "home_city", "country", "language", "gender", "time_zone", "dob",
    "email_subscribe", "push_subscribe",
)  # fmt: skip
"""Standard attributes that an export gives back."""
UNREAD = (
    "current_location", "subscription_groups", "image_url", "date_of_first_session", "date_of_last_session",
    "marked_email_as_spam_at", "email_open_tracking_disabled", "email_click_tracking_disabled",
)  # fmt: skip
_CHOICES = {
    "gender": ("M", "F", "O", "N", "P"),
    "email_subscribe": ("opted_in", "subscribed", "unsubscribed"),
    "push_subscribe": ("opted_in", "subscribed", "unsubscribed"),
}
_ALL_STANDARD = frozenset((*STANDARD, *UNREAD))
_NOT_ATTRIBUTES = frozenset({"external_id", "braze_id", "user_alias", "push_token_import"})
_LONGEST_NAME = 255
"""Characters of a name within an object (page: nested custom attributes)."""
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_IDS = count(0x619D6CEEF2602529)


class Refusal(Exception):
    """What Braze says to one object that it does not take."""


@dataclass(slots=True)
class Attribute:
    """A custom attribute; `kind` is that of its first value."""

    name: str
    kind: str
    length: int | None = None
    status: str = "Active"

    def json(self) -> Body:
        length = self.length if self.kind == "Array" else None
        return {
            "name": self.name, "data_type": self.kind, "array_length": length, "status": self.status, "description": None,
            "tag_names": [],
        }  # fmt: skip


@dataclass(slots=True)
class User:
    """One profile."""

    braze_id: str
    external_id: str | None = None
    aliases: tuple[dict[str, str], ...] = ()
    standard: Body = field(default_factory=dict)
    custom: Body = field(default_factory=dict)
    happened: tuple[Body, ...] = ()
    """Events and purchases, in order."""

    def flat(self) -> Body:
        aliases = [f"{alias['alias_label']}:{alias['alias_name']}" for alias in self.aliases]
        return {"external_id": self.external_id, "aliases": aliases, **self.standard, **self.custom}

    def export(self, wanted: set[str]) -> Body:
        """As little as possible: nothing that is null, false or empty (page: /users/export/ids)."""
        every = {
            "external_id": self.external_id, "braze_id": self.braze_id, "user_aliases": list(self.aliases),
            "custom_attributes": {name: value for name, value in self.custom.items() if not _empty(value)},
            "email_subscribe": "subscribed", "push_subscribe": "subscribed", **self.standard,
        }  # fmt: skip
        return {
            name: value
            for name, value in every.items()
            if (not wanted or name in wanted) and not _empty(value)
        }


class Store:
    """Users by each of their names, and the workspace's custom attributes."""

    def __init__(self) -> None:
        self.users: dict[str, User] = {}
        """By braze_id, oldest first."""
        self.external: dict[str, User] = {}
        self.attributes: dict[str, Attribute] = {}

    def named(self, who: Mapping[str, Any]) -> User | None:
        """The user that an object names. Raises: Refusal where it names none."""
        if who.get("external_id") is not None:
            return self.external.get(str(who["external_id"]))
        if who.get("braze_id") is not None:
            return self.users.get(who["braze_id"])
        alias = who.get("user_alias")
        if not isinstance(alias, dict) or not alias.get("alias_name") or not alias.get("alias_label"):
            raise Refusal("'external_id', 'braze_id', 'user_alias', 'email' or 'phone' is required")
        wanted = {name: str(alias[name]) for name in ("alias_name", "alias_label")}
        return next((user for user in self.users.values() if wanted in user.aliases), None)

    def remove(self, user: User) -> None:
        del self.users[user.braze_id]
        self.external = {name: held for name, held in self.external.items() if held is not user}

    def make(self, who: Mapping[str, Any]) -> User:
        """Raises: Refusal."""
        external = who.get("external_id")
        if external is None and who.get("braze_id") is not None:
            raise Refusal("The braze_id provided does not belong to a user")
        if external is not None and not str(external).strip():
            raise Refusal("'external_id' must not be blank")
        user = User(f"{next(_IDS):024x}", None if external is None else str(external))
        if external is None:
            user.aliases = ({name: str(who["user_alias"][name]) for name in ("alias_name", "alias_label")},)
        else:
            self.external[str(external)] = user
        self.users[user.braze_id] = user
        return user

    def check(self, item: Mapping[str, Any]) -> None:
        """What Braze refuses. Raises: Refusal."""
        email = item.get("email")
        if email is not None and not (isinstance(email, str) and _EMAIL.fullmatch(email)):
            raise Refusal("'email' is invalid")
        for name in _CHOICES.keys() & item.keys():
            if item[name] is not None and item[name] not in _CHOICES[name]:
                raise Refusal(f"'{name}' must be one of {', '.join(_CHOICES[name])}")

    def set(self, user: User, item: Mapping[str, Any]) -> None:
        """Writes attributes as Braze does: what does not fit is dropped or cut, and nobody is told."""
        merging = item.get("_merge_objects") is True
        for name, value in item.items():
            if name in _NOT_ATTRIBUTES or name[0] == "_":
                continue
            if name in _ALL_STANDARD:
                user.standard[name] = _standard(name, value)
            elif value is None:
                user.custom.pop(name, None)
            else:
                self._set_custom(user, name, value, merging)

    def _set_custom(self, user: User, name: str, value: Any, merging: bool) -> None:
        known = self.attributes.get(name)
        if known is None:
            known = self.attributes[name] = Attribute(name, kind_of(value))
        if known.status != "Active":
            return
        before = user.custom.get(name)
        if isinstance(value, dict):
            value = _operated(before, value)
        if not fits(known.kind, value) or (isinstance(value, dict | list) and poisoned(value)):
            return
        if merging and isinstance(value, dict) and isinstance(before, dict):
            value = merged(before, value)
        if known.kind == "Array":
            value = list({orjson.dumps(one): one for one in value}.values())[: known.length or 25]
        if known.kind in ("Object", "Object Array") and len(orjson.dumps(value)) > 100 * 1024:
            return
        user.custom[name] = value[:255] if isinstance(value, str) else value


def _operated(before: Any, value: Body) -> Any:
    """What an operator makes of the value that was there."""
    if value.keys() == {"inc"}:
        return (before or 0) + value["inc"]
    if value and value.keys() <= {"add", "remove"}:
        kept = [one for one in before or [] if one not in value.get("remove", ())]
        return [*kept, *value.get("add", ())]
    return value


def _empty(value: Any) -> bool:
    """Whether an export leaves a value out: null, false, or nothing in it; a 0 is a value."""
    return value is False or value in (None, "", [], {})


def _standard(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "country":
        return value if re.fullmatch(r"[A-Z]{2}", str(value)) else None
    if name == "dob":
        return f"{value}T00:00:00.000Z" if re.fullmatch(r"\d{4}-\d\d-\d\d", str(value)) else None
    return value


def kind_of(value: Any) -> str:
    """The data type of an attribute that begins with this value."""
    if isinstance(value, bool):
        return "Boolean"
    if isinstance(value, int | float):
        return "Number"
    if isinstance(value, list):
        return "Object Array" if any(isinstance(one, dict) for one in value) else "Array"
    if isinstance(value, dict):
        return (
            "Number"
            if value.keys() == {"inc"}
            else "Array"
            if value.keys() <= {"add", "remove"}
            else "Object"
        )
    return "Date" if is_moment(value) else "String"


def is_moment(value: Any) -> bool:
    """Whether a text is ISO 8601, which makes an attribute a date."""
    try:
        return len(str(value)) >= 10 and datetime.fromisoformat(str(value)) is not None
    except ValueError:
        return False


def fits(kind: str, value: Any) -> bool:
    """Whether an attribute of a kind takes a value; from memory, and by type alone."""
    if kind == "Date":
        return is_moment(value)
    if kind == "String":
        return isinstance(value, str)
    if kind in ("Array", "Object Array"):
        return isinstance(value, list)
    return kind_of(value) == kind


def poisoned(value: Any) -> bool:
    """Whether one member's null, name or moment makes Braze drop the whole of an object."""
    if isinstance(value, dict):
        if value.keys() == {"$time"}:
            return not is_moment(value["$time"])
        names = any(set(" .$") & set(name) or len(name) > _LONGEST_NAME for name in value)
        return names or any(one is None or poisoned(one) for one in value.values())
    return isinstance(value, list) and any(isinstance(one, dict) and poisoned(one) for one in value)


def merged(before: Body, value: Body) -> Body:
    """Members of both; those of the second win, all the way down."""
    both = {
        name: merged(before[name], one)
        if isinstance(one, dict) and isinstance(before.get(name), dict)
        else one
        for name, one in value.items()
    }
    return {**before, **both}
