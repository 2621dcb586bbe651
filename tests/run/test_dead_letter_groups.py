"""Dead letters in groups: what is one kind of failure, and what is advised."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from sites import Site

from backhaul.advice import advice, field_of, shape
from backhaul.errors import UsageError
from backhaul.records.letters import Choice
from backhaul.state.letters import DeadLetter, burial
from backhaul.state.protocol import State
from backhaul.state.sqlite_connection import ROWS
from backhaul.state.statements import queries


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("email 'a b' is invalid", "email 'c' is invalid"),
        ("ada@example.com is taken by 17", "bob+x@mail.example.org is taken by 4,711"),
        ("no record 0f8fad5b-d9cb-469f-a165-70867728950e", "no record 7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        ("see https://api.test/a?b=1", "see https://api.test/other"),
        ("at most 10 characters, got -3.5", "at most 200 characters,  got 12"),
        ("object 5f2b8c9e1a2b3c4d is locked", "object 9a8b7c6d5e4f3a2b is locked"),
    ],
)
def test_messages_that_differ_in_values_only_have_one_shape(one: str, other: str) -> None:
    assert shape(one) == shape(other)


def test_messages_that_say_something_else_have_shapes_of_their_own() -> None:
    assert shape("email is invalid") != shape("email is required")


def test_a_message_that_repeats_a_value_has_the_shape_of_the_others() -> None:
    shapes = {
        shape(f"Email: invalid email address: {value}", ["Email", value])
        for value in ("dana.moreau.9001 at example.com", "ada", "ada.abara at example.com")
    }
    assert shapes == {"Email: invalid email address: <value>", "Email: invalid email address: ada"}


@pytest.mark.parametrize(
    ("code", "message", "expected"),
    [
        ("DUPLICATE_VALUE", "x", "two records claim"),
        ("23505", "duplicate key value violates unique constraint", "two records claim"),
        ("400", "email is required", "give the field a value"),
        ("INVALID_EMAIL", "is invalid", "mend the value"),
        ("400", "value is too long", "shorten"),
        ("INVALID_OPTION", "blue is not one of red, green", "translate"),
        ("x", "insufficient permission to write this field", "grant"),
        ("x", "cannot be cast to integer", "cast"),
        ("x", "hm", "see one in full"),
    ],
)
def test_what_to_do_by_the_words_of_an_error(code: str, message: str, expected: str) -> None:
    assert advice(code, message, {}).startswith(expected)
    assert advice(code, message, {code: "call them"}) == "call them"


def test_the_field_is_the_longest_that_the_message_names() -> None:
    assert field_of("mail_2 is bad", ["mail", "mail_2"]) == "mail_2"
    assert field_of("mailbox is bad", ["mail"]) is None


def bury(state: State, key: int, message: str, minute: int, *, seal: str = "") -> None:
    """One dead letter of a record whose name is its key's. `seal`: it is encrypted with a key that is not here."""
    letter = DeadLetter(
        f"{key}", "upsert", "INVALID", message, 1, f'{{"name": "a name of {key}"}}', "1",
        field=field_of(message, ["email", "name"]),
    )  # fmt: skip
    row = list(burial(state, "users", "p-1", letter, "m"))
    row[6] = row[7] = f"2026-01-01T00:{minute:02d}:00.000Z"
    row[13] = seal
    state.do_all("bury", [row])


def test_groups_are_counted_dated_and_the_newest_comes_first(site: Site) -> None:
    with site.project as project:
        state = project.workspace.state
        bury(state, 1, "email 'a' is invalid", 1)
        bury(state, 2, "name is required", 2)
        bury(state, 3, "email 'b' is invalid", 3)
        found, count = project.dead_letter_groups()
        chosen = project.dead_letters(choice=Choice(group=found[0]["group"]))
    assert count == 2
    assert [(one["message"], one["field"], one["count"]) for one in found] == [
        ("email <value> is invalid", "email", 2),
        ("name is required", "name", 1),
    ]
    assert found[0]["syncs"] == ["users"]
    assert (found[0]["first_failed_at"][14:16], found[0]["last_failed_at"][14:16]) == ("01", "03")
    assert found[0]["sample"] == {"id": chosen[0]["id"], "key": 1}
    assert [letter["key"] for letter in chosen] == [1, 3]


def test_values_that_a_message_repeats_make_no_group_of_their_own(site: Site) -> None:
    with site.project as project:
        for key in (1, 2):
            bury(project.workspace.state, key, f"no name like a name of {key}", 1)
        (group,), _ = project.dead_letter_groups()
    assert group["count"] == 2


def test_a_page_reads_only_the_letters_that_it_shows(site: Site) -> None:
    """Letters that nobody could read do not matter where they are not on the page."""
    with site.project as project:
        state = project.workspace.state
        bury(state, 0, "name is bad", 59)
        for key in range(1, 20):
            bury(state, key, f"name is {'bad' if key % 2 else 'worse'}", key, seal="lost")
        groups, count = project.dead_letter_groups(limit=1)
        assert ([group["count"] for group in groups], count) == ([11], 2)
        assert len(project.dead_letters(limit=1, payloads=False)) == 1
        with pytest.raises(UsageError):
            project.dead_letters(limit=2, payloads=False)


def test_groups_are_counted_by_an_index_alone(site: Site) -> None:
    with site.project as project:
        bury(project.workspace.state, 1, "name is bad", 1)
    with closing(sqlite3.connect(site.root / ".backhaul" / "state.db")) as database:
        plan = database.execute("EXPLAIN QUERY PLAN " + queries(ROWS)["letter_groups"]).fetchall()
    assert any("COVERING INDEX dead_letter_groups" in row[-1] for row in plan), plan
