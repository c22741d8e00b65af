"""Runs in an object store, and credentials: an S3 server in this process, healthy and not."""

import logging
import pickle
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from distributed import LocalCluster

from manifests.errors import InputError, RunError
from manifests.faces import read_faces
from manifests.loader import ProxyDataset
from manifests.paintings import read_paintings
from manifests.remote_path import RemotePath
from manifests.run import RunDirectory
from manifests.shard import write_shard
from manifests.status import read_status
from manifests.verify import verify
from pipeline import build as build_module
from pipeline import run_inputs
from pipeline.build import build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.network import NetworkReference
from pipeline.plan import make_plan
from pipeline.run_document import input_paths, run_document
from stylize.settings import TransferSettings
from tests.s3_server import BUCKET, SECRETS, presigned
from tests.small_run import row, run_content
from tests.stub_engine import StubEngine

pytest_plugins = ["tests.s3_fixtures"]

# ── runs ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_commit_is_one_put_each_data_first_and_nothing_else_is_written(server, s3, folder):
    run = RunDirectory.create(folder, run_content({"train": 3}, 4))
    (name,) = run.planned()
    server.forget()
    write_shard(run, name, [row(number) for number in range(3)])
    puts = [path.split("/")[-2] for method, path, _ in server.requests if method in ("PUT", "POST")]
    assert puts == ["data", "manifest"]
    assert run.committed() == {name}
    assert run.finish()
    assert sorted(path.removeprefix(folder[5:]) for path in s3.find(folder)) == [
        f"/{name.data_file}",
        f"/{name.manifest_file}",
        "/run.json",
    ]


def test_of_many_creators_one_wins(server, folder):
    with ThreadPoolExecutor(6) as pool:
        contents = [run_content({"train": 3}, 4) | {"fingerprint": str(number)} for number in range(6)]
        runs = list(pool.map(lambda content: RunDirectory.create(folder, content), contents))
    assert len({run.content["fingerprint"] for run in runs}) == 1


def test_a_failed_put_leaves_the_old_file_and_no_half_shard(server, s3, folder):
    run = RunDirectory.create(folder, run_content({"train": 3}, 4))
    (name,) = run.planned()
    server.fault(500, method="PUT", path="/manifest/", times=1000)
    with pytest.raises(OSError, match="tried 4 times"):
        write_shard(run, name, [row(number) for number in range(3)])
    assert run.committed() == set()
    server.forget()
    write_shard(run, name, [row(number) for number in range(3)])
    assert run.committed() == {name}


def test_an_unreachable_run_is_one_sentence(server, folder):
    run = RunDirectory.create(folder, run_content({"train": 3}, 4))
    with pytest.raises(RunError, match=r"cannot write to s3://no-such-bucket/x: .*bucket does not exist"):
        RunDirectory.create("s3://no-such-bucket/x", run_content({"train": 3}, 4))
    server.fault(503, code="SlowDown", times=1000)
    with pytest.raises(RunError, match=r"cannot list .*tried 4 times"):
        run.committed()
    with pytest.raises(RunError, match="tried 4 times"):
        RunDirectory.open(folder)


