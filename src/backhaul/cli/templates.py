"""The texts of a new project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backhaul.sql import ident

if TYPE_CHECKING:
    from backhaul.warehouses.csv_inference import CsvModel

WAREHOUSES = {
    "duckdb": "{{type: duckdb, path: {path}}}",
    "postgres": '{{type: postgres, dsn: "${{WAREHOUSE_DSN}}"}}',
    "sqlite": "{{type: sqlite, path: {path}}}",
    "files": "{{type: files, path: {path}}}",
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
{source}
  primary_key: {key:<17} # names one row each
{columns}destination: {destination}
object: {object}
mode: upsert                     # insert | update | upsert | mirror (upsert, and delete what left the model)
identify: {{{identify}}}
fields:                          # destination field <- SQL expression over the model's columns
{fields}guards: {{max_deletes: 5%}}
"""
_YAML = frozenset(("null", "true", "false", "yes", "no", "on", "off", "y", "n"))
"""What YAML takes for something else than text."""
_SOURCE = "  sql: select id, email, name, plan, mrr, health, updated_at from customers"
_COLUMNS = """\
  columns:                       # inferred once from the file; others are text. A value that does not fit rejects its record
{types}"""
_FIELDS = {"email": "lower(email)", "name": "name", "plan": "upper(plan)", "mrr": "mrr", "health": "health"}
_HUBSPOT_FIELDS = {"firstname": "split_part(name, ' ', 1)", "lastname": "split_part(name, ' ', 2)"}


def paths(sync: str) -> list[str]:
    """The names of the text files of a new project."""
    return ["backhaul.yml", f"syncs/{sync}.yml", ".env.example"]


def files(
    project: str, warehouse: str, destination: str, sync: str, path: str | None, csv: CsvModel | None
) -> dict[str, str]:
    """Each text file of a new project by its name. `csv`: what is known of the file that it reads; without a `path` that is
    the sample."""
    texts = (
        _main(project, warehouse, destination, sync, path or SAMPLES.get(warehouse, "")),
        _sync(destination, sync, csv, is_sample=path is None),
        _environment(warehouse, destination),
    )
    return dict(zip(paths(sync), texts, strict=True))


def variables(warehouse: str, destination: str) -> dict[str, str]:
    """The environment variables that a new project asks for, each with an example."""
    kinds = (f"{warehouse} warehouse", f"{destination} destination")
    return dict(_VARIABLES[kind] for kind in kinds if kind in _VARIABLES)


def _main(project: str, warehouse: str, destination: str, sync: str, path: str) -> str:
    import re

    place = path.rpartition("/")[0] or "." if warehouse == "files" else path
    return _MAIN.format(
        project=re.sub(r"[^A-Za-z0-9_.-]+", "-", project).strip("-.")[:64] or "project",
        warehouse=WAREHOUSES[warehouse].format(path=_quoted(place)),
        destination=DESTINATIONS[destination].replace("OBJECT", sync),
    )


def _quoted(text: str) -> str:
    import json
    import re

    is_plain = re.fullmatch(r"[\w./-]*[A-Za-z./][\w./-]*", text) and text.lower() not in _YAML
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _sync(destination: str, name: str, csv: CsvModel | None, *, is_sample: bool) -> str:
    hubspot = destination == "hubspot"
    fields = _HUBSPOT_FIELDS if hubspot else _FIELDS
    source, key, identify = _SOURCE, "id", "email: lower(email)" if hubspot else "id: id"
    if csv is not None and not is_sample:
        source, key = f"  table: {_expression(csv.table, csv.reserved)}", _quoted(csv.key)
        identify = f"{key}: {_expression(csv.key, csv.reserved)}"
        fields = {
            _quoted(column): _expression(column, csv.reserved) for column in csv.columns if column != csv.key
        }
    types = "".join(f'    {_quoted(column)}: "{kind}"\n' for column, kind in csv.types.items()) if csv else ""
    return _SYNC.format(
        name=name,
        source=source,
        key=key,
        columns=_COLUMNS.format(types=types) if types else "",
        destination={"hubspot": "crm", "http": "api"}.get(destination, "app"),
        object="contacts" if hubspot else name,
        identify=identify,
        fields="".join(f"  {field}: {expression}\n" for field, expression in fields.items()),
    )


def _expression(name: str, reserved: frozenset[str]) -> str:
    """A column or table by its name in SQL, in YAML."""
    import re

    return name if re.fullmatch(r"[a-z_]\w*", name) and name not in reserved else _quoted(ident(name))


def _environment(warehouse: str, destination: str) -> str:
    lines = [f"{name}={example}\n" for name, example in variables(warehouse, destination).items()]
    return "# Copy this file to .env, which git ignores, and fill it in.\n" + "".join(lines)
