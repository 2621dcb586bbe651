"""The bad inputs 1 to 14 of the security list: each gives one clear line with its place, and no value."""

from __future__ import annotations

import pytest
from config_project import MAIN, SYNC, Files

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))

MAIN_CASES: list[tuple[str, str | bytes, str]] = [
    ("1 empty", "", "backhaul.yml: is empty"),
    ("1 only comments", "# nothing\n", "backhaul.yml: is empty"),
    ("2 binary", b"\x7fELF\x00\x01", "backhaul.yml:1: is not a text file"),
    ("2 invalid UTF-8", b"project: a\nstate: \xff\n", "backhaul.yml:2: is not UTF-8 text (save it as UTF-8)"),
    ("2 UTF-16", MAIN.encode("utf-16"), "backhaul.yml: is UTF-16 (save it as UTF-8)"),
    ("2 BOM", b"\xef\xbb\xbf" + MAIN.encode(), "backhaul.yml: starts with a byte order mark"),
    ("3 tab", "project: acme\nwarehouses:\n\tmain: 1\n", "backhaul.yml:3:1: a tab in the indentation"),
    ("3 indent", "project: acme\n  state: x\n", "backhaul.yml:2:8: this is not valid YAML: mapping values"),
    ("3 two documents", MAIN + "---\nproject: b\n", "backhaul.yml:6:1: a second document starts here"),
    ("3 a list", "- project\n", "backhaul.yml:1:1: must be a mapping"),
    ("3 tag", "project: !!python/object:os.system x\n", "backhaul.yml:1:10: the YAML tag python/object:os.system"),
    ("4 unknown key", MAIN + "destination: {}\n", "backhaul.yml:6:1: unknown key `destination` (did you mean `destinations`?)"),
    ("4 unknown key of a type", MAIN.replace("path: w", "pth: x, path: w"), "backhaul.yml:3:24: unknown key `pth` (did you mean `path`?)"),
    ("5 duplicate key", MAIN + "project: b\n", "backhaul.yml:6:1: the key `project` is here twice (first in line 1)"),
    ("6 type", MAIN + "memory_limit: plenty\n", "backhaul.yml:6:1: `memory_limit`: 'plenty' is not a size"),
    ("6 negative", MAIN + "memory_limit: -5\n", "backhaul.yml:6:1: `memory_limit`: expected a size between"),
    ("6 concurrency", MAIN.replace('}"}', '}", concurrency: ten}'), "backhaul.yml:5:58: `concurrency`: expected a valid integer"),
    ("6 absurd", MAIN.replace('}"}', '}", concurrency: 1000000000}'), "backhaul.yml:5:58: `concurrency`: expected less than"),
    ("6 timeout", MAIN.replace('}"}', '}", timeout: -3}'), "backhaul.yml:5:58: `timeout`: -3 is not a duration"),
    ("6 a mapping", MAIN.replace("main: {type: duckdb, path: warehouse.duckdb}", "main: 3"), "backhaul.yml:3:3: `warehouses.main` is a mapping"),
    ("9 name", MAIN.replace("acme", "a/../b"), "backhaul.yml:1:1: `project`: 'a/../b' is not a name"),
    ("9 warehouse", MAIN.replace("main:", '"../up":'), "backhaul.yml:3:3: '../up' is not a name"),
    ("10 type", MAIN.replace("hubspot", "hubpsot"), "backhaul.yml:5:9: unknown destination type `hubpsot` (did you mean `hubspot`?"),
    ("10 no type", MAIN.replace("type: hubspot, ", ""), "backhaul.yml:5:3: `destinations.crm` has no `type`"),
    ("11 bomb", BOMB, "holds more than 100,000 values"),
    ("11 recursion", "a: &a [*a]\n", "is nested deeper than 64 levels"),
    ("11 depth", "a: " + "[" * 100_000, "is nested deeper than 64 levels"),
    ("11 size", "project: acme # " + "x" * 2**20, "backhaul.yml: is larger than 1 MiB"),
    ("13 newer", "version: 2\nnew: thing\n", "backhaul.yml:1:1: this file is written for version 2, and this backhaul reads version 1"),
    ("14 token", MAIN.replace("${HUBSPOT_TOKEN}", "pat-na1-canary"), "backhaul.yml:5:24: `access_token` holds a secret in plain text (write it as ${CRM_ACCESS_TOKEN}"),
    ("14 plain", MAIN.replace("${HUBSPOT_TOKEN}", "canary"), "backhaul.yml:5:24: `access_token` is a secret and stands here in plain text"),
    ("14 default", MAIN.replace("${HUBSPOT_TOKEN}", "${X:-sk_live_canary}"), "backhaul.yml:5:24: `access_token` holds a secret in plain text"),
    ("12 alerts", MAIN + "alerts: {slack: nonsense}\n", "backhaul.yml:6:1: `alerts` is not available yet (watch the exit code"),
    ("14 state", MAIN + "state: postgresql://me:canary@db.example.com/b\n", "backhaul.yml:6:1: `state` holds a password in plain text"),
]  # fmt: skip

ENVIRON_CASES: list[tuple[str, str | None, str]] = [
    (
        "7 missing",
        None,
        "backhaul.yml:5:39: the environment variable HUBSPOT_TOKEN is not set (export it, or put",
    ),
    ("8 empty", "", "backhaul.yml:5:39: the environment variable HUBSPOT_TOKEN is set but empty"),
    (
        "8 line break",
        "canary\n",
        "backhaul.yml:5:39: the environment variable HUBSPOT_TOKEN ends in a line break",
    ),
]

