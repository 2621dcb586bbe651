"""What a simulated Iterable project holds: users, the types of their fields, lists, events."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_DAY = re.compile(
    r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d( [+-]\d\d:\d\d)?|T\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?)?"
)
FIELDS = {
    "email": "string", "userId": "string", "name": "string", "plan": "string", "seats": "long", "mrr": "double",
    "trial": "boolean", "signupDate": "date", "phoneNumber": "string", "home_geo_location": "geo_location",
    "address": "object", "address.city": "string", "address.zip": "string", "profileUpdatedAt": "date",
    "itblInternal.documentUpdatedAt": "date",
}  # fmt: skip


@dataclass
class User:
    """One profile; it goes by an address, a user id, or both."""

    email: str | None
    user_id: str | None
    data: dict[str, Any] = field(default_factory=dict)
    number: int = 0
    """Its place in the order in which users came."""

    @property
    def name(self) -> str:
        return self.user_id or self.email or ""

    def names(self) -> list[tuple[str, str]]:
        named = (("email", self.email and self.email.lower()), ("id", self.user_id))
        return [(kind, name) for kind, name in named if name is not None]

    def shown(self) -> dict[str, Any]:
        who = {"email": self.email, "userId": self.user_id}
        return {
            name: value for name, value in {**who, "dataFields": self.data | who}.items() if value is not None
        }


@dataclass
class Failed(Exception):
    """A record is refused, for this reason."""

    reason: str


@dataclass
class Project:
    """One project. `by_email`: users are told apart by address; else by user id, as in a hybrid project that prefers it."""

    by_email: bool = True
    fields: dict[str, str] = field(default_factory=lambda: dict(FIELDS))
    lists: dict[int, tuple[str, str, set[str]]] = field(default_factory=dict)
    """By id: its name, its kind, its members' names."""
    events: dict[str, dict[str, Any]] = field(default_factory=dict)
    catalogs: dict[str, dict[str, dict[str, Any]]] = field(default_factory=lambda: {"Plans": {}})
    """Items by id, by catalog."""
    mappings: dict[str, dict[str, str]] = field(
        default_factory=lambda: {"Plans": {"name": "string", "price": "double"}}
    )
    """The types of the fields of each catalog that have one."""
    forgotten: set[str] = field(default_factory=set)
    _users: dict[int, User] = field(default_factory=dict)
    _named: dict[tuple[str, str], list[User]] = field(default_factory=dict)
    """Users by ("email" or "id", what it is)."""
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    @property
    def users(self) -> list[User]:
        return list(self._users.values())

    def find(self, email: str | None, user_id: str | None) -> User | None:
        found = list(self._named.get(("email", email.lower()), ())) if email is not None else []
        if user_id is not None and (email is None or not self.by_email):
            found += self._named.get(("id", user_id), ())
        return min(found, key=lambda user: user.number, default=None)

    def sharing(self, user: User) -> list[User]:
        """All profiles with the user id of one."""
        return list(self._named.get(("id", user.user_id or ""), ()))

    def add(self, user: User) -> None:
        user.number = user.number or next(self._numbers)
        self._users[user.number] = user
        for name in user.names():
            self._named.setdefault(name, []).append(user)

    def remove(self, user: User) -> None:
        del self._users[user.number]
        for name in user.names():
            self._named[name].remove(user)

    def person(self, given: Mapping[str, Any]) -> tuple[str | None, str | None]:
        """Raises: Failed: who it is of cannot be right, or must not be known any more."""
        email, user_id = given.get("email"), given.get("userId")
        if email is not None and not (isinstance(email, str) and _ADDRESS.fullmatch(email)):
            raise Failed("invalidEmails")
        if user_id is not None and not (isinstance(user_id, str) and 0 < len(user_id) <= 52):
            raise Failed("invalidUserIds")
        if email is None and user_id is None:
            raise Failed("invalidEmails")
        for name, reason in ((email, "forgottenEmails"), (user_id, "forgottenUserIds")):
            if name is not None and name.lower() in self.forgotten:
                raise Failed(reason)
        return email, user_id

    def store(self, given: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Makes or updates a user.

        Raises:
            Failed: this one is refused.
        """
        email, user_id = self.person(given)
        user = self.find(email, user_id)
        if user is None and email is None and self.by_email and not given.get("preferUserId"):
            raise Failed("notFoundUserIds")
        if user is None:
            user = User(email, user_id)
            self.add(user)
        elif user_id and user_id != user.user_id:
            self.remove(user)
            user.user_id = user_id
            self.add(user)
        for name, value in data.items():
            if value is None:
                user.data.pop(name, None)
            elif (
                isinstance(value, dict)
                and isinstance(user.data.get(name), dict)
                and given.get("mergeNestedObjects")
            ):
                kept = {**user.data[name], **value}
                user.data[name] = {inner: one for inner, one in kept.items() if one is not None}
            else:
                user.data[name] = value

    def mismatches(self, data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Fields whose values are of another type than the project's, with the value."""
        for name, value in _flat(data):
            known = self.fields.get(name)
            if value is not None and known is not None and not fits(known, value):
                yield name, value

    def unknown(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Fields at the top that the project does not have."""
        return {name: value for name, value in data.items() if name not in self.fields}

    def learn(self, data: Mapping[str, Any]) -> None:
        for name, value in _flat(data):
            place = name.endswith("_geo_location") and fits("geo_location", value)
            self.fields.setdefault(name, "geo_location" if place else kind_of(value))


def _flat(data: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        yield name, value
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", one) for inner, one in value.items())


def kind_of(value: Any) -> str:
    """The type that the first value of a field gives it."""
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "long" if isinstance(value, int) else "double"
    if isinstance(value, dict):
        return "object"
    return "date" if isinstance(value, str) and _DAY.fullmatch(value) else "string"


def fits(kind: str, value: Any) -> bool:
    """Whether a value may be stored in a field of this type; of a list each element."""
    if isinstance(value, list):
        return all(fits(kind, one) for one in value)
    if kind == "geo_location":
        return isinstance(value, dict) and set(value) == {"lat", "lon"}
    if kind == "string":
        return isinstance(value, str)
    if kind == "double":
        return kind_of(value) in ("long", "double")
    return kind_of(value) == kind
