"""The simulated org's records, with an index for every identifying field, and the org's own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from backhaul.sandbox.salesforce.answers import Refusal, Whole, stamp
from backhaul.sandbox.salesforce.field import SYSTEM, FieldDef

_SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_NUMBERS = count(1)
Rule = Callable[[Mapping[str, Any]], str | None]
"""A validation rule: what it says of a record that it does not take."""


def new_id(prefix: str) -> str:
    """An id of eighteen characters, the last three say which of the others are capitals (Salesforce help: 000385585)."""
    number, digits = next(_NUMBERS), ""
    while number:
        number, digit = divmod(number, 62)
        digits = _DIGITS[digit] + digits
    short = f"{prefix}Sb00000{digits:0>5}"
    parts = (short[low : low + 5] for low in (0, 5, 10))
    return short + "".join(
        _SIGNS[sum(1 << place for place, sign in enumerate(part) if sign.isupper())] for part in parts
    )


@dataclass(slots=True)
class Record:
    id: str
    values: dict[str, Any]
    created: str = field(default_factory=stamp)
    modified: str = field(default_factory=stamp)
    written: tuple[str, ...] = ()
    """The fields of the last write."""
    writes: int = 0
    """How often triggers would have run."""

    def shown(self) -> dict[str, Any]:
        own = {"Id": self.id, "IsDeleted": False, "CreatedDate": self.created}
        return {**own, "LastModifiedDate": self.modified, "SystemModstamp": self.modified, **self.values}


@dataclass(slots=True)
class SObject:
    """One kind of record."""

    name: str
    prefix: str
    fields: dict[str, FieldDef]
    rules: list[Rule] = field(default_factory=list)
    duplicate_field: str = ""
    """A duplicate rule warns where another record has the same value here."""
    locked: dict[str, int] = field(default_factory=dict)
    """Values of an identifier -> how often a write of that record still finds it locked."""
    records: dict[str, Record] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    indexes: dict[str, dict[str, dict[str, None]]] = field(default_factory=dict)

    def known(self, name: str) -> FieldDef:
        """Raises: Whole where there is no such field, or the user may not see it."""
        found = self.fields.get(name)
        if found is None:
            raise Whole("INVALID_FIELD", f"No such column '{name}' on sobject of type {self.name}")
        return found

    def reference(self, relationship: str) -> FieldDef:
        """Raises: Whole."""
        found = next((item for item in self.fields.values() if item.relationship == relationship), None)
        if found is None or not relationship:
            words = f"Didn't understand relationship '{relationship}' in field path"
            raise Whole("INVALID_FIELD", words)
        return found

    def get(self, record_id: str) -> Record | None:
        """By an id of fifteen or eighteen characters."""
        found = self.records.get(record_id)
        if found is None and len(record_id) == 15:
            return next((record for key, record in self.records.items() if key.startswith(record_id)), None)
        return found

    def at(self, record_id: str) -> Record:
        """Raises: Refusal."""
        found = self.get(record_id)
        if found is not None:
            return found
        if record_id in self.deleted:
            raise Refusal("ENTITY_IS_DELETED", "entity is deleted")
        raise Refusal("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")

    def matching(self, name: str, value: Any) -> list[Record]:
        """Records by the value of an identifying field, or of any other."""
        wanted = self.fields[name].fold(value)
        if name in self.indexes:
            return [self.records[found] for found in self.indexes[name].get(wanted, ())]
        return [
            record
            for record in self.records.values()
            if record.shown().get(name) is not None and self.fields[name].fold(record.shown()[name]) == wanted
        ]

    def accepted(
        self, values: Mapping[str, Any], record: Record | None, *, allow_save: bool
    ) -> dict[str, Any]:
        """The values as they would be stored.

        Raises:
            Whole: a field or a value that refuses the whole request.
            Refusal: the record is not taken.
        """
        named = {name: self.known(name) for name in values}
        fixed = [
            name
            for name, item in named.items()
            if not (item.createable if record is None else item.updateable)
        ]
        if fixed:
            raise Refusal(
                "INVALID_FIELD_FOR_INSERT_UPDATE",
                f"Unable to create/update fields: {', '.join(fixed)}. Please check the security settings of this field and "
                "verify that it is read/write for your profile or permission set.",
                fixed,
            )
        stored = {name: item.accept(values[name]) for name, item in named.items()}
        after = {**(record.values if record is not None else self._defaults()), **stored}
        self._complete(after)
        self._judge(after, record, allow_save=allow_save)
        return stored

    def _complete(self, after: Mapping[str, Any]) -> None:
        missing = [
            item.name for item in self.fields.values() if item.required and after.get(item.name) is None
        ]
        if missing:
            words = f"Required fields are missing: [{', '.join(missing)}]"
            raise Refusal("REQUIRED_FIELD_MISSING", words, missing)

    def _judge(self, after: Mapping[str, Any], record: Record | None, *, allow_save: bool) -> None:
        """The org's own rules, locks included."""
        for item in self.fields.values():
            value = after.get(item.name)
            others = self._others(item.name, value, record) if value is not None else []
            if others and item.unique:
                words = (
                    f"duplicate value found: {item.name} duplicates value on record with id: {others[0].id}"
                )
                raise Refusal("DUPLICATE_VALUE", words)
            if others and item.name == self.duplicate_field and not allow_save:
                raise Refusal("DUPLICATES_DETECTED", "Use one of these records?")
            if self.locked.get(str(value), 0) > 0:
                self.locked[str(value)] -= 1
                words = "unable to obtain exclusive access to this record or 1 records"
                raise Refusal("UNABLE_TO_LOCK_ROW", words)
        for rule in self.rules:
            said = rule(after)
            if said is not None:
                raise Refusal("FIELD_CUSTOM_VALIDATION_EXCEPTION", said)

    def _others(self, name: str, value: Any, record: Record | None) -> list[Record]:
        if name not in self.indexes:
            return []
        return [other for other in self.matching(name, value) if other is not record]

    def write(self, values: Mapping[str, Any], record: Record | None, *, allow_save: bool = False) -> Record:
        """A new record, or new values of one. Raises: as `accepted`."""
        stored = self.accepted(values, record, allow_save=allow_save)
        if record is None:
            record = Record(new_id(self.prefix), self._defaults())
            self.records[record.id] = record
        self._unindex(record)
        record.values.update(stored)
        record.modified, record.written = stamp(), tuple(values)
        record.writes += 1
        for name, index in self.indexes.items():
            if record.values.get(name) is not None:
                index.setdefault(self.fields[name].fold(record.values[name]), {})[record.id] = None
        return record

    def _defaults(self) -> dict[str, Any]:
        """A new record's values: a boolean is never empty."""
        system = {item.name for item in SYSTEM}
        return {
            name: False if item.type == "boolean" else None
            for name, item in self.fields.items()
            if name not in system
        }

    def _unindex(self, record: Record) -> None:
        for name, index in self.indexes.items():
            if record.values.get(name) is not None:
                index.get(self.fields[name].fold(record.values[name]), {}).pop(record.id, None)

    def remove(self, record: Record) -> None:
        """Into the recycle bin."""
        self._unindex(record)
        del self.records[record.id]
        self.deleted.add(record.id)


