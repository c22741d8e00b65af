"""Faces and paintings in an object store: an S3 server in this process, healthy and not."""

import io
import multiprocessing
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests import object_store, store_retry
from manifests.errors import InputError, RunError
from manifests.faces import read_faces
from manifests.image_source import ImageSource
from manifests.object_store import open_store
from manifests.paintings import read_paintings
from manifests.remote_file import RemoteFile
from manifests.remote_path import RemotePath, is_url, lies_within
from manifests.run import RunDirectory
from tests.s3_server import BUCKET, RETRIES

pytest_plugins = ["tests.s3_fixtures"]

FACES = [
    "celeba",
    "celeba/img_align_celeba",
    "zipped",
    "zipped/img_align_celeba.zip",
    "copy",
    "copy/data/train-0.parquet",
]
PAINTINGS = ["wikiart", "wikiart.zip", "art", "art/a.parquet"]


def images_of(catalogue):
    return [catalogue.source.read(locator) for locator in catalogue.table["locator"].to_pylist()]


@pytest.mark.parametrize("layout", FACES)
def test_faces_are_the_same_there_as_here(uploaded, layout):
    here, there = (read_faces(f"{root}/{layout}") for root in uploaded)
    assert there.table.equals(here.table)
    assert (there.digest, there.layout) == (here.digest, here.layout)
    assert images_of(there) == images_of(here)
    assert there.source.root.startswith(f"{uploaded[1]}/{layout.split('/', maxsplit=1)[0]}")


@pytest.mark.parametrize("layout", PAINTINGS)
def test_paintings_are_the_same_there_as_here(uploaded, layout):
    here, there = (read_paintings(f"{root}/{layout}") for root in uploaded)
    assert there.table.equals(here.table)
    assert (there.digest, there.layout, there.problems) == (here.digest, here.layout, here.problems)
    assert images_of(there) == images_of(here)


def test_labels_of_paintings_come_from_the_store_too(uploaded):
    here, there = (read_paintings(f"{root}/wikiart", csv=f"{root}/wikiart.csv") for root in uploaded)
    assert there.table.equals(here.table)
    assert "Somebody" in there.table["artist"].to_pylist()


def test_a_plain_folder_of_faces(uploaded):
    here, there = (read_faces(f"{root}/wikiart/Style_0") for root in uploaded)
    assert (there.table, there.digest, there.layout) == (here.table, here.digest, "folder")


def test_a_catalogue_is_listed_once_and_images_are_not_touched(server, uploaded):
    read_paintings(f"{uploaded[1]}/wikiart")
    lists = [query for method, path, query in server.requests if method == "GET" and "list-type" in query]
    assert len([query for query in lists if "delimiter=%2F" not in query]) == 1
    assert server.count("GET", ".png") == server.count("HEAD", ".png") == 0
    assert len(server.requests) <= 6


def test_one_image_is_one_request(server, uploaded):
    source = ImageSource("folder", f"{uploaded[1]}/wikiart")
    server.forget()
    source.read("Style_0/artist-0_title-000.png")
    assert [(method, path.rpartition("/")[2]) for method, path, _ in server.requests] == [
        ("GET", "artist-0_title-000.png")
    ]


@pytest.fixture(scope="module")
def large(s3):
    """An archive and a Parquet file of 40 images of 64 KB; their names, contents and locators."""
    contents = [np.random.default_rng(number).bytes(1 << 16) for number in range(40)]
    packed, table = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, content in enumerate(contents):
            archive.writestr(f"{number}.jpg", content)
    images = pa.array([{"bytes": content} for content in contents], pa.struct([("bytes", pa.binary())]))
    ballast = pa.array([content * 2 for content in contents])
    pq.write_table(pa.table({"image": images, "other": ballast}), table, row_group_size=2, compression="none")
    s3.pipe_file(f"{BUCKET}/large/a.zip", packed.getvalue())
    s3.pipe_file(f"{BUCKET}/large/p/a.parquet", table.getvalue())
    packed_source = ImageSource("zip", f"s3://{BUCKET}/large/a.zip")
    parquet = ImageSource("parquet", f"s3://{BUCKET}/large/p")
    return {
        "zip": (packed_source, [f"{number}.jpg" for number in range(40)], contents),
        "parquet": (parquet, [f"a.parquet#{number // 2}#{number % 2}" for number in range(40)], contents),
    }


@pytest.mark.parametrize(("kind", "images"), [("zip", 1), ("parquet", 4)])
def test_one_image_of_an_archive_costs_its_own_bytes(server, large, kind, images):
    source, locators, contents = large[kind]
    assert source.read(locators[0]) == contents[0]  # opens it
    server.forget()
    assert source.read(locators[30]) == contents[30]
    assert server.sent < images * (1 << 16) + 30_000
    if kind == "zip":
        assert len(server.requests) == 1


