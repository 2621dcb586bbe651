"""A simulated Zendesk Support account."""

from backhaul.sandbox.zendesk.api import ZendeskSandbox

__all__ = ["ZendeskSandbox"]
