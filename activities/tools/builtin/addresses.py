"""Which network addresses a tool may connect to. Pure: names are resolved elsewhere."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

IPv4 = ipaddress.IPv4Address
IPv6 = ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA_NAMES = ("metadata.google.internal", "metadata", "instance-data")
METADATA_ADDRESSES = (
    *("100.100.100.200", "192.0.0.192", "168.63.129.16"),
    *("fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42"),
)
"""A cloud's metadata services that are not link-local: they hand out keys."""

_NAT64 = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))
_TUNNELS = (
    ipaddress.IPv6Network("::/96"),  # IPv4-compatible, out of use
    ipaddress.IPv6Network("::ffff:0:0:0/96"),  # IPv4-translated
    ipaddress.IPv6Network("2001::/32"),  # Teredo
    ipaddress.IPv6Network("2002::/16"),  # 6to4
    ipaddress.IPv6Network("fec0::/10"),  # site-local, out of use
    ipaddress.IPv4Network("192.88.99.0/24"),  # 6to4 relays
)
"""Forms that carry another address inside, or go by a router nobody knows."""
_NEVER_PUBLIC = (
    ipaddress.IPv6Network("3fff::/20"),  # documentation
    ipaddress.IPv6Network("5f00::/16"),  # segments of a provider's own routing
    ipaddress.IPv4Network("192.0.0.0/24"),  # of protocols: some Pythons know a part of it only
)
"""Special addresses that this Python may not know."""
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


@dataclass(frozen=True)
class Allowed:
    """What an operator opens beyond the public internet."""

    is_all_private: bool = False
    networks: tuple[Network, ...] = ()

    def covers(self, address: IPv4 | IPv6) -> bool:
        return self.is_all_private or any(address in network for network in self.networks)


NOTHING = Allowed()


def allowed_from(text: str) -> Allowed:
    """The setting `PLANLOOM_HTTP_ALLOW_PRIVATE`: 1, 0, or networks such as 10.1.0.0/16.

    Raises:
        ValueError: a part is neither.
    """
    word = text.strip().lower()
    if word in ("", "0", "false", "no", "off"):
        return NOTHING
    if word in ("1", "true", "yes", "on"):
        return Allowed(is_all_private=True)
    return Allowed(networks=tuple(ipaddress.ip_network(part.strip()) for part in word.split(",")))


def refusal_of(address: str, allowed: Allowed = NOTHING) -> str | None:
    """Why an address may not be reached, or None."""
    try:
        given = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "it is not an address"
    found = _unwrapped(given)
    if found is None:
        return "addresses of tunnels and translators are never reached"
    if str(found) in METADATA_ADDRESSES or found.is_link_local:
        return "link-local and metadata addresses are never reached"
    if found.is_multicast or found.is_unspecified or str(found) == "255.255.255.255":
        return "it is not the address of a server"
    is_public = found.is_global and not _is_in(found, _NEVER_PUBLIC)
    if (found.is_private or not is_public) and not allowed.covers(found):
        return (
            "private addresses are closed; PLANLOOM_HTTP_ALLOW_PRIVATE (1, or networks such as "
            "10.1.0.0/16) opens them"
        )
    return None


def _unwrapped(address: IPv4 | IPv6) -> IPv4 | IPv6 | None:
    """The address that is really meant, or None when it goes through a tunnel."""
    if isinstance(address, IPv4):
        return None if _is_in(address, _TUNNELS) else address
    if (mapped := address.ipv4_mapped) is not None:
        return _unwrapped(mapped)
    if address in _NAT64[0]:  # as the DNS of networks without IPv4 gives it
        return _unwrapped(IPv4(int(address) & 0xFFFF_FFFF))
    if address in _NAT64[1] or (int(address) >> 32) & 0xFFFF_FFFF in _ISATAP:
        return None
    if address.is_loopback or address.is_unspecified:
        return address
    return None if _is_in(address, _TUNNELS) else address


def _is_in(address: IPv4 | IPv6, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
