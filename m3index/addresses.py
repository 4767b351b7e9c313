"""Addresses of servers: what is wrong with one, what of it may be shown, whether it is this machine's own,
and whether a token may go there. And what may be shown of the command line of a process."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from urllib.parse import urlsplit

from m3index.errors import UsageError

_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy")
_OWN = ("localhost", ".localhost", "127.0.0.1", "127.0.0.0/8", "::1")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_PLAIN = re.compile(r"(http|tcp)://", re.IGNORECASE)
"""What sends a token unencrypted."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The parts of the URL of a server. port: None for the default one."""

    host: str
    port: int | None
    has_credentials: bool

    @classmethod
    def parse(cls, url: str) -> ServerAddress:
        """Raises UsageError, without the secrets in the URL, if it is not that of a server."""
        shown = redacted(url)
        authority = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
        if "@" in url.partition("://")[2][len(authority) :]:
            raise UsageError(
                f"The user name or the password in {shown!r} contains /, ? or #. Leave them out, and set "
                "M3INDEX_TOKEN or --token-file to USER:PASSWORD."
            )
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:  # its text can quote the password
            raise UsageError(f"{shown!r} is not a valid URL. Write http://HOST:PORT.") from None
        if not host:
            raise UsageError(f"{shown!r} names no host. Write http://HOST:PORT.")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if port == 0:
            raise UsageError(f"The port in {shown!r} is not valid. A port is a number from 1 to 65535.")
        if parts.query or parts.fragment:
            raise UsageError(
                f"The address {shown!r} continues with ? or #. Write http://HOST:PORT; tokens come from "
                "variables and files."
            )
        return cls(host, port, "@" in authority)


def redacted(uri: str) -> str:
    """The URI without user name, password, query and fragment, whatever characters they contain. A path stays
    as it is."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() == "file":
        return uri
    before, *after = re.split(r"[?#]", rest, maxsplit=1)
    if after and "@" in after[0]:  # a password with ? or #, or a query with @
        return f"{scheme}://..."
    return f"{scheme}://{before.rpartition('@')[2]}"


def redacted_text(text: str) -> str:
    """A text of another program, with all URLs in it redacted."""
    return _URL.sub(lambda url: redacted(url[0]), text)


def shown_command(words: Sequence[str]) -> str:
    """What may be shown of the command line of a process: its program, and the command of m3index. Other
    arguments can be secrets, queries, names of files."""
    rest = list(words)
    name = PurePath(rest.pop(0)).name if rest else "a process"
    if re.fullmatch(r"(python|pypy)[\d.]*", name):
        while rest and rest[0].startswith("-") and rest[0] != "-c":
            rest.pop(0)
        if rest and rest[0] != "-c":
            name = PurePath(rest.pop(0)).name  # the script, or the module after -m
    if name == "m3index" and rest and re.fullmatch(r"[a-z]+", rest[0]):
        name = f"{name} {rest[0]}"
    return name[:60]


def check_secrecy(url: str, *, has_token: bool, insecure: bool) -> None:
    """Raises UsageError if a token would go over an unencrypted connection to another machine."""
    if insecure or not _PLAIN.match(url):
        return
    address = ServerAddress.parse(url)
    if (has_token or address.has_credentials) and not is_loopback(address.host):
        raise UsageError(
            f"The token would go to {redacted(url)} over an unencrypted connection, on which others can read "
            "it. Use https://, or permit it with --insecure (M3INDEX_INSECURE=true)."
        )


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
    if url.lower().startswith("unix:"):
        return True
    try:
        return is_loopback(ServerAddress.parse(url).host)
    except UsageError:
        return False


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
