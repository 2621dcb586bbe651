"""A simulated Salesforce org."""

from backhaul.sandbox.salesforce.api import SalesforceSandbox

__all__ = ["SalesforceSandbox"]
