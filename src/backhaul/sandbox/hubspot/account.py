"""The object types of a fresh account, with the properties that matter most."""

from __future__ import annotations

from backhaul.sandbox.hubspot.property import Property
from backhaul.sandbox.hubspot.store import OTHER_EMAILS, ObjectType

PORTAL = 62_515
_STAGES = (
    "subscriber", "lead", "marketingqualifiedlead", "salesqualifiedlead", "opportunity", "customer", "evangelist", "other",
)  # fmt: skip
_DEAL_STAGES = (
    "appointmentscheduled", "qualifiedtobuy", "presentationscheduled", "decisionmakerboughtin", "contractsent",
    "closedwon", "closedlost",
)  # fmt: skip


def _properties(*properties: Property) -> dict[str, Property]:
    return {item.name: item for item in properties}


def _text(*names: str) -> dict[str, Property]:
    return _properties(*(Property(name) for name in names))


def _numbers(*names: str) -> dict[str, Property]:
    return _properties(*(Property(name, "number", "number") for name in names))


def _own(modified: str) -> dict[str, Property]:
    """What HubSpot writes itself."""
    return _properties(
        Property("hs_object_id", "number", "number", read_only=True),
        Property("createdate", "datetime", "date", read_only=True),
        Property(modified, "datetime", "date", read_only=True),
        Property("hubspot_owner_id", "enumeration", "select", external=True),
    )


def _choice(name: str, *options: str, field_type: str = "select", forward: bool = False) -> Property:
    return Property(name, "enumeration", field_type, options=options, forward=forward)


def contacts() -> ObjectType:
    properties = _own("lastmodifieddate") | _text(
        "email", "firstname", "lastname", "mobilephone", "company", "website", "jobtitle", "address", "city", "state",
        "zip", "country",
    )  # fmt: skip
    properties |= _properties(
        Property("phone", "string", "phonenumber"),
        _choice("lifecyclestage", *_STAGES, field_type="radio", forward=True),
        _choice(
            "hs_lead_status",
            "NEW",
            "OPEN",
            "IN_PROGRESS",
            "OPEN_DEAL",
            "UNQUALIFIED",
            "CONNECTED",
            field_type="radio",
        ),
        _choice(
            "hs_buying_role",
            "BLOCKER",
            "BUDGET_HOLDER",
            "CHAMPION",
            "DECISION_MAKER",
            "END_USER",
            field_type="checkbox",
        ),
        Property("hs_email_domain", calculated=True),
        Property(OTHER_EMAILS, "enumeration", "checkbox", read_only=True, external=True),
        Property("hs_merged_object_ids", "enumeration", "checkbox", read_only=True, external=True),
        Property("num_associated_deals", "number", "number", calculated=True),
    )
    return ObjectType("contacts", "0-1", "Contact", properties, shown=("email", "firstname", "lastname"))


def companies() -> ObjectType:
    properties = _own("hs_lastmodifieddate") | _text(
        "name", "domain", "website", "phone", "description", "address", "city", "state", "zip", "country"
    )
    properties |= _numbers("annualrevenue", "numberofemployees") | _properties(
        _choice(
            "industry", "ACCOUNTING", "BANKING", "COMPUTER_SOFTWARE", "FOOD_BEVERAGES", "INSURANCE", "RETAIL"
        ),
        _choice("lifecyclestage", *_STAGES, field_type="radio", forward=True),
    )
    return ObjectType("companies", "0-2", "Company", properties, shown=("name", "domain"))


def deals() -> ObjectType:
    properties = _own("hs_lastmodifieddate") | _text("dealname") | _numbers("amount")
    properties |= _properties(
        Property("description", "string", "textarea"),
        _choice("dealstage", *_DEAL_STAGES, field_type="radio"),
        _choice("pipeline", "default"),
        _choice("dealtype", "newbusiness", "existingbusiness", field_type="radio"),
        Property("closedate", "datetime", "date"),
    )
    return ObjectType(
        "deals", "0-3", "Deal", properties, shown=("dealname", "amount", "dealstage", "pipeline", "closedate")
    )


def custom(
    number: int, name: str, label: str, *properties: Property, required: tuple[str, ...] = ()
) -> ObjectType:
    """A custom object type `2-NUMBER`, fully qualified `pPORTAL_NAME`."""
    type_id = f"2-{number}"
    every = _own("hs_lastmodifieddate") | _properties(*properties)
    return ObjectType(
        type_id,
        type_id,
        label,
        every,
        f"p{PORTAL}_{name}",
        required,
        tuple(item.name for item in properties[:1]),
    )


def fresh() -> dict[str, ObjectType]:
    """By `ObjectType.name`. The custom type 2-1001 has a unique property, external_id."""
    assets = custom(
        1001, "assets", "Asset", Property("external_id", unique=True, own=False), Property("name", own=False),
        Property("status", own=False),
    )  # fmt: skip
    return {kind.name: kind for kind in (contacts(), companies(), deals(), assets)}
