"""The YAML loader: readings of scalars, places, and that nothing but UsageError leaves it."""

from __future__ import annotations

from pathlib import Path

import pytest
from config_project import Files
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backhaul.config.documents import decode, parse, read
from backhaul.config.interpolate import interpolate
from backhaul.errors import UsageError

SYNTAX = st.sampled_from(
    [
        *"{}[]:,-?&*!|>'\"#%@`\n \t~<=\\",
        "a",
        "0",
        "${",
        "---",
        "...",
        "<<",
        "\r\n",
        "\u2028",
        "é",
        "🚚",
        "!!int",
        ".nan",
        "1e9",
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(SYNTAX, max_size=40).map("".join))
@example("? {a: b}\n: c")
@example("a: !!int x")
@example("a: !!binary x")
@example("a: 2024-13-45")
@example("a: 190:20:30")
@example("&a a: *a")
@example("%YAML 9.9\n---\na: b")
@example('a: "\\ud800"')
@example("a: *nobody")
@example("<<: {a: b}")
def test_any_text_is_data_or_a_usage_error(text: str) -> None:
    try:
        document = parse(decode(text.encode("utf-8"), "x.yml"), "x.yml")
        interpolate(document, {}, Path("/nowhere"))
    except UsageError as error:
        (problem,) = error.problems
        assert problem.file == "x.yml"
        assert "\n" not in str(problem)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_a_usage_error(content: bytes) -> None:
    try:
        parse(decode(content, "x.yml"), "x.yml")
    except UsageError as error:
        assert len(error.problems) == 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"), ("no", "no"), ("12:30", "12:30"), ("2024-01-01", "2024-01-01"), ("007", "007"), ("0x1F", "0x1F"),
        ("10_000", 10_000), ("-3", -3), ("1.50", 1.5), ("true", True), ("~", None), ("", None), ("'1'", "1"), ("1e3", "1e3"),
        ("[1, a]", [1, "a"]), ("{on: 1}", {"on": 1}), ("=", "="),
    ],
)  # fmt: skip
def test_the_reading_of_a_plain_value(text: str, value: object) -> None:
    assert parse(f"a: {text}\n", "x.yml").data == {"a": value}


VALUES = st.sampled_from(
    [
        "3",
        "-1",
        ".nan",
        "[]",
        "{}",
        "null",
        "true",
        "text",
        "[a, {b: c}]",
        "{a: [1]}",
        "'${NOPE}'",
        "'${'",
        "2020-01-01",
        "off",
        "'\\x01'",
        '"\\ud83d"',
        "../..",
        "9" * 400,
        "{type: duckdb}",
        "{type: [x]}",
        "{type: http, objects: 3}",
        "{value: 3}",
        "{sql: 1, primary_key: []}",
    ]
)
KEYS = st.sampled_from(
    [
        "version",
        "project",
        "state",
        "warehouses",
        "destinations",
        "defaults",
        "alerts",
        "memory_limit",
        "name",
        "model",
        "destination",
        "object",
        "identify",
        "fields",
        "nulls",
        "schedule",
        "cron",
        "guards",
        "freshness",
        "ledger",
        "x",
        "warehouses: {main",
        "fields: {f",
        "guards: {min_rows",
        "model: {file",
        "model: {table",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(KEYS, VALUES), max_size=6),
    st.lists(st.tuples(KEYS, VALUES), max_size=6),
    st.booleans(),
)
def test_any_project_is_loaded_or_a_usage_error(
    tmp_path_factory: pytest.TempPathFactory,
    main: list[tuple[str, str]],
    sync: list[tuple[str, str]],
    whole: bool,
) -> None:
    def text(pairs: list[tuple[str, str]], base: str) -> str:
        own = {key.split(":")[0]: f"{key}: {value}{'}' * key.count('{')}" for key, value in pairs}
        kept = [line for line in base.splitlines() if line.split(":")[0] not in own] if whole else []
        return "\n".join([*own.values(), *kept]) + "\n"

    files = Files(tmp_path_factory.mktemp("any"))
    files.write("backhaul.yml", text(main, FLAT_MAIN)).write("syncs/contacts.yml", text(sync, FLAT_SYNC))
    try:
        files.load().select()
    except UsageError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.file in ("backhaul.yml", "syncs/contacts.yml")
            assert "\n" not in str(problem)


FLAT_MAIN = "project: acme\nwarehouses: {main: {type: duckdb, path: w}}\ndestinations: {crm: {type: hubspot, access_token: sandbox}}\n"
FLAT_SYNC = "name: c\nmodel: {table: t, primary_key: id}\ndestination: crm\nobject: o\nidentify: {e: e}\nfields: {t: upper(p)}\n"


def test_an_alias_is_its_anchor(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text("a: &x {b: 1}\nc: *x\n")
    document = read(path, "x.yml")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.problem(("c", "b", "unknown"), "here").line == 1


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x.yml: is not a file"):
        read(tmp_path, "x.yml")