@pytest.fixture(scope="module")
def scheduler():
    with LocalCluster(
        processes=False, protocol="tcp", n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=100
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def make(monkeypatch, scheduler):
    def reference(source, seed, convention, recorded):
        return NetworkReference(source, seed, "0" * 64, None)

    monkeypatch.setattr(build_module, "reference", reference)

    def call(out, faces, paintings, *, engine=None, execution=None, notify=lambda sentence: None, **options):
        settings = BuildConfig(transfer=TransferSettings(convention="raw"), shard_size=4)
        return build(
            out,
            faces,
            paintings,
            settings,
            execution or ExecutionConfig(scheduler=scheduler),
            weights="random",
            quiet=True,
            engine=engine or StubEngine(),
            notify=notify,
            **options,
        )

    return call


def rows_of(url):
    run = RunDirectory.open(url)
    return [row for name in run.planned() for row in run.parquet(name.manifest_file).read().to_pylist()]


@pytest.fixture
def calm(uploaded, make):
    """The same run on this machine's disk, made once."""
    out = uploaded[0] / "OUT"
    if not out.exists():
        make(out, uploaded[0] / "celeba", uploaded[0] / "wikiart")
    return out


def test_a_run_in_the_store_is_the_run_on_disk(s3, uploaded, folder, make, calm):
    there = uploaded[1]
    csv = f"{there}/wikiart.csv"
    make(folder, f"{there}/celeba", f"{there}/wikiart")
    assert rows_of(folder) == rows_of(calm)
    assert verify(folder).clean
    assert read_status(folder).complete
    here, remote = ProxyDataset(calm), ProxyDataset(folder)
    assert len(remote) == len(here) > 0
    assert all(remote[at]["image"].equal(here[at]["image"]) for at in range(len(here)))
    assert not [path for path in s3.find(folder) if "/journal/" in path]
    paths = RunDirectory.open(folder).content["paths"]
    assert (paths["faces"], paths["paintings"]) == (f"{there}/celeba", f"{there}/wikiart")
    assert make(folder, f"{there}/celeba", f"{there}/wikiart").shards_skipped == 3
    with pytest.raises(InputError, match="with other settings"):
        make(folder, f"{there}/celeba", f"{there}/wikiart", paintings_csv=csv)


def test_inputs_of_a_run_are_found_again(server, uploaded, folder):
    there = uploaded[1]
    faces, paintings = f"{there}/zipped/img_align_celeba.zip", f"{there}/art"
    plan = make_plan(read_faces(faces), read_paintings(paintings), BuildConfig())
    network = NetworkReference("random", 0, "0" * 64, None)
    run = RunDirectory.create(folder, run_document(plan, network, input_paths(faces=faces, paintings=paintings)))
    assert run_inputs.open_inputs(run, None, None).paintings.table.num_rows == 9
    assert run_inputs.open_faces(run, f"{there}/zipped").table.num_rows == 8
    with pytest.raises(InputError, match=r"are not at s3://.*nowhere; say where they are with --faces"):
        run_inputs.open_faces(run, f"{there}/nowhere")
    with pytest.raises(InputError, match="the CSV of the paintings is not at"):
        run_inputs.open_inputs(run, None, None, f"{there}/no.csv")


def test_a_build_through_a_bad_day_gives_the_same_run(server, uploaded, folder, make, calm):
    there = uploaded[1]
    for action, code in [(500, "InternalError"), (503, "SlowDown"), ("drop", ""), ("truncate", "")]:
        for method in ("GET", "PUT", "HEAD"):
            server.fault(action, code=code, method=method)
    make(folder, f"{there}/celeba", f"{there}/wikiart")
    assert [fault.happened for fault in server.faults] == [1] * 12
    assert rows_of(folder) == rows_of(calm)
    assert verify(folder).clean


@dataclass(frozen=True)
class LosingEngine(StubEngine):
    """Loses the store when it begins the second shard: what is lost is set in this process, where its workers are."""

    def __call__(self, spec, faces, draw, on_attempt):
        if spec.name.split == "valid":
            LOSE[0]()
        return super().__call__(spec, faces, draw, on_attempt)


LOSE = {0: lambda: None}


@pytest.mark.parametrize("lost", [("PUT", "/manifest/"), ("GET", "/inputs/")], ids=["OUT", "inputs"])
def test_a_store_lost_in_mid_run_stops_the_build_which_resumes(  # noqa: PLR0917
    monkeypatch, server, uploaded, folder, make, calm, lost
):
    method, path = lost
    there = uploaded[1]
    make_there = (folder, f"{there}/celeba", f"{there}/wikiart")
    monkeypatch.setitem(LOSE, 0, lambda: server.fault(500, times=10_000, method=method, path=path))
    with pytest.raises(RunError, match=r"tried 4 times.*of 3 shards.*run the same command again to resume"):
        make(*make_there, engine=LosingEngine())
    server.forget()
    summary = make(*make_there)
    assert summary.status.complete
    assert rows_of(folder) == rows_of(calm)
    assert verify(folder).clean


def test_one_unreadable_face_is_a_row(server, uploaded, folder, make):
    there = uploaded[1]
    server.fault(403, code="AccessDenied", method="GET", path="000003.jpg", times=1000)
    make(folder, f"{there}/celeba", f"{there}/wikiart")
    rows = rows_of(folder)
    assert [row["image_id"] for row in rows if row["status"] == "failed"] == ["000003.jpg"]
    assert "access refused" in next(row["error"] for row in rows if row["status"] == "failed")


# ── credentials ─────────────────────────────────────────────────────────────────────────────────────────────────────


def leaks(text):
    signature = [part for part in ("Signature=", "x-amz-security-token=", "X-Amz-Credential=") if part in text]
    return [secret for secret in (*SECRETS, "hunter2-hunter2") if secret in text] + signature


def everything_in(s3, folder):
    return "\n".join(s3.cat_file(path).decode("latin-1") for path in s3.find(folder))


def test_presigned_inputs_work_and_leave_no_trace(  # noqa: PLR0917
    server, s3, caplog, capfd, uploaded, folder, make
):
    caplog.set_level(logging.INFO)
    prefix = uploaded[1].removeprefix(f"s3://{BUCKET}/")
    faces = presigned(server, BUCKET, f"{prefix}/copy/data/train-0.parquet")
    paintings = presigned(server, BUCKET, f"{prefix}/wikiart.zip")
    assert leaks(faces)
    assert leaks(paintings)
    told: list[str] = []
    make(folder, faces, paintings, notify=told.append)
    assert verify(folder).clean
    output = capfd.readouterr()
    assert not leaks(everything_in(s3, folder) + caplog.text + output.out + output.err + "\n".join(told))
    paths = RunDirectory.open(folder).content["paths"]
    assert (paths["faces"], paths["paintings"]) == (faces.partition("?")[0], paintings.partition("?")[0])

    catalogues = read_faces(faces), read_paintings(paintings)
    for source in (catalogue.source for catalogue in catalogues):
        assert source == pickle.loads(pickle.dumps(source))
    plan = make_plan(*catalogues, BuildConfig(shard_size=4))
    spec = plan.spec(next(iter(plan.shards)), NetworkReference("random", 0, "0" * 64, None), folder)
    assert not leaks(repr(spec) + repr(catalogues) + str(RemotePath(faces)))  # what Dask logs of a failed task


def failures(server, faces, paintings, out):
    """Every way in which an address with credentials may end in an exception; yields the exceptions."""

    def attempt(call, *arguments):
        try:
            call(*arguments)
        except (InputError, RunError, OSError) as error:
            yield error

    source = read_paintings(paintings).source
    for fault in (None, (403, "AccessDenied"), (404, "NoSuchKey"), (500, "InternalError"), ("drop", "")):
        server.forget()
        if fault:
            server.fault(fault[0], code=fault[1], times=1000)
        yield from attempt(read_faces, faces)
        yield from attempt(read_paintings, paintings)
        yield from attempt(read_faces, faces.replace(".parquet", ".txt"))
        yield from attempt(read_paintings, f"s3://{SECRETS[2]}:{SECRETS[0]}@{BUCKET}/nowhere")
        yield from attempt(read_paintings, f"ftp://me:hunter2-hunter2@127.0.0.1:1/{BUCKET}/nowhere")
        yield from attempt(source.read, "nothing.png")
        yield from attempt(source.read, "wikiart/Style_0/artist-0_title-000.png")
        yield from attempt(
            RunDirectory.create, f"s3://{SECRETS[2]}:{SECRETS[0]}@{BUCKET}/out", run_content({"train": 1}, 1)
        )
        yield from attempt(RunDirectory.open, faces)
        yield from attempt(RunDirectory.open, f"nonsense://me:hunter2-hunter2@{BUCKET}/out")
        yield from attempt(verify, out)


def test_no_error_tells_credentials(server, uploaded):
    prefix = uploaded[1].removeprefix(f"s3://{BUCKET}/")
    faces = presigned(server, BUCKET, f"{prefix}/copy/data/train-0.parquet")
    paintings = presigned(server, BUCKET, f"{prefix}/wikiart.zip")
    seen = list(failures(server, faces, paintings, f"s3://{BUCKET}/nowhere"))
    assert len(seen) > 30
    for error in seen:
        assert not leaks("".join(traceback.format_exception(error))), str(error)


def test_a_run_is_not_addressed_with_credentials(server, uploaded):
    with pytest.raises(InputError, match=rf"address of s3://{BUCKET}/x carries credentials; leave them to the env"):
        RunDirectory.find(f"s3://{SECRETS[2]}:{SECRETS[0]}@{BUCKET}/x")


def test_key_and_secret_in_front_of_a_bucket(server, monkeypatch, uploaded):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    place = uploaded[1].removeprefix("s3://") + "/wikiart"
    paintings = read_paintings(f"s3://{SECRETS[2]}:{SECRETS[0].replace('/', '%2F')}@{place}")
    assert paintings.table.num_rows == 9
    assert paintings.source.read("Style_0/artist-0_title-000.png")
    assert paintings.source.root == f"s3://{place}"


ELSEWHERE = """
import pickle, sys
source, url, row = pickle.load(sys.stdin.buffer)
from manifests.run import RunDirectory
from manifests.shard import write_shard
assert len(source.read("Style_0/artist-0_title-000.png")) > 50
run = RunDirectory.open(url)
(name,) = run.planned()
write_shard(run, name, [row])
print(source, run.committed(), "fine")
source.read("nothing.png")
"""


def test_other_processes_open_the_store_by_themselves(server, s3, uploaded, folder):
    RunDirectory.create(folder, run_content({"train": 1}, 4))
    sent = pickle.dumps((read_paintings(f"{uploaded[1]}/wikiart").source, folder, row(0)))
    done = subprocess.run([sys.executable, "-c", ELSEWHERE], input=sent, capture_output=True, check=False)
    output = (done.stdout + done.stderr).decode()
    assert "fine" in output
    assert "nothing.png' has vanished from s3://" in output
    assert not leaks(output + everything_in(s3, folder))
    assert len(RunDirectory.open(folder).committed()) == 1
