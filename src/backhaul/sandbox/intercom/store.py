"""The simulated workspace's contacts and companies."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from backhaul.sandbox.intercom.attributes import Attribute, Refusal, whole

WORKSPACE = "sandbox1"
_NUMBERS = count(0x6064D5464B4A359D4DF67000)
_EMPTY = {"type": "list", "data": [], "total_count": 0, "has_more": False}
_PLACES = ("android_app_name", "android_app_version", "android_device", "android_os_version", "android_sdk_version",
           "android_last_seen_at", "ios_app_name", "ios_app_version", "ios_device", "ios_os_version", "ios_sdk_version",
           "ios_last_seen_at", "browser", "browser_version", "browser_language", "os", "last_replied_at",
           "last_contacted_at", "last_email_opened_at", "last_email_clicked_at")  # fmt: skip


@dataclass
class Item:
    """One contact or company. `values` are its standard attributes, `custom` the others."""

    values: dict[str, Any] = field(default_factory=dict)
    custom: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: f"{next(_NUMBERS):x}")
    created: int = field(default_factory=lambda: int(time.time()))
    updated: int = 0
    changed: float = 0.0
    """Monotonic seconds of the last write."""
    before: Item | None = None
    """As it was before the last write, which is how search still has it for a while; None: it is new."""
    companies: list[str] = field(default_factory=list)

    def flat(self) -> dict[str, Any]:
        return self.values | {f"custom_attributes.{name}": value for name, value in self.custom.items()}

    def contact(self) -> dict[str, Any]:
        held = self.values
        lists = {
            name: {**_EMPTY, "url": f"/contacts/{self.id}/{name}"} for name in ("tags", "notes", "companies")
        }
        lists["companies"] |= {
            "total_count": len(self.companies),
            "data": [{"type": "company", "id": one, "url": f"/companies/{one}"} for one in self.companies],
        }
        names = (
            "external_id",
            "email",
            "phone",
            "name",
            "avatar",
            "owner_id",
            "signed_up_at",
            "last_seen_at",
        )
        return {
            "type": "contact", "id": self.id, "workspace_id": WORKSPACE, "role": held.get("role", "user"),
            **{name: held.get(name) for name in (*names, "language_override")}, **dict.fromkeys(_PLACES),
            "social_profiles": {"type": "list", "data": []}, "has_hard_bounced": False, "marked_email_as_spam": False,
            "unsubscribed_from_emails": bool(held.get("unsubscribed_from_emails")), "created_at": self.created,
            "updated_at": self.updated, "location": {"type": "location", "country": None, "region": None, "city": None},
            "custom_attributes": self.custom, **lists,
        }  # fmt: skip

    def company(self, users: int) -> dict[str, Any]:
        held = {name: value for name, value in self.values.items() if name != "plan" and value is not None}
        plan = self.values.get("plan")
        return {
            "type": "company", "id": self.id, "app_id": WORKSPACE, "created_at": self.created, "updated_at": self.updated,
            "monthly_spend": 0, "session_count": 0, "user_count": users, **held,
            "plan": {"type": "plan", "id": "269315", "name": plan} if plan else {},
            "custom_attributes": self.custom, "tags": {"type": "tag.list", "tags": []},
            "segments": {"type": "segment.list", "segments": []},
        }  # fmt: skip


@dataclass
class Room:
    """One kind of record, by id, with its keys."""

    model: str
    attributes: dict[str, Attribute]
    keys: tuple[str, ...]
    longest_text: int = 255
    live: dict[str, Item] = field(default_factory=dict)
    archived: dict[str, Item] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    index: dict[tuple[str, str], str] = field(default_factory=dict)

    def held(self, name: str, value: Any) -> Item | None:
        """A live or archived record under a key."""
        found = self.index.get((name, _folded(name, value))) if value else None
        return None if found is None else self.live.get(found) or self.archived.get(found)

    def accepted(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Standard and custom values of a request as they would be held. Raises: Refusal."""
        custom = body.get("custom_attributes") or {}
        if not isinstance(custom, Mapping):
            raise Refusal(400, "parameter_invalid", "custom_attributes is not an object", "custom_attributes")
        values = {name: value for name, value in body.items() if name != "custom_attributes"}
        if self.model == "company":
            values |= {
                name: whole(name, values[name]) for name in ("size", "monthly_spend") if name in values
            }
        return self._each(values, False), self._each(custom, True)

    def _each(self, values: Mapping[str, Any], custom: bool) -> dict[str, Any]:
        """A standard name that Intercom does not know is let pass without a word; a custom one is refused."""
        known = {name: attribute for name, attribute in self.attributes.items() if attribute.custom is custom}
        for name in values if custom else ():
            if name not in known or known[name].archived:
                raise Refusal(400, "parameter_invalid", f"Custom attribute '{name}' does not exist", name)
        return {
            name: known[name].accept(value, self.longest_text)
            for name, value in values.items()
            if name in known
        }

    def store(self, item: Item, values: Mapping[str, Any], custom: Mapping[str, Any]) -> None:
        for name in self.keys:
            if name in values:
                self._unname(item, name)
        if item.changed:
            item.before = replace(item, values=dict(item.values), custom=dict(item.custom), before=None)
        item.values.update(values)
        item.custom.update(custom)
        item.updated, item.changed = int(time.time()), time.monotonic()
        self.live[item.id] = item
        for name in self.keys:
            if item.values.get(name):
                self.index[name, _folded(name, item.values[name])] = item.id

    def erase(self, item: Item) -> None:
        for name in self.keys:
            self._unname(item, name)
        self.live.pop(item.id, None)
        self.archived.pop(item.id, None)
        self.erased.add(item.id)

    def _unname(self, item: Item, name: str) -> None:
        place = (name, _folded(name, item.values.get(name) or ""))
        if self.index.get(place) == item.id:
            del self.index[place]


def _folded(name: str, value: Any) -> str:
    return str(value).strip().lower() if name == "email" else str(value)
