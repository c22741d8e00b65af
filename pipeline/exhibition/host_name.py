"""Names of a server, as staff write them and as browsers send them."""

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

_LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


def host_name(host: str) -> str | None:
    """Return the name or address of a Host header, in one spelling: lower case, without port, brackets and last dot.

    None where it is neither a name of ASCII letters, digits, hyphens and underscores (RFC 1123; international names as
    browsers send them, xn--…), nor an IPv4 or IPv6 address. An IPv6 address may lack its brackets, if it has no port.
    """
    text = host.strip()
    if (bare := _address(text)) is not None:
        return bare
    try:
        parts = urlsplit(f"//{text}")
        _ = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path or parts.query or parts.fragment or parts.username is not None:
        return None
    name = parts.hostname.removesuffix(".")
    if (address := _address(name)) is not None:
        return address
    return name if len(name) <= 253 and all(map(_LABEL.fullmatch, name.split("."))) else None


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
