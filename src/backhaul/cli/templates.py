"""The texts of a new project."""

from __future__ import annotations

WAREHOUSES = {
    "duckdb": "{{type: duckdb, path: {path}}}",
    "postgres": '{{type: postgres, dsn: "${{WAREHOUSE_DSN}}"}}',
    "sqlite": "{{type: sqlite, path: {path}}}",
    "files": "{{type: files, path: data}}",
}
SAMPLES = {"duckdb": "warehouse.duckdb", "sqlite": "warehouse.db", "files": "data/customers.csv"}
"""What a warehouse without a path of the user's own gets."""
DESTINATIONS = {
    "sqlite": "  app: {type: sqlite, path: app.db}\n",
    "postgres": '  app: {type: postgres, dsn: "${APP_DSN}"}\n',
    "hubspot": '  crm: {type: hubspot, access_token: "${HUBSPOT_TOKEN}"}\n',
    "http": """\
  api:
    type: http
    base_url: https://api.example.com
    headers: {Authorization: "Bearer ${API_TOKEN}"}
    rate_limits: ["100/1s"]
    objects:
      OBJECT:
        key: id
        upsert: {request: POST /upsert, batch_size: 100, body: {records: $records}}
""",
}
_VARIABLES = {
    "postgres warehouse": ("WAREHOUSE_DSN", "postgresql://user:password@localhost:5432/warehouse"),
    "postgres destination": ("APP_DSN", "postgresql://user:password@localhost:5432/app"),
    "hubspot destination": ("HUBSPOT_TOKEN", "the access token of a private app"),
    "http destination": ("API_TOKEN", "the API's token"),
}
_MAIN = """\
# The connections of this project. ${{NAME}} takes an environment variable, or what .env says.
project: {project}
warehouses:
  main: {warehouse}
destinations:
{destination}"""
_SYNC = """\
# One sync: rows of a model become records of an object at a destination.
name: {name}
model:
  warehouse: main
  sql: select id, email, name, plan, mrr, health, updated_at from {table}
  primary_key: id                # names one row each
destination: {destination}
object: {object}
mode: upsert                     # insert | update | upsert | mirror (upsert, and delete what left the model)
identify: {{{identify}}}
fields:                          # destination field <- SQL expression over the model's columns
{fields}guards: {{max_deletes: 5%}}
"""
_FIELDS = {"email": "lower(email)", "name": "name", "plan": "upper(plan)", "mrr": "mrr", "health": "health"}
_HUBSPOT_FIELDS = {"firstname": "split_part(name, ' ', 1)", "lastname": "split_part(name, ' ', 2)"}


def files(project: str, warehouse: str, destination: str, sync: str, path: str | None) -> dict[str, str]:
    """Each text file of a new project by its path."""
    return {
        "backhaul.yml": _main(project, warehouse, destination, sync, path or SAMPLES.get(warehouse, "")),
        f"syncs/{sync}.yml": _sync(warehouse, destination, sync),
        ".env.example": _environment(warehouse, destination),
    }


def variables(warehouse: str, destination: str) -> dict[str, str]:
    """The environment variables that a new project asks for, each with an example."""
    kinds = (f"{warehouse} warehouse", f"{destination} destination")
    return dict(_VARIABLES[kind] for kind in kinds if kind in _VARIABLES)


def _main(project: str, warehouse: str, destination: str, sync: str, path: str) -> str:
    import re

    return _MAIN.format(
        project=re.sub(r"[^A-Za-z0-9_.-]+", "-", project).strip("-.")[:64] or "project",
        warehouse=WAREHOUSES[warehouse].format(path=_quoted(path)),
        destination=DESTINATIONS[destination].replace("OBJECT", sync),
    )


def _quoted(path: str) -> str:
    import json
    import re

    return path if re.fullmatch(r"[\w./-]+", path) else json.dumps(path)


def _sync(warehouse: str, destination: str, name: str) -> str:
    hubspot = destination == "hubspot"
    fields = _HUBSPOT_FIELDS if hubspot else _FIELDS
    return _SYNC.format(
        name=name,
        table="customers",
        destination={"hubspot": "crm", "http": "api"}.get(destination, "app"),
        object="contacts" if hubspot else name,
        identify="email: lower(email)" if hubspot else "id: id",
        fields="".join(f"  {field}: {expression}\n" for field, expression in fields.items()),
    )


def _environment(warehouse: str, destination: str) -> str:
    lines = [f"{name}={example}\n" for name, example in variables(warehouse, destination).items()]
    return "# Copy this file to .env, which git ignores, and fill it in.\n" + "".join(lines)
