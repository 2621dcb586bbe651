"""How the tests start the program, and what it said."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

START = [sys.executable, "-c", "from backhaul.cli import main; main()"]
TERMINAL = ("COLUMNS", "FORCE_COLOR", "NO_COLOR")


@dataclass(frozen=True)
class Said:
    """What one call printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Call = Callable[..., Said]


def environment(**variables: str) -> dict[str, str]:
    """This process's variables without those that describe its terminal."""
    kept = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    return {**kept, **variables}
