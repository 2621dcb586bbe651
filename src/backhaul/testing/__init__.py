"""For authors of destinations: a conformance suite, doubles, and what they stand on."""

from __future__ import annotations

import sys

if "pytest" in sys.modules:  # so that an assertion of the suite that fails shows what it compared
    import pytest

    pytest.register_assert_rewrite("backhaul.testing.conformance")
