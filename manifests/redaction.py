"""Taking credentials out of what is shown or stored: addresses, messages, log lines.

Three kinds are known: what a URL carries (``user:password@``, the signature of a presigned query string), what this
process was given (environment, fsspec's configuration), and the few forms in which clients of stores print options.
"""

import os
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlencode

from fsspec import config

HIDDEN: Final = "***"
LEAST_SECRET: Final = 8
"""Characters; shorter values would be found in the middle of innocent words."""

_SECRET_VARIABLE = re.compile(
    r"(?i)SECRET|(?:TOKEN|PASSWORD|PASSWD|PASSPHRASE|ACCESS_KEY|ACCESS_KEY_ID|ACCOUNT_KEY|API_KEY|STORAGE_KEY|SAS"
    r"|CONNECTION_STRING)$"
)
_SECRET_OPTION = re.compile(
    r"(?i)^(?:key|secret|token|password|passwd|passphrase|sas_token|credential|.*(?:secret|access_key|"
    r"account_key|api_key|session_token|connection_string|password).*)$"
)
_SECRET_PARAMETER = re.compile(
    r"(?i)^(?:x-amz-.*|x-goog-.*|signature|sig|se|sp|spr|skoid|awsaccesskeyid|googleaccessid|key-pair-id|policy"
    r"|expires|.*(?:token|secret|password|credential|api_?key).*)$"
)
_HARMLESS_PARAMETERS = {"versionid", "version", "generation", "revision", "rev", "ref"}

# A port is no password; a user alone is none either, save for HTTP, where it is how tokens are written.
_USER = re.compile(
    r"(?i)(?<=://)[^/\s:@'\"]*:(?!\d{1,5}(?:[/?#'\"\s]|$))[^@\s]*@|(?<=http://)[^/\s@]+@|(?<=https://)[^/\s@]+@"
)
_QUERY = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*)(://[^\s?'\"<>]*)\?([^\s'\"<>)\]}]*)")
_LOOSE = (
    re.compile(
        r"(?i)\b(x-(?:amz|goog)-(?:signature|credential|security-token)|awsaccesskeyid|signature|sig)=[^&\s'\"<>]+"
    ),
    re.compile(
        r"(?i)\b((?:aws_)?(?:secret_access_key|session_token|access_key_id)|secret|password|passwd|token|account_key"
        r"|sas_token|connection_string)(['\"]?\s*[=:]\s*)(['\"])[^'\"]+\3"
    ),
    re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
)

_remembered: set[str] = set()  # found in addresses that this process was given
_lock = threading.Lock()


def redact(text: str) -> str:
    """Return ``text``, one address or whole sentences, without credentials; what has none comes back unchanged.

    User and password are taken out of URLs, and so are queries, save for parameters that are known to be harmless or
    (outside HTTP) not known as signatures: the address then names the place still, for somebody with credentials of
    their own. Whatever else is a known secret of this process becomes ``***``.
    """
    for url in _USER.finditer(text):
        remember(url[0].removesuffix("@").split(":", 1)[-1])
    for url in _QUERY.finditer(text):
        remember(*(value for name, value in parse_qsl(url[3]) if _is_secret_parameter(url[1], name)))
    text = _USER.sub("", text)
    text = _QUERY.sub(_without_query, text)
    for secret in sorted({*_remembered, *_of_environment(), *_of_options(config.conf)}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    text = _LOOSE[0].sub(rf"\1={HIDDEN}", text)
    text = _LOOSE[1].sub(rf"\1\2\3{HIDDEN}\3", text)
    return _LOOSE[2].sub(HIDDEN, text)


def has_credentials(address: str) -> bool:
    """Whether an address carries a password or a signature."""
    signed = (name for url in _QUERY.finditer(address) for name, _ in parse_qsl(url[3], keep_blank_values=True))
    return _USER.search(address) is not None or any(_SECRET_PARAMETER.match(name) for name in signed)


def remember(*secrets: str) -> None:
    """Take these values for secrets from now on, in this process, as they are and percent-encoded or decoded."""
    with _lock:
        _remembered.update(form for secret in secrets for form in _forms(secret))


def _forms(secret: str) -> Iterator[str]:
    if len(secret) >= LEAST_SECRET:
        yield from {secret, unquote(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if _SECRET_VARIABLE.search(name) and not name.upper().endswith(("_FILE", "_PATH", "_DIR", "_URI", "_URL")):
            yield from _forms(value)


def _of_options(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _of_options(value)
        elif isinstance(value, str) and _SECRET_OPTION.match(str(name)):
            yield from _forms(value)


def _is_secret_parameter(protocol: str, name: str) -> bool:
    if protocol.lower() in ("http", "https"):
        return name.lower() not in _HARMLESS_PARAMETERS
    return _SECRET_PARAMETER.match(name) is not None


def _without_query(url: re.Match[str]) -> str:
    if "=" not in url[3]:  # a question mark in the name of an object
        return url[0]
    parameters = parse_qsl(url[3], keep_blank_values=True)
    kept = [(name, value) for name, value in parameters if not _is_secret_parameter(url[1], name)]
    if len(kept) == len(parameters):
        return url[0]
    return f"{url[1]}{url[2]}" + (f"?{urlencode(kept)}" if kept else "")
