"""A simulated Marketo instance."""

from backhaul.sandbox.marketo.api import MarketoSandbox

__all__ = ["MarketoSandbox"]
