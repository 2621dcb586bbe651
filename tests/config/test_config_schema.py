"""The JSON Schema for editors and the generated reference."""

from __future__ import annotations

from config_project import Installed

from backhaul.config import reference, schema


def test_the_schema_has_every_installed_type_with_its_keys() -> None:
    document = schema(Installed())["backhaul"]
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    top = document["$defs"]["BackhaulFile"]["properties"]
    (entry,) = top["destinations"]["patternProperties"].values()
    keys = {option["properties"]["type"]["const"]: set(option["properties"]) for option in entry["anyOf"]}
    assert keys["hubspot"] == {
        "type",
        "access_token",
        "endpoint_limits",
        "rate_limits",
        "share",
        "budget",
        "concurrency",
        "timeout",
        "read_lag",
    }
    assert set(keys) == {"hubspot", "http", "postgres"}
    hubspot = next(one for one in entry["anyOf"] if one["properties"]["type"]["const"] == "hubspot")
    assert hubspot["properties"]["access_token"]["description"] == "A private app's token."
    assert hubspot["required"] == ["type", "access_token"]
    assert hubspot["additionalProperties"] is False


def test_a_number_may_be_a_reference_in_the_schema() -> None:
    sample = schema(Installed())["sync"]["$defs"]["Freshness"]["properties"]["sample"]
    assert {one["type"] for one in sample["anyOf"]} == {"integer", "string"}
    assert sample["default"] == 10


def test_the_schema_of_a_sync_takes_the_short_form_of_a_field() -> None:
    mapping = schema(Installed())["sync"]["$defs"]["FieldMapping"]
    short, long = mapping["anyOf"]
    assert short["type"] == ["string", "number", "boolean"]
    assert set(long["properties"]) == {"value", "null", "default", "type", "markup"}


def test_the_reference_has_every_key_with_type_default_and_meaning() -> None:
    text = reference(Installed())
    assert "| `memory_limit` | size | `1 GiB` | Memory of the embedded engine" in text
    assert "| `access_token` | secret, by reference | required | A private app's token. |" in text
    assert "| `on_schema_change` | `fail`, `apply`, `ignore` | `fail` |" in text
    assert "### syncs/*.yml: `guards`" in text
    assert "### Destination type `http`: `objects.NAME.upsert`" in text
