"""zenpy, a client that others wrote, drives the simulated account unchanged; in a process of its own, as its licence is another."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.waiting import HANGS

from backhaul.sandbox.zendesk import ZendeskSandbox
from backhaul.testing.serving import serving


@pytest.mark.skipif(find_spec("zenpy") is None, reason="zenpy is not installed")
def test_zenpy_drives_the_simulation() -> None:
    sandbox = ZendeskSandbox()
    sandbox.token, sandbox.job_seconds = "sandbox", 0.1
    with serving(sandbox.app()) as url:
        script = [sys.executable, Path(__file__).with_name("zenpy_session.py"), url]
        ran = subprocess.run(script, capture_output=True, text=True, timeout=HANGS)
    assert ran.stdout == "done\n", ran.stderr
    assert not sandbox.rooms["users"].live()