@pytest.mark.parametrize("kind", ["zip", "parquet"])
def test_threads_pickled_copies_and_forked_children_read_the_same(large, kind):
    source, locators, contents = large[kind][0], large[kind][1][::4], large[kind][2][::4]
    copy = pickle.loads(pickle.dumps(source))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(copy.read, locators)) == contents
    with multiprocessing.get_context("fork").Pool(2) as forked:
        assert forked.map_async(source.read, locators[::3]).get(60) == contents[::3]


def test_objects_whose_names_lead_out_are_left_out_and_refused(server, s3, folder):
    for name in ("a.jpg", "../b.jpg", "c/../../d.jpg", ".hidden/e.jpg", "f.txt"):
        s3.pipe_file(f"{folder}/{name}", b"x")
    faces = read_faces(folder)
    assert faces.table["image_id"].to_pylist() == ["a.jpg"]
    assert any("2 images have names that lead out of" in problem for problem in faces.problems)
    for locator in ("../b.jpg", "/b.jpg", ""):
        with pytest.raises(InputError, match="leaves its root"):
            faces.source.read(locator)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (f"s3://{BUCKET}/nowhere", "does not exist"),
        ("s3://no-such-bucket/x", "does not exist"),
        (f"s3://{BUCKET}/large/p/a.parquet.txt", "does not exist"),
        ("nonsense://x/y", "cannot be opened.*nonsense"),
    ],
)
def test_places_where_nothing_is(server, large, url, sentence):
    for read in (read_faces, read_paintings):
        with pytest.raises(InputError, match=sentence):
            read(url)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(object_store, "_STORES", {})

    def absent(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(object_store, "url_to_fs", absent)
    with pytest.raises(InputError, match="Install s3fs"):
        read_faces("s3://bucket/x")
    with pytest.raises(InputError, match="Install s3fs"):
        RunDirectory.find("s3://bucket/x")


# ── faults ──────────────────────────────────────────────────────────────────────────────────────────────────────────

PASSING = [(500, "InternalError"), (503, "SlowDown"), ("drop", ""), ("truncate", ""), ("stall", "")]


@pytest.mark.parametrize(("action", "code"), PASSING)
def test_what_passes_is_outwaited(server, large, folder, action, code):
    source, locators, contents = large["zip"]
    store, path = open_store(folder)
    fault = server.fault(action, code=code)
    assert source.read(locators[3]) == contents[3]
    assert fault.happened == 1
    fault = server.fault(action, code=code, method="PUT")
    store.pipe_file(f"{path}/x", b"content")
    assert fault.happened == 1
    fault = server.fault(action, code=code)
    assert store.ls(path, detail=False) == [f"{path}/x"]
    assert fault.happened == 1
    assert store.cat_file(f"{path}/x") == b"content"


@pytest.mark.parametrize("kind", ["folder", "zip", "parquet"])
def test_a_store_that_stays_away_is_named_after_a_few_tries(server, uploaded, kind):
    place = {"folder": "wikiart", "zip": "wikiart.zip", "parquet": "art"}[kind]
    paintings = read_paintings(f"{uploaded[1]}/{place}")
    images_of(paintings)
    fault = server.fault(500, times=1000)
    with pytest.raises(OSError, match=f"; tried {RETRIES + 1} times") as caught:
        paintings.source.read(paintings.table["locator"][0].as_py())
    assert caught.value.errno == 5  # EIO: the machine's, so that no image is blamed
    assert fault.happened == RETRIES + 1
    with pytest.raises(RunError, match=f"{place}.* cannot be read: .*tried 4 times"):
        read_paintings(f"{uploaded[1]}/{place}")
    assert "tried 4 times" in (paintings.source.unreachable() or "")
    server.forget()
    assert paintings.source.unreachable() is None


def test_patience_has_an_end(server, monkeypatch, large):
    monkeypatch.setattr(store_retry, "PATIENCE", -1.0)
    server.fault(500, times=1000)
    with pytest.raises(OSError, match="tried once"):
        open_store(f"s3://{BUCKET}/x")[0].cat_file(f"{BUCKET}/x")


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "ExpiredToken"), (400, "InvalidToken")])
def test_one_refused_object_is_an_image_and_a_refused_store_is_not(server, uploaded, status, code):
    paintings = read_paintings(f"{uploaded[1]}/wikiart")
    first, second = paintings.table["locator"].to_pylist()[:2]
    server.fault(status, code=code, times=1000, path=first)
    with pytest.raises(OSError, match="As the test asked") as caught:
        paintings.source.read(first)
    assert caught.value.errno in (13, 22)
    paintings.source.read(second)
    server.fault(status, code=code, times=1000)
    with pytest.raises(OSError, match=r"wikiart cannot be read: .*(Forbidden|Bad Request)") as caught:
        paintings.source.read(second)
    assert caught.value.errno == 5
    assert not any(method == "PUT" for method, _, _ in server.requests)


