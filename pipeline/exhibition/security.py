"""What stands between the exhibition and other people's pages: hosts, origins, tokens, rates, headers on everything.

The server has no accounts. What is worth protecting is a visitor's photograph and what was found for it, from other
visitors, from other sites open in the same browser (cross-site requests, DNS rebinding), and from being kept.
"""

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Collection, Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.exhibition.api_error import ApiError
from pipeline.exhibition.cookie import COOKIE
from pipeline.exhibition.failure_log import log_failure
from pipeline.exhibition.host_name import host_name
from pipeline.exhibition.rate_limit import RateLimit

CSRF_HEADER: Final = "x-csrf-token"
SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": (
        "camera=(self), microphone=(), geolocation=(), accelerometer=(), gyroscope=(), magnetometer=(), payment=(), "
        "usb=(), serial=(), midi=(), display-capture=(), browsing-topics=()"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""On every answer, errors included; an answer may bring a stricter policy of its own."""

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_VISITOR: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def new_visitor() -> str:
    """Return a cookie for a browser that has none: 256 random bits."""
    return secrets.token_urlsafe(32)


def visitor_of(headers: Headers | Request) -> str | None:
    """Return the visitor's cookie, None without one of the right form."""
    cookies = (
        headers.cookies if isinstance(headers, Request) else Request({"type": "http", "headers": headers.raw}).cookies
    )
    cookie = cookies.get(COOKIE, "")
    return cookie if _VISITOR.fullmatch(cookie) else None


class CsrfTokens:
    """Tokens that only a page of this server has: the HMAC of the visitor's cookie with a secret of this process."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def of(self, visitor: str) -> str:
        """Return the token of a visitor."""
        return hmac.new(self._secret, visitor.encode(), hashlib.sha256).hexdigest()

    def check(self, visitor: str | None, token: str) -> str:
        """Return the visitor if the token is theirs; ApiError 403."""
        if visitor is None or not hmac.compare_digest(self.of(visitor).encode(), token.encode("utf-8", "replace")):
            raise ApiError(403, "forbidden", "the page is too old, or not of this server; load it again")
        return visitor


class SameSite:
    """Refuses requests under other names than the server's, and from other sites' pages.

    Args:
        hosts: names or addresses by which the server may be called, besides those of this machine; with a port or
            without, which makes no difference.

    A name that merely resolves to this server is refused, so that a page cannot have its own name point here (DNS
    rebinding).
    """

    def __init__(self, hosts: Iterable[str] = ()) -> None:
        self._hosts = _LOOPBACK | {name for host in hosts if (name := host_name(host)) is not None}

    def check(self, scope: Scope) -> None:
        """ApiError 403 for a request that is not for us, or not from a page of ours."""
        headers = Headers(scope=scope)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self._hosts:
            raise ApiError(
                403, "forbidden", "the server is not called by this name; staff can allow it with --allowed-host"
            )
        site = headers.get("sec-fetch-site")
        visible = scope["method"] in SAFE_METHODS and headers.get("sec-fetch-mode") == "navigate"
        if site not in {None, "same-origin", "none"} and not (visible and scope["path"] == "/"):
            raise ApiError(403, "forbidden", "requests of other sites are not answered")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != hosts[0].lower():
            raise ApiError(403, "forbidden", "requests of other sites are not answered")


class Guard:
    """Outermost layer: checks every request, puts the headers on every answer, and lets no error say anything.

    What an error of the server's own says could be about a visitor, so only its kind and place in the code are logged.

    Args:
        app: what is guarded.
        same_site: which requests are answered.
        requests: how often somebody may ask, by address.
        uncounted: methods and paths that count for themselves what they refuse: leaving must not be too often.
    """

    def __init__(
        self,
        app: ASGIApp,
        same_site: SameSite,
        requests: RateLimit,
        uncounted: Collection[tuple[str, str]] = (),
    ) -> None:
        self._app, self._same_site, self._requests, self._uncounted = app, same_site, requests, uncounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._same_site.check(scope)
            if (scope["method"], scope["path"]) not in self._uncounted:
                check_rate(self._requests, client_of(scope))
            await self._app(scope, receive, with_headers)
        except ApiError as error:
            if not started:
                await error_response(error)(scope, receive, with_headers)
        except Exception as error:
            log_failure("an answer", error)
            if not started:
                await error_response(INTERNAL)(scope, receive, with_headers)


INTERNAL: Final = ApiError(500, "internal", "something went wrong; begin again, or tell the staff")


def error_response(error: ApiError) -> JSONResponse:
    """Return the answer to a request that is refused."""
    response = JSONResponse(error.as_dict(), error.status)
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, round(error.retry_after + 0.5)))
    if error.status in {408, 413}:
        response.headers["Connection"] = "close"  # the rest of the request is not read
    return response


def check_rate(limit: RateLimit, key: str) -> None:
    """ApiError 429 if somebody asks too often."""
    wait = limit.take(key)
    if wait:
        raise ApiError(429, "too_many_requests", "that is too often; wait a moment", retry_after=wait)


def is_https(request: Request) -> bool:
    """Return whether the browser speaks TLS: to us, or to a proxy of this machine that says so (X-Forwarded-Proto)."""
    if request.url.scheme == "https":
        return True
    try:
        from_here = ipaddress.ip_address(request.client.host if request.client else "").is_loopback
    except ValueError:
        return False
    return from_here and request.headers.get("x-forwarded-proto", "").strip().lower() == "https"


def client_of(scope: Scope) -> str:
    """Return whom to count requests for: an IPv4 address, or the /64 network of an IPv6 one."""
    address = str((scope.get("client") or ("", 0))[0])
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 6 and not parsed.is_loopback:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return address


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None
