"""A simulated Klaviyo account."""

from backhaul.sandbox.klaviyo.api import KlaviyoSandbox

__all__ = ["KlaviyoSandbox"]
