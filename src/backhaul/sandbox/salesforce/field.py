"""A field of the simulated org: what it takes, and how it describes itself (REST API guide: sObject Describe)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from backhaul.sandbox.salesforce.answers import Refusal, Whole, stamp

NUMBERS = ("int", "double", "currency", "percent")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_ID = re.compile(r"[a-zA-Z0-9]{15}([A-Z0-5]{3})?")


@dataclass(frozen=True, slots=True)
class FieldDef:
    """One field. `createable` and `updateable` are the app user's rights, as field-level security gives them."""

    name: str
    type: str = "string"
    length: int = 255
    scale: int = 0
    createable: bool = True
    updateable: bool = True
    required: bool = False
    external_id: bool = False
    unique: bool = False
    case_sensitive: bool = False
    choices: tuple[str, ...] = ()
    restricted: bool = False
    reference_to: str = ""
    """The object that it refers to; several of them, with blanks between, where it is polymorphic."""
    id_lookup: bool = False
    """Records are found by it, though it is no external id."""

    @property
    def targets(self) -> list[str]:
        return self.reference_to.split()

    @property
    def relationship(self) -> str:
        """What a reference is called from its record; '' for another field."""
        custom = self.name.endswith("__c")
        return (
            "" if not self.reference_to else self.name[:-1] + "r" if custom else self.name.removesuffix("Id")
        )

    def describe(self) -> dict[str, Any]:
        number, custom = self.type in NUMBERS, self.name.endswith("__c")
        plain = number or self.type in ("boolean", "date", "datetime")
        picks = [{"value": one, "label": one, "active": True, "defaultValue": False} for one in self.choices]
        optional = not self.required and self.type != "boolean"
        return {
            "name": self.name, "label": self.name.removesuffix("__c").replace("_", " "), "type": self.type,
            "length": 0 if plain else self.length, "precision": 18 if number and self.type != "int" else 0,
            "scale": self.scale, "digits": 9 if self.type == "int" else 0, "custom": custom, "calculated": False,
            "createable": self.createable, "updateable": self.updateable, "nillable": optional,
            "defaultedOnCreate": self.type == "boolean" or not self.createable, "unique": self.unique,
            "externalId": self.external_id, "idLookup": self.external_id or self.id_lookup or self.name in ("Id", "Email"),
            "caseSensitive": self.case_sensitive, "restrictedPicklist": self.restricted, "permissionable": not self.required,
            "picklistValues": picks, "referenceTo": self.targets,
            "relationshipName": self.relationship or None,
        }  # fmt: skip

    def fold(self, value: Any) -> str:
        """A value in the form in which it is compared."""
        if self.type in NUMBERS:
            return f"{Decimal(str(value)).normalize():f}"
        if self.type == "email":
            return str(value).casefold()
        exact = self.case_sensitive or (self.external_id and not self.unique)
        return str(value) if exact else str(value).casefold()

    def accept(self, value: Any) -> Any:
        """The value as it is stored; an empty text is no value, and blanks around a text are cut off.

        Raises:
            Whole: it is of another JSON type, which refuses the request it is in.
            Refusal: the record is not taken.
        """
        if value is None or value == "":
            if self.type == "boolean":
                raise self._mistyped(value)
            return None
        if self.type == "boolean":
            return self._boolean(value)
        if self.type in NUMBERS:
            return self._number(value)
        if not isinstance(value, str):
            raise self._mistyped(value)
        if self.type in ("date", "datetime"):
            return self._moment(value)
        return self._text(value.strip()) or None

    def _mistyped(self, value: Any) -> Whole:
        token = {
            bool: "VALUE_TRUE",
            int: "VALUE_NUMBER_INT",
            float: "VALUE_NUMBER_FLOAT",
            str: "VALUE_STRING",
        }
        named = token.get(type(value), "VALUE_NULL" if value is None else "START_OBJECT")
        return Whole(
            "JSON_PARSER_ERROR",
            f"Cannot deserialize instance of {self.type} from {named} value {value} or request may be missing a required field",
        )

    def _boolean(self, value: Any) -> bool:
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise self._mistyped(value)
        return value

    def _number(self, value: Any) -> int | float:
        if isinstance(value, bool):
            raise self._mistyped(value)
        try:
            number = Decimal(str(value)).quantize(Decimal(1).scaleb(-self.scale), ROUND_HALF_UP)
        except InvalidOperation:
            raise self._mistyped(value) from None
        most = Decimal(2**31) if self.type == "int" else Decimal(10) ** (18 - self.scale)
        if abs(number) >= most:
            raise Refusal(
                "NUMBER_OUTSIDE_VALID_RANGE",
                f"{self.name}: value outside of valid range on numeric field: {value}",
                [self.name],
            )
        return float(number) if self.scale else int(number)

    def _moment(self, value: str) -> str:
        try:
            if self.type == "date":
                return date.fromisoformat(value).isoformat()
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise self._mistyped(value) from None
        if "T" not in value:
            raise self._mistyped(value)
        return stamp(moment if moment.tzinfo else moment.replace(tzinfo=UTC))

    def _text(self, value: str) -> str:
        label = self.name.removesuffix("__c")
        if len(value) > self.length:
            raise Refusal(
                "STRING_TOO_LONG",
                f"{label}: data value too large: {value[:80]} (max length={self.length})",
                [self.name],
            )
        if self.type == "email" and not _EMAIL.fullmatch(value):
            raise Refusal("INVALID_EMAIL_ADDRESS", f"{label}: invalid email address: {value}", [self.name])
        if self.type == "reference" and not _ID.fullmatch(value):
            raise Refusal("MALFORMED_ID", f"{label}: id value of incorrect type: {value}", [self.name])
        if self.type == "email":
            value = value.lower()
        several = value.split(";") if self.type == "multipicklist" else [value]
        wrong = [one for one in several if one not in self.choices] if self.restricted else []
        if wrong:
            code = "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST"
            raise Refusal(code, f"{label}: bad value for restricted picklist field: {wrong[0]}", [self.name])
        return value


SYSTEM = (
    FieldDef("Id", "id", 18, createable=False, updateable=False),
    FieldDef("IsDeleted", "boolean", createable=False, updateable=False),
    FieldDef("CreatedDate", "datetime", createable=False, updateable=False),
    FieldDef("LastModifiedDate", "datetime", createable=False, updateable=False),
    FieldDef("SystemModstamp", "datetime", createable=False, updateable=False),
)
"""Fields that every object has and nobody writes."""
