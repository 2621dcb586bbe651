"""A simulated Iterable project."""

from backhaul.sandbox.iterable.api import IterableSandbox

__all__ = ["IterableSandbox"]
