"""An S3 server on this machine (moto's), with faults on request, and what a client needs to find it."""

import contextlib
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import fsspec
import pytest
from fsspec.config import conf

BUCKET = "stylize-tests"
RETRIES = 3

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TOKEN = "FwoGZXIvYXdzEJr//a-session-token-that-nobody-may-see=="
SECRETS = (SECRET, TOKEN, KEY_ID)

Start = Callable[..., Any]


@dataclass
class Fault:
    """What happens instead of an answer to the next ``times`` requests that match.

    ``action`` is an HTTP status with the S3 error code ``code``, or "drop" (the connection is cut before an answer),
    "truncate" (half of the body, then the connection is cut) or "stall" (nothing comes until the test is over).
    """

    action: int | str
    times: float = 1
    method: str = ""
    path: str = ""
    code: str = "InternalError"
    happened: int = 0

    def matches(self, method: str, path: str) -> bool:
        return self.happened < self.times and self.method in ("", method) and self.path in path


@dataclass
class S3Server:
    """A running server; ``requests`` are (method, path, query) and bytes sent, in order of their ends."""

    url: str = ""
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self, action: int | str, **options: Any) -> Fault:
        self.faults.append(Fault(action, **options))
        return self.faults[-1]

    def count(self, method: str, path: str = "", query: str = "") -> int:
        return sum(m == method and path in p and query in q for m, p, q in self.requests)

    def forget(self) -> None:
        self.faults.clear()
        self.requests.clear()
        self.sent = 0

    def wrap(self, application: Any) -> Any:
        def answer(environ: dict[str, Any], start_response: Start) -> Any:
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            with self._lock:
                self.requests.append((method, path, environ["QUERY_STRING"]))
                fault = next((fault for fault in self.faults if fault.matches(method, path)), None)
                if fault is not None:
                    fault.happened += 1
            if fault is None:
                return self._counted(application(environ, start_response))
            if isinstance(fault.action, int):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                body = (
                    b""
                    if method == "HEAD"
                    else f"<Error><Code>{fault.code}</Code><Message>As the test asked.</Message></Error>".encode()
                )
                headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
                start_response(f"{fault.action} Fault", headers)
                return [body]
            if fault.action == "truncate":
                body = b"".join(application(environ, start_response))
                return self._broken(environ, body[: len(body) // 2])
            if fault.action == "stall":
                self.over.wait(60)
            return self._broken(environ, b"")

        return answer

    def _counted(self, body: Any) -> Iterator[bytes]:
        for part in body:
            self.sent += len(part)
            yield part

    @staticmethod
    def _broken(environ: dict[str, Any], body: bytes) -> Iterator[bytes]:
        if body:
            yield body
        with contextlib.suppress(OSError):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run a server on a free port of this machine until the end."""
    pytest.importorskip("s3fs")
    pytest.importorskip("flask")
    werkzeug_app = pytest.importorskip("moto.moto_server.werkzeug_app")
    serving = pytest.importorskip("werkzeug.serving")

    class Quiet(serving.WSGIRequestHandler):  # type: ignore[misc, name-defined]
        def log(self, *_: object) -> None:
            pass

    server = S3Server()
    application = server.wrap(werkzeug_app.DomainDispatcherApplication(werkzeug_app.create_backend_app))
    running = serving.make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    server.url = f"http://127.0.0.1:{running.port}"
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    # What moto keeps is the process's, and an earlier file of tests may have left its bucket there.
    urllib.request.urlopen(f"{server.url}/moto-api/reset", data=b"").close()
    try:
        yield server
    finally:
        server.over.set()
        running.shutdown()
        thread.join()
        running.server_close()


@contextmanager
def client_of(server: S3Server, patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Point fsspec's S3 client of this process, and of those it starts, at the server; yields a plain s3fs."""
    patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_SESSION_TOKEN", TOKEN)
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_ENDPOINT_URL", server.url)
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    patch.setenv("NO_PROXY", "127.0.0.1")
    patch.setitem(conf, "s3", {"config_kwargs": {"read_timeout": 1, "retries": {"total_max_attempts": 1}}})
    kind = pytest.importorskip("s3fs").S3FileSystem
    patch.setattr(kind, "retries", 1)  # what is tested is our own rule
    kind.clear_instance_cache()  # an earlier file of tests had a server of its own, on another port
    yield fsspec.filesystem("s3", use_listings_cache=False)


def presigned(server: S3Server, bucket: str, key: str) -> str:
    """Return an address of one object that carries its own credentials, as a browser would be given it."""
    client = pytest.importorskip("botocore.session").get_session().create_client("s3", endpoint_url=server.url)
    address: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=3600)
    return address
