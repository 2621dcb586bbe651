"""The shape of SQL that users write: one SELECT a model, one expression a field."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from config_project import Files

from backhaul.config.sql import check_expression, check_model

GOOD = [
    "first_name", '"order"', "round(health, 1)", "upper(plan)", "a || ' ; ' || b", "case when a > 1 then 'x' end",
    "cast(a as decimal(18, 2))", "a::varchar", "{'city': city}", "[a, b]", "list_transform(a, x -> x + 1)",
    "date '2024-01-01'", "t.a.b", "NULL", "1", "true", "'it''s'", "comment", "strftime(at, '%Y')", "a is not null",
    "coalesce(a, b)", "json_extract(j, '$.a')", "a in (1, 2)", "greatest(a, b)", "md5(lower(trim(email)))",
]  # fmt: skip
BAD = [
    ("a, b", "several expressions"), ("a; b", "holds no `;`"), ("a;", "holds no `;`"), ("select 1", ""),
    ("(select 1)", "subquery"), ("a in (select b from c)", "subquery"), ("exists(select 1)", "subquery"),
    ("a as b", "alias"), ("a b", "alias"), ("upper(plan", "not valid SQL"), ("'open", "not valid SQL"),
    ("drop table x", ""), ("delete from x", ""), ("a from b", "more than one"), ("a limit 1", "more than one"),
    ("a union select 1", "more than one"), ("distinct a", "more than one"), ("*", "not one value"),
    ("count(*)", "aggregates"), ("unnest(tags)", "one value"), ("sum(a) over ()", "aggregates"), ("$1", "parameters"), ("a = ?", "parameters"),
    ("a -- note", "comment"), ("a /* note */", "comment"), ("(" * 3000 + "a" + ")" * 3000, ""), ("a) + (b", ""),
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_expression_is_taken(text: str) -> None:
    assert check_expression(text) is None


@pytest.mark.parametrize(("text", "said"), BAD, ids=[case[0][:20] for case in BAD])
def test_anything_else_is_refused(text: str, said: str) -> None:
    fault = check_expression(text)
    assert fault is not None
    assert said in fault.message


@pytest.mark.parametrize(
    "text",
    [
        "select 1", "select 1;", "with a as (select 1) select * from a", "from customers", "(select 1) union all (select 2)",
        "values (1)", "select ';' as x -- ; done\n;", "select * from read_csv('x.csv')", "select * exclude (a) from t",
    ],
)  # fmt: skip
def test_a_model_is_one_select(text: str) -> None:
    assert check_model(text) is None


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("select 1;\nselect 2", 2, 1, "second statement"),
        ("-- note\ninsert into t values (1)", 2, 1, "starts with insert"),
        ("drop table t", 1, 1, "starts with drop"),
        ("copy t to 'x'", 1, 1, "starts with copy"),
        ("with a as (delete from t returning *) select * from a", 1, 1, "holds DELETE"),
        ("select * into b from a", 1, 1, "holds INTO"),
        ("select * from a for update", 1, 1, "FOR UPDATE"),
        ("select a\nfrom b\nwhere (c", 3, 8, "not valid SQL"),
        ("select 'a", 1, 1, "not valid SQL"),
        ("select $1", 1, 1, "parameters"),
        ("", 1, 1, "no SQL"),
        ("-- only a note", 1, 1, "no SQL"),
    ],
)
def test_a_model_that_is_more_or_less(text: str, line: int, column: int, said: str) -> None:
    fault = check_model(text, "postgres")
    assert fault is not None
    assert said in fault.message
    assert (fault.line, fault.column) == (line, column)


def test_the_place_of_an_expression_is_its_place_in_the_file(sync: Callable[..., Files]) -> None:
    problem = sync(("upper(plan)", "plan; drop table x")).problem()
    assert problem == "syncs/contacts.yml:7:13: `fields.tier`: an expression holds no `;`"


def test_the_place_in_a_block_is_counted_from_its_first_line(sync: Callable[..., Files]) -> None:
    block = "model:\n  primary_key: id\n  sql: |\n    select 1;\n    delete from x\n"
    problem = sync(("model: {table: customers, primary_key: id}\n", block)).problem()
    assert problem == (
        "syncs/contacts.yml:6:5: `model.sql`: a second statement starts here; a model is one SELECT"
    )
