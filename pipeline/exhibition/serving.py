"""A server of the exhibition: over a socket that is bound before anything is loaded, saying nothing about requests."""

import contextlib
import ipaddress
import socket
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from manifests.errors import InputError, RunError

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette

_CONNECTIONS: Final = 512
_START_SECONDS: Final = 60


def require_server() -> None:
    """Refuse to go on without the packages of the extra `exhibit`; InputError names it."""
    try:
        import starlette  # noqa: F401, PLC0415
        import uvicorn  # noqa: F401, PLC0415
    except ImportError:
        raise InputError("the exhibition needs the extra exhibit: pip install 'stylize[exhibit]'") from None


def bound_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; InputError where the address is taken or not of this machine.

    Args:
        host: name or address.
        port: 0 takes any that is free.
    """
    if not 0 <= port <= 65_535:
        raise InputError(f"a port is a number from 0 to 65535, not {port}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, ValueError) as error:  # a label of more than 63 letters is a UnicodeError
        reason = error.strerror or str(error) if isinstance(error, OSError) else "it is no name and no address"
        raise InputError(f"{host}:{port} cannot be served ({reason}); choose another with --host and --port") from None


def is_unspecified(host: str) -> bool:
    """Return whether a host stands for all addresses of this machine; no browser can call it by that."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return not host


def address_of(bound: socket.socket, host: str) -> str:
    """Return the URL under which a browser of this machine reaches a socket."""
    if is_unspecified(host):
        host = "::1" if ":" in host else "127.0.0.1"
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{bound.getsockname()[1]}/"


def server(app: "Starlette", **options: Any) -> "uvicorn.Server":
    """Return uvicorn for an application: no access log, no proxy headers, no web sockets.

    Args:
        app: the application.
        options: of `uvicorn.Config` besides.
    """
    import uvicorn  # noqa: PLC0415

    from pipeline.exhibition.connection import Connection  # noqa: PLC0415

    return uvicorn.Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_config=None,
            log_level="warning",
            proxy_headers=False,
            server_header=False,
            ws="none",
            http=Connection,
            lifespan="on",
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=15,
            timeout_graceful_shutdown=5,
            **options,
        )
    )


@contextlib.contextmanager
def serving(app: "Starlette", host: str = "127.0.0.1") -> Iterator[str]:
    """Serve an application from a thread, on a free port, while the context lasts; gives its URL, ending in "/"."""
    bound = bound_socket(host, 0)
    running = server(app)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, name="exhibition", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _START_SECONDS
        while not running.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise RunError("the exhibition's server did not start")
            time.sleep(0.01)
        yield address_of(bound, host)
    finally:
        running.should_exit = True
        thread.join(_START_SECONDS)
        bound.close()
