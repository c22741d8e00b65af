"""TLS with a CA of our own, by real processes; and who can reach us when nobody asked for a cluster."""

import contextlib
import datetime
import ipaddress
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from manifests.errors import InputError, RunError
from manifests.verify import verify
from pipeline import build as build_module
from pipeline import cluster
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.network import NetworkReference
from stylize.settings import TransferSettings
from tests.dask_processes import scheduler, worker
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine


def certificate(key, name, issuer, issuer_key, *, authority):
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def private(key):
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def authority(folder: Path) -> dict[str, Any]:
    """Write a CA's certificate, and a certificate with its key that the CA has signed; return the paths."""
    folder.mkdir()
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    files = {
        "tls_ca_file": certificate(ca_key, "test CA", "test CA", ca_key, authority=True),
        "tls_cert": certificate(key, "node", "test CA", ca_key, authority=False),
        "tls_key": private(key),
    }
    for name, content in files.items():
        (folder / f"{name}.pem").write_bytes(content)
    return {name: str(folder / f"{name}.pem") for name in files}


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    return authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def running(tmp_path_factory, ours):
    """A scheduler file of a TLS cluster with one worker."""
    folder = tmp_path_factory.mktemp("cluster")
    options = [part for name, path in ours.items() for part in (f"--{name.replace('_', '-')}", path)]
    with (
        scheduler(folder, "--protocol", "tls", *options) as file,
        worker(address_in(file), folder, *options),
    ):
        yield file


def address_in(file: Path) -> str:
    return str(json.loads(file.read_text())["address"])


@pytest.fixture
def make(tmp_path, monkeypatch):
    monkeypatch.setattr(build_module, "reference", lambda *arguments: NetworkReference("random", 0, "0" * 64, None))
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    inputs = write_faces(tmp_path / "celeba", 8), write_paintings(tmp_path / "wikiart", 6)
    config = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=4)

    def call(execution, engine=None):
        out = tmp_path / "OUT"
        build(out, *inputs, config, execution, weights="random", engine=engine or StubEngine(), quiet=True)
        return out

    return call


def test_a_build_over_tls(running, ours, make, monkeypatch):
    monkeypatch.setattr(cluster, "ATTACHED_WORKER_SECONDS", 60)  # the worker has just been started
    execution = ExecutionConfig(scheduler_file=str(running), **ours)
    address = cluster.scheduler_address(execution)
    assert address is not None
    assert address.startswith("tls://127.0.0.1:")
    assert verify(make(execution)).clean


def test_without_a_certificate(running, make):
    with pytest.raises(InputError, match="needs --tls-ca-file, --tls-cert and"):
        make(ExecutionConfig(scheduler_file=str(running)))


def test_a_certificate_of_another_authority(running, make, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    execution = ExecutionConfig(scheduler_file=str(running), **authority(tmp_path / "another"))
    with pytest.raises(RunError, match=r"no Dask scheduler answers at tls://.* and its TLS settings") as got:
        make(execution)
    assert "\n" not in str(got.value)
    assert not (tmp_path / "OUT").exists()


def test_a_file_that_is_no_certificate(running, ours, make, tmp_path):
    (tmp_path / "cert.pem").write_text("not a certificate")
    execution = ExecutionConfig(scheduler_file=str(running), **(ours | {"tls_cert": str(tmp_path / "cert.pem")}))
    with pytest.raises(InputError, match=r"the TLS files cannot be used .* as PEM"):
        make(execution)


def test_plain_tcp_at_a_tls_scheduler(running, make, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 2)
    address = cluster.scheduler_address(ExecutionConfig(scheduler_file=str(running)))
    assert address is not None
    with pytest.raises(RunError, match="no Dask scheduler answers at tcp://"):
        make(ExecutionConfig(scheduler=address.replace("tls://", "tcp://")))


class Waiting:
    """Says in a file that it works, and goes on when another is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, spec, faces, draw, on_attempt):
        (self._folder / "at-work").touch()
        deadline = time.monotonic() + 60
        while not (self._folder / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield from StubEngine()(spec, faces, draw, on_attempt)


def test_nothing_listens_beyond_loopback(make, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "visible_gpus", lambda: ())
    heard: list[tuple[int, str]] = []

    def look():
        deadline = time.monotonic() + 60
        while not (tmp_path / "at-work").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        heard.extend(listening(os.getpid()))
        (tmp_path / "go").touch()

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        make(ExecutionConfig(workers=1), Waiting(tmp_path))
    finally:
        watcher.join()
    assert len(heard) >= 3  # scheduler, worker and nanny at least, or this test has looked at nothing
    assert len({process for process, _ in heard}) >= 2
    beyond = [address for _, address in heard if not ipaddress.ip_address(address).is_loopback]
    assert not beyond


def test_the_test_sees_what_listens_everywhere():
    import socket  # noqa: PLC0415

    with socket.create_server(("0.0.0.0", 0)):
        assert (os.getpid(), "0.0.0.0") in listening(os.getpid())
    with contextlib.suppress(OSError), socket.create_server(("::", 0), family=socket.AF_INET6):
        assert (os.getpid(), "::") in listening(os.getpid())


def listening(root: int) -> list[tuple[int, str]]:
    """Return (process, address) of every TCP socket that a process or a descendant of it listens on."""
    addresses: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # LISTEN
                # The kernel prints words of 32 bits in this machine's order of bytes, which is little-endian.
                packed = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(packed[at : at + 4][::-1] for at in range(0, len(packed), 4))
                addresses[fields[9]] = str(ipaddress.ip_address(packed))
    found = []
    for process in family(root):
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    target = os.readlink(entry)
                    inode = target.removeprefix("socket:[").rstrip("]")
                    if target.startswith("socket:[") and inode in addresses:
                        found.append((process, addresses[inode]))
    return found


def family(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    members = {root}
    while new := {child for child, parent in parents.items() if parent in members} - members:
        members |= new
    return members
