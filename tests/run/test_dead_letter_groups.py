"""Dead letters in groups: what is one kind of failure, and what is advised."""

from __future__ import annotations

from typing import Any

import pytest

from backhaul.advice import advice, field_of, shape
from backhaul.records.letters import groups


def letter(number: int, message: str, when: str = "2026-01-01T00:00:00Z", **other: Any) -> dict[str, Any]:
    return {
        "id": number, "sync": "users", "key": number, "error": {"code": "INVALID", "message": message},
        "first_failed_at": when, "last_failed_at": when, "field": field_of(message, ["email", "name"]), "destination": "crm",
        "group": shape(message), "class": "format", "fix": "mend it",
        "payload": None, **other,
    }  # fmt: skip


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


def test_groups_are_counted_dated_and_the_newest_comes_first() -> None:
    found = groups(
        [
            letter(1, "email 'a' is invalid", "2026-01-01T00:00:00Z"),
            letter(2, "name is required", "2026-01-02T00:00:00Z"),
            letter(3, "email 'b' is invalid", "2026-01-03T00:00:00Z", sync="leads"),
        ]
    )
    assert [(one["message"], one["field"], one["count"], one["ids"]) for one in found] == [
        ("email <value> is invalid", "email", 2, [1, 3]),
        ("name is required", "name", 1, [2]),
    ]
    assert found[0]["syncs"] == ["users", "leads"]
    assert (found[0]["first_failed_at"][:10], found[0]["last_failed_at"][:10]) == ("2026-01-01", "2026-01-03")
    assert found[0]["sample"] == {"id": 1, "key": 1}
