"""What `check` remarks on a destination's address: where it leads, and whether credentials would travel in the open."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from urllib.parse import urlsplit

_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
_SHARED = ipaddress.ip_network("100.64.0.0/10")
"""Carrier-grade NAT (RFC 6598)."""


async def remarks(url: str) -> list[str]:
    """In words; none for a public address over TLS. This machine itself is no surprise."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return []
    addresses = await _addresses(parts.hostname)
    if addresses and all(one.is_loopback for one in addresses):
        return []
    found = [f"{parts.hostname} is {kind}" for kind in sorted(set(map(_kind, addresses)) - {""})]
    if parts.scheme == "http":
        found.append(
            "the connection is not encrypted: credentials and records can be read on the way; use https"
        )
    set_here = [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.lower())]
    if set_here:
        found.append(f"{set_here[0]} is set and is not used: backhaul connects directly")
    return found


async def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        known = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    each = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in known]
    return [getattr(one, "ipv4_mapped", None) or one for one in each]


def _kind(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    if address.is_loopback:
        return "this machine"
    if address.is_link_local:
        return "a link-local address, where clouds serve credentials to machines"
    if address.is_multicast or address.is_unspecified:
        return "no address of one host"
    if address.is_private or (address.version == 4 and address in _SHARED):
        return "a private address"
    return ""
