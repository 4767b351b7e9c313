"""Addresses of servers: what is wrong with one, and whether it is this machine's own."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import MutableMapping
from urllib.parse import urlsplit

from m3index.errors import UsageError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_OWN = ("localhost", ".localhost", "127.0.0.1", "127.0.0.0/8", "::1")


def redacted(uri: str) -> str:
    """The URI without user name and password."""
    return re.sub(r"(?<=//).*@", "", uri)


def check_server(url: str) -> None:
    """Raises UsageError for the URL of a server without a host, or with a port that cannot be one."""
    shown = redacted(url)
    try:
        parts = urlsplit(url)
        if not parts.hostname:
            raise UsageError(f"{shown!r} names no host. Write http://HOST:PORT.")
    except ValueError as error:
        raise UsageError(f"{shown!r} is not a valid URL: {error}. Write http://HOST:PORT.") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise UsageError(f"The port in {shown!r} is not valid. A port is a number from 1 to 65535.")


def is_loopback(host: str) -> bool:
    """Whether a host name or an address stands for this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # short forms such as 127.1
        except OSError:
            return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def is_own(url: str) -> bool:
    """Whether a URL leads to this machine. Such a request never goes to a proxy, which would reach itself and
    would learn the token."""
    return url.lower().startswith("unix:") or is_loopback(urlsplit(url).hostname or "")


def exempt_loopback(environment: MutableMapping[str, str]) -> None:
    """Adds this machine to `no_proxy` where a proxy is set, for the libraries that have no such rule
    themselves: the clients of the model hub and of object stores."""
    if not any(environment.get(name) or environment.get(name.upper()) for name in _PROXIES):
        return
    lower, upper = environment.get("no_proxy", ""), environment.get("NO_PROXY", "")
    given = {"no_proxy": lower or upper, "NO_PROXY": upper or lower}
    for name in given:
        exempt = [host.strip() for host in given[name].split(",") if host.strip()]
        if "*" not in exempt:
            environment[name] = ",".join([*exempt, *(host for host in _OWN if host not in exempt)])
