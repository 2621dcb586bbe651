"""Makes docs/demo.svg: a part of the real demo's output, as a terminal shows it. Usage: python scripts/picture.py"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 108
FIRST, LAST = "A day later", "Does HubSpot hold"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ended = subprocess.run(
            [sys.executable, "-m", "backhaul", "demo", "--folder", str(Path(folder) / "demo")],
            env={**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH), "TERM": "xterm-256color"},
            stdout=subprocess.PIPE,
            check=True,
        )
    lines = ended.stdout.decode().split("\n")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    start = next(number for number, line in enumerate(plain) if line.startswith(FIRST))
    stop = next(number for number, line in enumerate(plain) if line.startswith(LAST))
    skip_from = next(number for number, line in enumerate(plain) if line.startswith("scores →"))
    skip_to = next(number for number, line in enumerate(plain) if line.startswith("Only that is sent"))
    shown = [*lines[start:skip_from], *lines[skip_to:stop]]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("\n".join(shown)))
    target = Path(__file__).parent.parent / "docs" / "demo.svg"
    target.write_text(console.export_svg(title="backhaul demo"))


if __name__ == "__main__":
    main()
