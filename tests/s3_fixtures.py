"""Fixtures of the tests with an object store: a server, a bucket, and inputs in it."""

import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests import object_store, redaction, store_retry
from tests.s3_server import BUCKET, RETRIES, client_of, s3_server
from tests.small_inputs import write_faces, write_paintings


@pytest.fixture(scope="module")
def running():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def s3(running):
    with pytest.MonkeyPatch.context() as patch, client_of(running, patch) as client:
        patch.setattr(store_retry, "PAUSES", [0.001] * RETRIES)
        patch.setattr(object_store, "_STORES", {})
        patch.setattr(object_store, "SILENCE", 2.0)
        patch.setattr(redaction, "_remembered", set())
        client.mkdir(BUCKET)
        yield client


@pytest.fixture
def server(running, s3):
    running.forget()
    yield running
    running.forget()


@pytest.fixture
def folder(request, s3):
    """A folder of the bucket for this test alone, as a URL."""
    return f"s3://{BUCKET}/{request.node.name}"  # brackets and all


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory, s3):
    """Faces and paintings in every layout, here and in the bucket: the folder here, the URL there."""
    here = tmp_path_factory.mktemp("inputs")
    celeba = write_faces(here / "celeba", 8)
    paintings = write_paintings(here / "wikiart", 9)
    (here / "zipped").mkdir()
    for name in ("list_attr_celeba.txt", "identity_CelebA.txt", "list_eval_partition.txt"):
        (here / "zipped" / name).write_bytes((celeba / name).read_bytes())
    pack(here / "zipped/img_align_celeba.zip", celeba / "img_align_celeba")
    pack(here / "wikiart.zip", paintings)
    to_parquet(here / "copy/data/train-0.parquet", sorted((celeba / "img_align_celeba").iterdir()))
    to_parquet(here / "art/a.parquet", sorted(paintings.rglob("*.png")))
    (here / "wikiart.csv").write_text("file,artist\n" + "Style_0/artist-0_title-000.png,Somebody\n")
    there = f"{BUCKET}/inputs"
    s3.put(f"{here}/", f"{there}/", recursive=True)
    s3.pipe_file(f"{there}/wikiart/", b"")  # the marker that consoles make of a folder
    return here, f"s3://{there}"


def pack(path, folder):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder.parent).as_posix())


def to_parquet(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({"image": pa.array(images, kind)}), path, row_group_size=5)
