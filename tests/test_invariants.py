"""docs/invariants.md, and what destinations' pages say of simulations, name tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_test_that_holds_an_invariant_exists() -> None:
    page = (TESTS.parent / "docs" / "invariants.md").read_text()
    assert len(NAMED.findall(page)) > 30
    assert missing(page) == []


def test_every_test_that_holds_a_simulation_to_its_vendor_exists() -> None:
    pages = {page.stem: page.read_text() for page in (TESTS.parent / "docs" / "destinations").glob("*.md")}
    tables = {name: text for name, text in pages.items() if "## What the simulation holds to" in text}
    assert len(tables) > 6
    assert {name: missing(text) for name, text in tables.items() if missing(text)} == {}


def missing(page: str) -> list[str]:
    """The tests that a page names and that are not there."""
    named = NAMED.findall(page)
    return [f"{file}::{name}" for file, name in named if f"def {name}(" not in (TESTS / file).read_text()]
