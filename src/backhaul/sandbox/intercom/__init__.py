"""A simulated Intercom workspace."""

from backhaul.sandbox.intercom.api import IntercomSandbox

__all__ = ["IntercomSandbox"]
