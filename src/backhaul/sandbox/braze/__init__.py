"""A simulated Braze workspace."""

from backhaul.sandbox.braze.api import BrazeSandbox

__all__ = ["BrazeSandbox"]
