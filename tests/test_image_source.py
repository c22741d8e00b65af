"""Reading one image by its locator: from files, an archive and Parquet, safely, from threads and forked processes."""

import multiprocessing
import os
import pickle
import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests import parquet_images, zip_images
from manifests.errors import InputError
from manifests.image_source import ImageSource

COUNT = 150
ROW_GROUP = 40
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def content(number: int) -> bytes:
    return random.Random(number).randbytes(200 + number)


def folder_source(root: Path) -> tuple[ImageSource, list[str]]:
    (root / "sub").mkdir()
    locators = [f"sub/{number}.jpg" for number in range(COUNT)]
    for number, locator in enumerate(locators):
        (root / locator).write_bytes(content(number))
    return ImageSource("folder", str(root)), locators


def zip_source(root: Path) -> tuple[ImageSource, list[str]]:
    locators = [f"sub/{number}.jpg" for number in range(COUNT)]
    with zipfile.ZipFile(root / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number, locator in enumerate(locators):
            archive.writestr(locator, content(number))
    return ImageSource("zip", str(root / "a.zip")), locators


def parquet_source(root: Path) -> tuple[ImageSource, list[str]]:
    (root / "sub").mkdir()
    values = [{"bytes": content(number), "path": f"{number}.jpg"} for number in range(COUNT)]
    table = pa.table({"other": [b"x" * 1000] * COUNT, "image": pa.array(values, IMAGE)})
    pq.write_table(table, root / "sub/a#1.parquet", row_group_size=ROW_GROUP)
    return ImageSource("parquet", str(root)), [
        f"sub/a#1.parquet#{number // ROW_GROUP}#{number % ROW_GROUP}" for number in range(COUNT)
    ]


SOURCES = {"folder": folder_source, "zip": zip_source, "parquet": parquet_source}


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ImageSource, list[str]]:
    (tmp_path / "root").mkdir()
    return SOURCES[request.param](tmp_path / "root")


def check(source: ImageSource, locators: list[str], numbers: list[int]) -> bool:
    return all(source.read(locators[number]) == content(number) for number in numbers)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.lists(st.integers(0, COUNT - 1), max_size=30))
def test_images_come_back_in_any_order(source: tuple[ImageSource, list[str]], numbers: list[int]) -> None:
    assert check(*source, numbers)


def test_threads_and_pickled_copies_read_the_same(source: tuple[ImageSource, list[str]]) -> None:
    copy = pickle.loads(pickle.dumps(source[0]))
    assert copy == source[0]
    orders = [random.Random(seed).sample(range(COUNT), COUNT) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(lambda order: check(copy, source[1], order), orders))


def test_a_forked_child_reads_while_the_parent_holds_the_handles(source: tuple[ImageSource, list[str]]) -> None:
    assert check(*source, [0, 1, COUNT - 1])
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        answers = pool.starmap_async(check, [(*source, list(range(seed, COUNT, 7))) for seed in range(4)])
        assert check(*source, list(range(0, COUNT, 5)))
        assert all(answers.get(timeout=60))


BAD = ["../secret.jpg", "sub/../../secret.jpg", "/etc/hostname", "", ".", "a\0.jpg", "..", "sub/.."]


@pytest.mark.parametrize("locator", BAD)
def test_a_locator_never_leaves_its_root(source: tuple[ImageSource, list[str]], tmp_path: Path, locator: str) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    if source[0].kind == "parquet":
        pq.write_table(pa.table({"image": [b"secret"]}), tmp_path / "secret.jpg")
        locator += "#0#0"
    with pytest.raises(InputError):
        source[0].read(locator)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.sampled_from(["..", ".", "", "sub", "secret.jpg", "0.jpg", "~", "link"]), max_size=6))
