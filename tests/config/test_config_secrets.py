"""Secrets: where they come from, where they may stand, and where they never show."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from urllib.parse import quote

import pytest
from config_project import ENVIRON, MAIN, SYNC, Files, HttpConfig, HubSpotConfig, PostgresConfig
from hypothesis import given
from hypothesis import strategies as st

from backhaul.config import Project, redact

CANARY = ENVIRON["HUBSPOT_TOKEN"]
HTTP = """\
project: acme
warehouses:
  main: {type: postgres, dsn: "${WAREHOUSE_DSN}"}
destinations:
  crm:
    type: http
    base_url: http://127.0.0.1:9000
    headers: {Authorization: "Bearer ${API_TOKEN}", X-Team: growth}
    objects: {contacts: {key: id}}
"""


def token(project: Project) -> str:
    config = project.destinations["crm"]
    assert isinstance(config, HubSpotConfig)
    return config.access_token.get_secret_value()


def test_the_real_environment_wins_over_the_env_file(files: Files) -> None:
    files.write(".env", "HUBSPOT_TOKEN=from-the-file\nexport OTHER='x y' # words\n")
    assert token(files.load()) == CANARY
    assert token(files.load(HUBSPOT_TOKEN=None)) == "from-the-file"


def test_a_broken_env_file_is_named_with_its_line(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    files.write(".env", "A=1\n'canary\n")
    assert files.problem() == ".env:2:1: this is not NAME=value"
    assert not caplog.records
    logging.getLogger("dotenv").setLevel(logging.NOTSET)


def test_a_default_stands_in_for_a_missing_or_empty_variable(files: Files) -> None:
    files.write("backhaul.yml", MAIN.replace("${HUBSPOT_TOKEN}", "${NOT_THERE:-sandbox}"))
    assert token(files.load()) == "sandbox"
    assert token(files.load(NOT_THERE="")) == "sandbox"
    assert token(files.load(NOT_THERE="there")) == "there"
    assert files.load().secrets == frozenset()


def test_a_secret_file_loses_one_line_break(files: Files, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    files.write("backhaul.yml", MAIN.replace("${HUBSPOT_TOKEN}", f"${{file:{secret}}}"))
    secret.touch(mode=0o600)
    secret.write_text("file-canary\n")
    project = files.load()
    assert token(project) == "file-canary"
    assert project.secrets == {"file-canary"}
    secret.write_text("file-canary\n\n")
    assert "ends in more than one line break" in files.problem()
    secret.write_text("\n")
    assert files.problem().endswith(f"the file {secret} is empty")
    secret.unlink()
    assert files.problem().endswith(f"the file {secret} cannot be read: No such file or directory")


@pytest.mark.parametrize("text", ["${", "${}", "${A B}", "${HUBSPOT_TOKEN", "${1A}"])
def test_a_broken_reference_is_named(files: Files, text: str) -> None:
    files.write("backhaul.yml", MAIN.replace("${HUBSPOT_TOKEN}", text))
    assert files.problem().startswith("backhaul.yml:5:39: `${")


def test_a_doubled_dollar_is_a_literal_one(files: Files) -> None:
    files.write("syncs/contacts.yml", SYNC + "  x: concat('$${', plan, '}$')\n")
    assert files.load().syncs["contacts"].fields["x"].value == "concat('${', plan, '}$')"


def test_the_secrets_of_a_project_are_known_and_never_shown(files: Files) -> None:
    project = files.write("backhaul.yml", HTTP).load()
    dsn = ENVIRON["WAREHOUSE_DSN"]
    assert project.secrets == {"api-canary-0002", dsn, "wh%2Fcanary", "wh/canary"}
    assert isinstance(project.destinations["crm"], HttpConfig)
    assert "canary" not in repr(project) + str(project) + repr(project.warehouses) + repr(
        project.destinations
    )
    assert "canary" not in project.model_dump_json()


def test_a_wrong_key_never_quotes_what_a_variable_held(files: Files) -> None:
    extra = ', concurrency: "${API_TOKEN}", timeout: "${API_TOKEN}"}'
    files.write("backhaul.yml", MAIN.replace('}"}', '}"' + extra))
    assert len(files.problems()) == 2


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://localhost/app",
        "postgresql://app@db.example.com/app",
        "host=/tmp dbname=app",
        "postgresql://app:sandbox@127.0.0.1:5432/app",
        "host=127.0.0.1 user=app password=sandbox",
    ],
)
def test_a_dsn_without_a_secret_may_stand_in_the_file(files: Files, dsn: str) -> None:
    files.write(
        "backhaul.yml",
        MAIN.replace("hubspot, access_token", "postgres, dsn").replace("${HUBSPOT_TOKEN}", dsn),
    )
    config = files.load().destinations["crm"]
    assert isinstance(config, PostgresConfig)
    assert config.dsn.get_secret_value() == dsn


@pytest.mark.parametrize(
    "dsn", ["postgresql://app:canary@db.example.com/a", "host=db.example.com password=canary"]
)
def test_a_dsn_with_a_password_may_not(files: Files, dsn: str) -> None:
    files.write(
        "backhaul.yml",
        MAIN.replace("hubspot, access_token", "postgres, dsn").replace("${HUBSPOT_TOKEN}", dsn),
    )
    assert files.problem() == (
        "backhaul.yml:5:25: `dsn` holds a password in plain text "
        "(write it as ${CRM_DSN} and set CRM_DSN in the environment or in .env)"
    )


def test_a_header_with_a_token_in_plain_text_is_refused(files: Files) -> None:
    files.write("backhaul.yml", HTTP.replace("${API_TOKEN}", "canary"))
    assert files.problem().startswith(
        "backhaul.yml:8:15: `Authorization` is a secret and stands here in plain text"
    )


def test_a_sandbox_takes_a_plain_word(files: Files) -> None:
    assert (
        token(files.write("backhaul.yml", MAIN.replace("${HUBSPOT_TOKEN}", "sandbox-token")).load())
        == "sandbox-token"
    )


def test_a_column_named_password_is_no_secret(files: Files) -> None:
    sql = "model: {sql: \"select id from t where password = 'x' and host = 'db'\", primary_key: id}"
    files.write("syncs/contacts.yml", SYNC.replace("model: {table: customers, primary_key: id}", sql))
    assert files.load().syncs["contacts"].model.sql


SECRETS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=8, max_size=40).filter(
    lambda text: text.strip() == text and len(set(text)) > 4 and not set(text) <= set("*0123456789")
)


@given(SECRETS, st.binary(max_size=7))
def test_no_form_of_a_secret_survives(secret: str, before: bytes) -> None:
    forms = [
        secret,
        quote(secret, safe=""),
        quote(secret, safe="").lower() if secret.isascii() and secret.islower() else secret,
        json.dumps(secret),
        json.dumps(secret, ensure_ascii=False),
        repr(secret),
        base64.b64encode(secret.encode()).decode(),
        base64.urlsafe_b64encode(secret.encode()).decode(),
        secret.encode().hex(),
        secret.encode().hex().upper(),
        quote(quote(secret, safe=""), safe=""),
        json.dumps(json.dumps(secret)[1:-1]),
    ]
    for form in forms:
        shown = redact(f"<{form}>", {secret})
        assert "***" in shown
        assert form.strip("'\"=") not in shown
    basic = base64.b64encode(before + secret.encode() + b":x").decode()
    assert len(redact(basic, {secret})) <= len(basic) - len(secret.encode()) * 4 // 3 + 3 + 6


def test_a_password_in_any_dsn_is_taken_out() -> None:
    assert (
        redact("at postgresql://a:b@h/db and password='x y' host=h", ())
        == "at postgresql://a:***@h/db and password=*** host=h"
    )
    assert redact("nothing here", {"", "abc"}) == "nothing here"


PLACES = HTTP.replace(
    "objects: {contacts: {key: id}}",
    'objects: {contacts: {key: id, upsert: {request: "POST /u?team=a&PARAM", body: {records: $records, BODY}}}}',
)


@pytest.mark.parametrize("param, body", [
    ("api_key=${K}", "x: 1"), ("page=1", 'k: "${K}"'), ("page=1", 'deep: [{k: "prefix ${K}"}]'), ("sig=${K}", "x: 1"),
])  # fmt: skip
def test_what_a_reference_brings_into_a_body_or_a_query_is_a_secret(
    files: Files, param: str, body: str
) -> None:
    files.write("backhaul.yml", PLACES.replace("PARAM", param).replace("BODY", body))
    assert "brought-canary" in files.load(K="brought-canary").secrets


@pytest.mark.parametrize("written", [
    "headers: {X-Auth: canary}", "headers: {X-Api-Key: canary}", 'headers: {Authorization: "Bearer ${NOPE:-canary}"}',
    'headers: {Authorization: "pa$$word"}', 'headers: {Api-Key: "can$ary"}',
])  # fmt: skip
def test_a_literal_in_a_secret_place_is_refused_with_its_line(files: Files, written: str) -> None:
    files.write(
        "backhaul.yml",
        HTTP.replace('headers: {Authorization: "Bearer ${API_TOKEN}", X-Team: growth}', written),
    )
    problem = files.problem()
    assert problem.startswith("backhaul.yml:8:15: ")
    assert "stands here in plain text" in problem
    assert "canary" not in problem


def test_a_literal_key_in_a_query_is_refused(files: Files) -> None:
    files.write("backhaul.yml", PLACES.replace("PARAM", "api_key=canary").replace("BODY", "x: 1"))
    assert "`api_key` in the address of `request` is a secret" in files.problem()


def test_an_address_that_a_reference_brings_is_no_secret(files: Files) -> None:
    files.write("backhaul.yml", HTTP.replace("http://127.0.0.1:9000", "${URL}"))
    assert "http://127.0.0.1:9001" not in files.load(URL="http://127.0.0.1:9001").secrets
