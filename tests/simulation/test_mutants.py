"""Mutants of the engine: the simulation notices every one, and each rewrites a text that is really there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from .mutants import MUTANTS, Mutant, mutated
from .test_simulation import simulate


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_rewrites_what_is_there(mutant: Mutant) -> None:
    """Where this fails, the engine was rewritten: give the mutant its new text, so that it goes on breaking its promise."""
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    assert mutated(Path(spec.origin).read_text(), mutant) != ""


def test_every_mutant_is_given_away() -> None:
    done = simulate("--mutants", "--processes", "2")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