def sobject(name: str, prefix: str, fields: Iterable[FieldDef], **more: Any) -> SObject:
    every = {item.name: item for item in (*SYSTEM, *fields)}
    made = SObject(name, prefix, every, **more)
    made.indexes = {
        item.name: {} for item in every.values() if item.external_id or item.unique or item.type == "email"
    }
    return made


def fresh() -> dict[str, SObject]:
    """The objects of a new org."""
    key = FieldDef("External_Id__c", length=80, external_id=True, unique=True)
    score = FieldDef("Score__c", "double", scale=2)
    account = (
        FieldDef("Name", length=255, required=True), FieldDef("AccountNumber", length=40), FieldDef("Phone", "phone", 40),
        FieldDef("Website", "url"), FieldDef("Industry", "picklist", choices=("Banking", "Energy")),
        FieldDef("Rating", "picklist", choices=("Hot", "Warm", "Cold"), restricted=True),
        FieldDef("AnnualRevenue", "currency", scale=2), FieldDef("NumberOfEmployees", "int"),
        FieldDef("Active__c", "boolean"), FieldDef("Health__c", "double", scale=1, createable=False, updateable=False), key,
    )  # fmt: skip
    person = (
        FieldDef("LastName", length=80, required=True), FieldDef("FirstName", length=40), FieldDef("Email", "email", 80),
        FieldDef("Phone", "phone", 40), FieldDef("Description", "textarea", 32_000), FieldDef("Birthdate", "date"),
        FieldDef("Seen__c", "datetime"), FieldDef("Tags__c", "multipicklist", 4099, choices=("a", "b", "c")), score, key,
    )  # fmt: skip
    custom = (
        FieldDef("Name", length=80), FieldDef("Plan__c"), score, FieldDef("Loose_Id__c", external_id=True),
        FieldDef("Number__c", "double", external_id=True), key,
    )  # fmt: skip
    parent = FieldDef("AccountId", "reference", 18, reference_to="Account")
    user = (
        FieldDef("Username", length=80, required=True, unique=True, id_lookup=True), FieldDef("Email", "email", 128),
        FieldDef("FederationIdentifier", length=512, unique=True, id_lookup=True), key,
    )  # fmt: skip
    named = (FieldDef("Name", length=80, required=True, id_lookup=True), FieldDef("DeveloperName", length=80))
    task = (
        FieldDef("Subject"), key, FieldDef("WhoId", "reference", 18, reference_to="Contact Lead"),
        FieldDef("OwnerId", "reference", 18, reference_to="Group User"),
        FieldDef("RecordTypeId", "reference", 18, reference_to="RecordType"),
    )  # fmt: skip
    people = (
        sobject("User", "005", user), sobject("Group", "00G", named), sobject("RecordType", "012", named),
        sobject("Task", "00T", task),
    )  # fmt: skip
    made = (
        *people, sobject("Account", "001", account), sobject("Contact", "003", (*person, parent)),
        sobject("Lead", "00Q", (*person, FieldDef("Company", length=255, required=True))), sobject("Customer__c", "a00", custom),
    )  # fmt: skip
    return {kind.name: kind for kind in made}