SYNC_CASES: list[tuple[str, str, str]] = [
    ("4 unknown key", SYNC + "feilds: {}\n", "syncs/contacts.yml:8:1: unknown key `feilds` (did you mean `fields`?)"),
    ("4 in a field", SYNC + "  x: {value: a, nul: skip}\n", "syncs/contacts.yml:8:17: unknown key `fields.x.nul` (did you mean `null`?)"),
    ("4 missing key", SYNC.replace("object: contacts\n", ""), "syncs/contacts.yml:1:1: the key `object` is missing"),
    ("6 mode", SYNC + "mode: sync\n", "syncs/contacts.yml:8:1: `mode`: expected 'insert', 'update', 'upsert' or 'mirror'"),
    ("6 sample", SYNC + "freshness: {sample: -1}\n", "syncs/contacts.yml:8:13: `freshness.sample`: expected greater than"),
    ("6 absurd", SYNC + "freshness: {sample: 1000000000}\n", "syncs/contacts.yml:8:13: `freshness.sample`: expected less than"),
    ("6 share", SYNC + "guards: {max_deletes: 120%}\n", "syncs/contacts.yml:8:10: `guards.max_deletes`: '120%' is more than 100%"),
    ("6 rows", SYNC + "guards: {min_rows: -1}\n", "syncs/contacts.yml:8:10: `guards.min_rows`: expected a number of rows"),
    ("6 huge", SYNC + f"guards: {{min_rows: {'9' * 5000}}}\n", "syncs/contacts.yml:8:10: `guards.min_rows`: expected a number of rows"),
    ("6 no expression", SYNC + "  x:\n", "syncs/contacts.yml:8:3: `fields.x`: there is no expression here"),
    ("6 NUL", SYNC + '  x: "\\0"\n', "syncs/contacts.yml:8:7: NUL and lone surrogates"),
    ("9 slash", SYNC.replace("name: contacts", "name: a/b"), "syncs/contacts.yml:1:1: `name`: 'a/b' is not a name"),
    ("9 dots", SYNC.replace("name: contacts", "name: .."), "syncs/contacts.yml:1:1: `name`: '..' is not a name"),
    ("9 emoji", SYNC.replace("name: contacts", "name: 🚚"), "syncs/contacts.yml:1:1: `name`: '🚚' is not a name"),
    ("9 long", SYNC.replace("name: contacts", f"name: {'x' * 300}"), "… (300 characters) is not a name"),
    ("10 destination", SYNC.replace("destination: crm", "destination: cmr"), "syncs/contacts.yml:3:1: there is no destination `cmr` in backhaul.yml (did you mean `crm`?)"),
    ("10 warehouse", SYNC.replace("{table", "{warehouse: mian, table"), "syncs/contacts.yml:2:9: there is no warehouse `mian` in backhaul.yml (did you mean `main`?)"),
    ("10 file", SYNC.replace("table: customers", "file: models/no.sql"), "syncs/contacts.yml:2:9: there is no file models/no.sql"),
    ("10 outside", SYNC.replace("table: customers", "file: ../../etc/passwd"), "syncs/contacts.yml:2:9: `model.file` leaves the project"),
    ("10 absolute", SYNC.replace("table: customers", "file: /etc/passwd"), "syncs/contacts.yml:2:9: `model.file` leaves the project"),
    ("10 two sources", SYNC.replace("{table", "{sql: select 1, table"), "syncs/contacts.yml:2:1: `model`: takes exactly one of"),
    ("12 schedule", SYNC + "schedule: every now and then\n", "syncs/contacts.yml:8:1: `schedule` is not available yet (start `backhaul run` from cron"),
    ("12 cron", SYNC + "cron: often\n", "syncs/contacts.yml:8:1: `cron` is not available yet"),
    ("12 sla", SYNC + "freshness: {sla: soon}\n", "syncs/contacts.yml:8:13: `freshness.sla` is not available yet"),
    ("12 later", SYNC + "externally_owned: [x]\n", "syncs/contacts.yml:8:1: `externally_owned` is not available yet"),
    ("12 unknown", SYNC + "depends_on: [compnies]\n", "syncs/contacts.yml:8:1: there is no sync `compnies` to depend on"),
    ("12 itself", SYNC + "depends_on: [contacts]\n", "syncs/contacts.yml:8:1: syncs depend on each other: contacts -> contacts"),
    ("14 token", SYNC + "  x: \"'ghp_canary12345'\"\n", "syncs/contacts.yml:8:3: `x` holds a secret in plain text"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "line"), [case[1:] for case in MAIN_CASES], ids=[case[0] for case in MAIN_CASES]
)
def test_a_bad_main_file(files: Files, content: str | bytes, line: str) -> None:
    (files.root / "syncs/contacts.yml").unlink()
    assert line in files.write("backhaul.yml", content).problem()


@pytest.mark.parametrize(
    ("value", "line"), [case[1:] for case in ENVIRON_CASES], ids=[case[0] for case in ENVIRON_CASES]
)
def test_a_bad_variable(files: Files, value: str | None, line: str) -> None:
    assert line in files.problem(HUBSPOT_TOKEN=value)


@pytest.mark.parametrize(
    ("content", "line"), [case[1:] for case in SYNC_CASES], ids=[case[0] for case in SYNC_CASES]
)
def test_a_bad_sync(files: Files, content: str, line: str) -> None:
    assert line in files.write("syncs/contacts.yml", content).problem()


@pytest.mark.parametrize("name", ["contacts", "Contacts"])
def test_two_syncs_of_one_name(files: Files, name: str) -> None:
    files.write("syncs/other.yml", SYNC.replace("name: contacts", f"name: {name}"))
    assert files.problem().startswith(f"syncs/other.yml:1:1: the name {name} is taken by syncs/contacts.yml")


def test_no_project_file_at_all(files: Files) -> None:
    (files.root / "backhaul.yml").write_text("")
    assert files.problem() == "backhaul.yml: is empty"
