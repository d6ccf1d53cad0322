"""Which addresses that a task names may be gone to: URLs, what they resolve to, S3 URIs; pure, it looks nothing up.

What is not understood at once, and by every reader alike, is refused: an address that two parsers read differently
leads somewhere else than was judged. The ranges are those of IANA's registries of special-purpose addresses
(https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from urllib.parse import quote

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network

MAX_ADDRESS_CHARS = 8192
"""Presigned URLs with a session token come to two thousand."""
MAX_KEY_BYTES = 1024
"""S3's own limit."""
_MAX_SHOWN_CHARS = 100
_PORTS = {"http": 80, "https": 443}
_FIRST_FREE_PORT = 1024
"""Below it other protocols live than HTTP, whose servers may take a line of a request for a command."""

_WEB = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::([0-9]{1,5}))?")
_NUMERIC = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)")
"""A last label that inet_aton would read as a number."""
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_INSIDE = ("localhost", "localdomain", "local", "internal", "home.arpa", "lan", "intranet", "corp", "home", "private")
"""Endings of names that are never public, so that none of them need be looked up."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_S3 = re.compile(r"s3://([a-z0-9](?![^/]*\.\.)[a-z0-9.-]{1,61}[a-z0-9])/(.+)", re.DOTALL)

_NEVER = {
    "unspecified": ("0.0.0.0/8", "::/128"),
    "link-local or metadata": (
        *("169.254.0.0/16", "fe80::/10"),
        *("fd00:ec2::/32", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32"),
    ),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "reserved": ("240.0.0.0/4",),
    "translated or tunnelled": (  # each carries an IPv4 address, which would escape its own judgment
        *("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"),
    ),
}
"""What nothing opens: credentials of the host are given out there, or it is nobody's address."""
_CLOSED = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "shared (CGNAT)": ("100.64.0.0/10",),
    "benchmarking": ("198.18.0.0/15",),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "protocol": ("192.0.0.0/24", "192.88.99.0/24", "2001::/23"),
}
"""What the allow-list may open."""
_LOOPBACK_V6 = IPv6Address("::1")
"""The one address in a range of the former kind that is none."""
_GLOBAL_V6 = IPv6Network("2000::/3")
_Ranges = tuple[tuple[str, IPNetwork], ...]


def _ranges(named: dict[str, tuple[str, ...]]) -> _Ranges:
    return tuple((name, ip_network(network)) for name, networks in named.items() for network in networks)


_NEVER_RANGES, _CLOSED_RANGES = _ranges(_NEVER), _ranges(_CLOSED)


class Forbidden(Exception):
    """The address may not be gone to; the message says why and shows no credentials."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAddress:
    """A URL taken apart: `host` in lower case without brackets, `target` what a request asks for."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def is_ip(self) -> bool:
        """Whether the host is an address already, so that nothing is to be looked up."""
        return _literal(self.host) is not None

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as it is gone to."""
        return f"{self.scheme}://{self.authority}{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Address:
    """An object: its bucket and key."""

    bucket: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One entry of the allow-list: a name or a network, at one port or (None) at any."""

    name: str | None = None
    network: IPNetwork | None = None
    port: int | None = None


class Guard:
    """Judges web addresses before and after their names are resolved. `allow_hosts` are readable by `read_opening`."""

    def __init__(self, allow_hosts: Iterable[str] = ()) -> None:
        self._openings = tuple(read_opening(text) for text in allow_hosts)

    def read(self, address: str) -> WebAddress:
        """Take a URL apart. Raises Forbidden for one that may not even be looked up."""
        where = read_web(address)
        scheme, host, port = where.scheme, where.host, where.port
        if self._is_open_name(where):
            return where
        literal = _literal(host)
        if literal is not None:
            self.check(where, host)
        elif "." not in host or host.endswith(tuple(f".{end}" for end in _INSIDE)):
            raise Forbidden(f"{shown(address)} names a private host, which [inputs] allow_hosts does not open")
        if port < _FIRST_FREE_PORT and port != _PORTS[scheme] and not (literal and self._opens(where, literal)):
            raise Forbidden(f"{shown(address)} names port {port}, where no web server is")
        return where

    def check(self, where: WebAddress, ip: str) -> None:
        """Raise Forbidden unless `ip`, which `where` resolves to, is public or opened for it."""
        url = shown(where.url)
        try:
            address = ip_address(ip)
        except ValueError:
            raise Forbidden(f"{url} leads to no IP address") from None
        if kind := _never(address):
            raise Forbidden(f"{url} leads to an address of a kind that is never gone to: {kind}")
        if (kind := _closed(address)) and not self._opens(where, address):
            raise Forbidden(f"{url} leads to a {kind} address, which [inputs] allow_hosts does not open")

    def _opens(self, where: WebAddress, address: IPAddress) -> bool:
        return self._is_open_name(where) or any(
            one.network is not None and address in one.network and one.port in {None, where.port}
            for one in self._openings
        )

    def _is_open_name(self, where: WebAddress) -> bool:
        return any(one.name == where.host and one.port in {None, where.port} for one in self._openings)


def read_web(address: str) -> WebAddress:
    """Take a URL apart; where it leads is not judged. Raises Forbidden for what not all readers read alike."""
    _require_plain(address)
    parts = _WEB.fullmatch(address)
    if parts is None:
        raise Forbidden(f"{shown(address)} is no http:// or https:// address")
    scheme = parts[1].lower()
    host, port = _authority(parts[2], _PORTS[scheme], address)
    return WebAddress(scheme=scheme, host=host, port=port, target=_target(parts[3], parts[4], address))


