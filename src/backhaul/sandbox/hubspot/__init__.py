"""A simulated HubSpot account."""

from backhaul.sandbox.hubspot.api import HubSpotSandbox

__all__ = ["HubSpotSandbox"]