def test_no_spelling_reads_a_file_outside(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    top = tmp_path_factory.getbasetemp() / "spelling"
    if not top.exists():
        (top / "root/sub").mkdir(parents=True)
        (top / "secret.jpg").write_bytes(b"secret")
        (top / "root/sub/0.jpg").write_bytes(b"fine")
        (top / "root/link").symlink_to(top)
    try:
        data = ImageSource("folder", str(top / "root")).read("/".join(parts))
    except (InputError, OSError):
        return
    assert data == b"fine"


def test_a_link_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root-2").mkdir()
    (tmp_path / "root-2/x.jpg").write_bytes(b"secret")
    (tmp_path / "root/x.jpg").symlink_to("../root-2/x.jpg")
    pq.write_table(pa.table({"image": [b"secret"]}), tmp_path / "root-2/x.parquet")
    (tmp_path / "root/x.parquet").symlink_to("../root-2/x.parquet")
    with pytest.raises(InputError, match="leads out of"):
        ImageSource("folder", str(tmp_path / "root")).read("x.jpg")
    with pytest.raises(InputError, match="leads out of"):
        ImageSource("parquet", str(tmp_path / "root")).read("x.parquet#0#0")


def test_a_vanished_image_says_so(source: tuple[ImageSource, list[str]]) -> None:
    name = "sub/gone.jpg#0#0" if source[0].kind == "parquet" else "sub/gone.jpg"
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg.* has vanished"):
        source[0].read(name)
    gone = ImageSource(source[0].kind, source[0].root + "-gone")
    with pytest.raises(FileNotFoundError, match="has vanished"):
        gone.read(source[1][0])


@pytest.mark.parametrize("locator", ["a.parquet", "a.parquet#0", "a.parquet#x#1", "a.parquet#0#"])
def test_a_malformed_parquet_locator_is_refused(tmp_path: Path, locator: str) -> None:
    with pytest.raises(InputError, match="row_group#row"):
        ImageSource("parquet", str(tmp_path)).read(locator)


def test_rows_and_bytes_that_are_not_there(tmp_path: Path) -> None:
    values = [{"bytes": None, "path": "a.jpg"}, {"bytes": b"x", "path": "b.jpg"}, None]
    pq.write_table(pa.table({"image": pa.array(values, IMAGE)}), tmp_path / "a.parquet")
    source = ImageSource("parquet", str(tmp_path))
    for locator, reason in [
        ("0#0", "no image bytes"),
        ("0#2", "no image bytes"),
        ("0#3", "no row 3"),
        ("0#-1", "no row"),
    ]:
        with pytest.raises(InputError, match=reason):
            source.read(f"a.parquet#{locator}")
    with pytest.raises(InputError, match="no row group 9"):
        source.read("a.parquet#9#0")
    assert source.read("a.parquet#0#1") == b"x", "a failure does not spoil the next read"


def test_a_damaged_parquet_page_is_named(tmp_path: Path) -> None:
    values = [{"bytes": content(number), "path": ""} for number in range(COUNT)]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array(values, IMAGE)}), path, compression="snappy", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[4:2000] = b"\xff" * 1996
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.parquet is damaged in row group 0"):
        ImageSource("parquet", str(tmp_path)).read("a.parquet#0#70")


def test_rows_read_in_order_decode_once_and_hold_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, locators = parquet_source(tmp_path)
    opened: list[str] = []
    real = parquet_images.open_parquet

    def recorded(path: str) -> pq.ParquetFile:
        opened.append(path)
        return real(path)

    monkeypatch.setattr(parquet_images, "open_parquet", recorded)
    (tmp_path / "b").mkdir()
    other, others = parquet_source(tmp_path / "b")
    for one, two in zip(locators, others, strict=True):  # faces and paintings in turn
        source.read(one)
        other.read(two)
    groups = -(-COUNT // ROW_GROUP)
    assert len(opened) == 2 * groups, "one opening for each row group of each copy"
    cursors = parquet_images._CURSORS.by_root
    assert len(cursors) <= parquet_images._MAX_ROOTS
    assert all(len(cursor._images) <= parquet_images.BATCH_ROWS for _, cursor in cursors.values())


def test_a_forked_child_does_not_wait_for_the_parents_lock(tmp_path: Path) -> None:
    source, locators = zip_source(tmp_path)
    assert check(source, locators, [0])
    with zip_images._ARCHIVES[os.getpid(), source.root].lock:
        child = multiprocessing.get_context("fork").Process(target=check, args=(source, locators, [1]))
        child.start()
        child.join(timeout=20)
        waited = child.exitcode
        if waited is None:
            child.kill()
    assert waited == 0


def test_an_archive_is_opened_once_by_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, locators = zip_source(tmp_path)
    opened: list[str] = []
    real = zip_images._open

    def slow(path: str) -> Any:
        opened.append(path)
        time.sleep(0.05)
        return real(path)

    monkeypatch.setattr(zip_images, "_open", slow)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: check(source, locators, [number]), range(4)))
    assert opened == [source.root]


def encrypt_flag(path: Path) -> None:
    """Set the encryption bit of every member in the central directory and the local headers."""
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = data.find(signature)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(signature, at + 4)
    path.write_bytes(data)


def test_an_encrypted_archive_is_refused_when_listed_and_when_read(tmp_path: Path) -> None:
    source, locators = zip_source(tmp_path)
    encrypt_flag(Path(source.root))
    with pytest.raises(InputError, match="encrypted"):
        zip_images.list_zip_images(Path(source.root))
    with pytest.raises(InputError, match="encrypted"):
        source.read(locators[0])


def test_a_damaged_member_is_refused_and_the_others_read(tmp_path: Path) -> None:
    source, locators = zip_source(tmp_path)
    path = Path(source.root)
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"sub/0\.jpg.* is damaged"):
        source.read(locators[0])
    assert check(source, locators, [1, 2])


@pytest.mark.parametrize("name", ["../evil.jpg", "/abs/evil.jpg", "a/../../evil.jpg"])
def test_an_archive_that_climbs_out_is_refused_when_listed(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(InputError, match="leaves its root"):
        zip_images.list_zip_images(tmp_path / "a.zip")