def read_opening(text: str) -> Opening:
    """Read an entry of the allow-list: a host's name, an IP address, either with ``:port``, or a network (CIDR).

    Raises ValueError, saying what would be right, for anything else and for what nothing may open.
    """
    right = "expected a host name, an IP address, either with :port, or a network such as 10.0.0.0/16"
    try:
        network = ip_network(text)
        port = None
    except ValueError as error:
        if "host bits" in str(error):
            raise ValueError("expected a network without host bits, such as 10.0.0.0/16") from None
        parts = _AUTHORITY.fullmatch(text)
        if parts is None or (port := _port(parts[3])) == 0:
            raise ValueError(right) from None
        host = (parts[1] or parts[2]).lower()
        literal = _literal(host)
        if literal is None:
            if parts[1] or _NUMERIC.fullmatch(host) or not _NAME.fullmatch(host):
                raise ValueError(right) from None
            return Opening(name=host, port=port)
        network = ip_network(literal)
    for kind, never in _NEVER_RANGES:
        if (
            network.network_address in never
            and network.prefixlen >= never.prefixlen
            and _never(network.network_address)
        ):
            raise ValueError(f"such addresses are never gone to: {kind}")
    return Opening(network=network, port=port)


def read_s3(address: str, buckets: Iterable[str]) -> S3Address:
    """Take an S3 URI apart. Raises Forbidden for one that is malformed or names a bucket that is not listed."""
    _require_plain(address)
    parts = _S3.fullmatch(address)
    if parts is None:
        raise Forbidden(f"{shown(address)} is no S3 URI of the form s3://bucket/key")
    bucket, key = parts[1], parts[2]
    if bucket not in set(buckets):
        raise Forbidden(f"{shown(address)} names a bucket that [inputs] allow_buckets does not list")
    if len(_encoded(key, address)) > MAX_KEY_BYTES:
        raise Forbidden(f"{shown(address)} has a key of more than {MAX_KEY_BYTES} bytes")
    if any(part in {".", ".."} for part in key.split("/")) or key.startswith("/"):
        raise Forbidden(f"{shown(address)} has a key with an empty beginning or a part that is . or ..")
    return S3Address(bucket=bucket, key=key)


def shown(address: str) -> str:
    """Return an address as it may stand in an error or a log line: no login, no query, one line, bounded, ASCII."""
    scheme, separator, rest = re.split(r"[?#]", address, maxsplit=1)[0].partition("://")
    _, at, after = rest.rpartition("@")
    text = ascii(f"{scheme}{separator}{'***@' if at else ''}{after}")
    return text if len(text) <= _MAX_SHOWN_CHARS else f"{text[:_MAX_SHOWN_CHARS]}..."


def _require_plain(address: str) -> None:
    if len(address) > MAX_ADDRESS_CHARS:
        raise Forbidden(f"an address of {len(address)} characters; {MAX_ADDRESS_CHARS} are the most")
    if _CONTROL.search(address):
        raise Forbidden(f"{shown(address)} has a control character or a backslash in it")


def _authority(text: str, default_port: int, address: str) -> tuple[str, int]:
    """Return host and port of the part of a URL that names them."""
    if "@" in text:
        raise Forbidden(f"{shown(address)} names a user; put no credentials into addresses")
    parts = _AUTHORITY.fullmatch(text)
    if parts is None:
        raise Forbidden(f"{shown(address)} names no host, or not in a way that is read by all alike")
    port = _port(parts[3])
    if port == 0:
        raise Forbidden(f"{shown(address)} names a port that is none")
    host = (parts[1] or parts[2]).lower()
    if parts[1] or _NUMERIC.fullmatch(host.removesuffix(".")):
        literal = _literal(host)
        if literal is None or (literal.version == 6) != bool(parts[1]):
            raise Forbidden(f"{shown(address)} has an IP address in a form that not all read alike")
        return str(literal), port or default_port
    if len(host) > 253 or not _NAME.fullmatch(host):
        raise Forbidden(f"{shown(address)} has a host name with other characters than a-z 0-9 - _ and inner dots")
    return host, port or default_port


def _port(text: str | None) -> int | None:
    """Return the port, None where there is none, 0 for one that is out of range."""
    if text is None:
        return None
    return int(text) if 0 < int(text) <= 65535 else 0


def _target(path: str, query: str | None, address: str) -> str:
    # What is outside ASCII, and the blank, are said as browsers say them; every other character stays as it is.
    raw = _encoded(f"{path or '/'}{query or ''}", address)
    return quote(raw, safe="".join(map(chr, range(0x21, 0x7F))))


def _encoded(text: str, address: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise Forbidden(f"{shown(address)} holds half a character (a lone surrogate)") from None


def _literal(host: str) -> IPAddress | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _never(address: IPAddress) -> str | None:
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "scoped"
    return None if address == _LOOPBACK_V6 else _kind(address, _NEVER_RANGES)


def _closed(address: IPAddress) -> str | None:
    kind = _kind(address, _CLOSED_RANGES)
    if kind is None and isinstance(address, IPv6Address) and address not in _GLOBAL_V6:
        return "reserved"
    return kind


def _kind(address: IPAddress, ranges: _Ranges) -> str | None:
    return next((kind for kind, network in ranges if address in network), None)