def test_refusals_are_not_tried_again(server, uploaded):
    fault = server.fault(403, code="AccessDenied", times=1000)
    with pytest.raises(InputError, match=r"access refused.*check the credentials"):
        read_faces(f"{uploaded[1]}/celeba")
    assert fault.happened == 1


@pytest.mark.parametrize("kind", ["folder", "zip", "parquet"])
def test_what_has_vanished_says_so(server, s3, uploaded, folder, kind):
    place = {"folder": "wikiart", "zip": "wikiart.zip", "parquet": "art"}[kind]
    s3.put(f"{uploaded[0]}/{place}", f"{folder}/{place}", recursive=True)
    paintings = read_paintings(f"{folder}/{place}")
    store, path = open_store(folder)
    store.rm(path, recursive=True)  # which has brackets in its name
    assert not store.exists(path)
    with pytest.raises(FileNotFoundError, match="has vanished"):
        paintings.source.read(paintings.table["locator"][0].as_py())
    assert "nothing at" in (paintings.source.unreachable() or "")


def test_damage_is_told_as_damage(server, s3, uploaded, folder):
    content = (uploaded[0] / "wikiart.zip").read_bytes()
    s3.pipe_file(f"{folder}/a.zip", content[:60] + b"\xff" * 40 + content[100:])
    s3.pipe_file(f"{folder}/b.zip", content[:-30])
    paintings = read_paintings(f"{folder}/a.zip")
    with pytest.raises(InputError, match=r"a\.zip is damaged"):
        images_of(paintings)
    with pytest.raises(InputError, match=r"b\.zip is not a readable zip archive"):
        read_paintings(f"{folder}/b.zip")
    s3.pipe_file(f"{folder}/c.parquet", b"PAR1 but no footer PAR1")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_paintings(f"{folder}/c.parquet")


def test_a_server_that_ignores_ranges_is_refused():
    class Whole:
        def info(self, path):
            return {"type": "file", "size": 100}

        def cat_file(self, path, start=None, end=None):
            return b"x" * 100

    file = RemoteFile(Whole(), "x")
    file.seek(10)
    with pytest.raises(OSError, match="does not serve ranges"):
        file.read(5)


# ── places ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_is_a_url():
    assert all(is_url(text) for text in ("s3://b/x", "memory://x", "simplecache::s3://b/x", "file:///data"))
    assert not any(is_url(text) for text in ("data", "/data/a::b", "C:\\x", "c://x", "a b://x", Path("/data")))


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        ("s3://b/faces/OUT", "s3://b/faces", True),
        ("s3://b/faces/OUT", "s3://b", True),
        ("s3://b/faces-OUT", "s3://b/faces", False),
        ("s3://b/faces", "s3://b/faces/", False),
        ("s3://b/faces", "memory://b", False),
        ("/x/OUT", "s3://b/x", False),
        ("memory://a/b", "memory://a", True),
    ],
)
def test_lies_within(inner, outer, within):
    pytest.importorskip("s3fs")
    assert lies_within(inner, outer) == within


def test_lies_within_a_local_folder_whatever_it_is_called(tmp_path):
    assert lies_within(tmp_path / "x/OUT", f"file://{tmp_path}")
    assert not lies_within(tmp_path, tmp_path)


def test_local_urls_are_local_places(uploaded):
    here = uploaded[0]
    faces = read_faces(f"file://{here}/celeba")
    assert faces.source == read_faces(here / "celeba").source


def test_parts_of_addresses():
    path = RemotePath("https://host/a/b.zip?sig=12345678")
    assert (path.name, path.suffix, str(path)) == ("b.zip", ".zip", "https://host/a/b.zip")
    assert path.parent.url == "https://host/a?sig=12345678"
    assert (path.parent / "c").url == "https://host/a/c?sig=12345678"
    assert (RemotePath("zip://x::s3://b/a.zip") / "y").url == "zip://x/y::s3://b/a.zip"
    assert (RemotePath("simplecache::s3://b/a") / "y").url == "simplecache::s3://b/a/y"
    assert (RemotePath("s3://b/what?") / "y").url == "s3://b/what?/y"
    bucket = RemotePath("s3://b")
    assert bucket.parent == bucket
    assert RemotePath("s3://b/x/") == RemotePath("s3://b/x")


def test_memory_is_a_store_too():
    store, root = open_store("memory://object-store-test")
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    store.pipe_file(f"{root}/Style/artist_title.png", picture.getvalue())
    try:
        paintings = read_paintings("memory://object-store-test")
        assert paintings.table["artist"].to_pylist() == ["artist"]
        assert images_of(paintings) == [picture.getvalue()]
    finally:
        store.rm(root, recursive=True)


def test_a_relative_path_is_looked_up_where_the_process_is(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert object_store.open_store("OUT")[1] == str(tmp_path / name / "OUT")
