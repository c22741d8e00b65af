"""Inputs made to do harm: image bombs, archives and links that lead out, pipes and devices, pickles that run code."""

import ast
import io
import json
import multiprocessing
import os
import pickle
import resource
import socket
import stat
import struct
import sys
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from manifests import image_files
from manifests.errors import InputError, RunError
from manifests.faces import FaceCatalogue, read_faces
from manifests.image_source import ImageSource
from manifests.paintings import PaintingCatalogue, read_paintings
from manifests.zip_images import list_zip_images
from pipeline.backbones.state_dict import read_state_dict
from pipeline.retrieval.index import open_index
from pipeline.retrieval.index_file import INDEX_FILE
from pipeline.training.checkpoint import load_state
from pipeline.training.training_run import STATE_FILE, TrainingRun
from stylize.decode import decode_image
from stylize.errors import ImageError, WeightsError
from stylize.weights import load_weights
from tests.command_line import refuse
from tests.small_inputs import write_faces, write_paintings
from tests.test_fuzz_decode import (
    ADDRESS_SPACE,
    CPU_SECONDS,
    MEMORY,
    _peak,
    png,
    png_chunk,
    rle_bmp,
    tiff,
    tiled_tiff,
    zeros,
)

ROOT = Path(__file__).parent.parent
linux = pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")


# Image bombs. Each in a process of its own, whose memory is measured.


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def animated_webp(width: int, height: int) -> bytes:
    """A canvas of this size with one frame of 4x4."""

    def three(number: int) -> bytes:
        return struct.pack("<I", number)[:3]

    frame = encoded(Image.new("RGB", (4, 4)), "WEBP", lossless=True)[12:]
    frame = bytes(6) + three(3) * 2 + bytes(4) + frame
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + three(width - 1) + three(height - 1)
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(width: int, height: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return head + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\2\2\x44\1\0;"


def many_scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan, a few bytes, is there that many times more."""
    data = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    return data[:end] + data[last:end] * count + data[end:]


def many_exif_blocks(count: int) -> bytes:
    data = encoded(Image.new("RGB", (16, 16)), "JPEG")
    return data[:2] + b"\xff\xe1\0\x09Exif\0\0a" * count + data[2:]


def overlapping_strips(side: int, count: int) -> bytes:
    """Two strips that fill the picture, and then the same again and again, all of them the same bytes."""
    return tiff(
        *((256, side), (257, side), (258, 1), (259, 1), (262, 1), (273, (-1,) * count), (277, 1), (278, side // 2)),
        (279, (side // 8 * side,) * count),
        data=b"\x55" * (side // 8 * side),
    )


TURNED = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "png": (lambda: png(50_000, 50_000, zeros(9)), "far too large; at most 67 million pixels"),
    "png of nearly the limit": (lambda: png(9000, 9000, zeros(9)), "9000x9000 is 81 million pixels; at most 67"),
    "gif": (lambda: gif(50_000, 50_000), "far too large"),
    "webp": (lambda: animated_webp(50_000, 50_000), "far too large"),
    "tiff": (lambda: tiled_tiff((50_000, 50_000), (256, 256), zeros(9)), "far too large"),
    "bmp": (lambda: rle_bmp(50_000, 50_000, b""), "far too large"),
    "one row": (lambda: png(60_000_000, 1, zeros(9)), "60000000x1 has a side of more than 65535 pixels"),
    "tile of a small picture": (lambda: tiled_tiff((10, 10), (30_000, 30_000), zeros(10**6)), "tiles of 30000x30"),
    "overlapping strips": (lambda: overlapping_strips(8000, 9999), "stored in 9999 pieces, far more than it needs"),
    "tiny tiles": (
        lambda: tiff(
            *(
                (256, 400),
                (257, 400),
                (258, 8),
                (259, 1),
                (262, 1),
                (277, 1),
                (322, 1),
                (323, 1),
                (324, (-1,) * 160_000),
            ),
            (325, (1,) * 160_000),
            data=b"x",
        ),
        "stored in 160000 pieces",
    ),
    "run-length bmp": (lambda: rle_bmp(65_535, 1024, b"\1\0\0\0" * 1024), "run-length encoded BMP is not read"),
    "text": (lambda: png(9, 9, zeros(300), png_chunk(b"zTXt", b"k\0\0" + zeros(2 * 10**8))), "unpack to more than"),
    "texts": (
        lambda: png(9, 9, zeros(300), *[png_chunk(b"zTXt", b"%d\0\0" % i + zeros(10**6)) for i in range(99)]),
        "unpack to more than is read",
    ),
    "profile": (lambda: png(9, 9, zeros(300), png_chunk(b"iCCP", b"k\0\0" + zeros(2 * 10**8))), "unpack to more than"),
    "scans": (lambda: many_scans(8000, 5000), "more than 100 progressive scans"),
    "Exif blocks": (lambda: many_exif_blocks(500_000), "more than 256 Exif blocks"),
    # These are decoded: what they hold beyond the picture is not unpacked.
    "pixels": (lambda: png(9, 9, zeros(1 << 28)), ""),
    "frames": (
        lambda: encoded(
            Image.new("P", (999, 999)),
            "GIF",
            save_all=True,
            append_images=[Image.new("P", (999, 999), 1 + i % 2) for i in range(60)],
        ),
        "",
    ),
    # Transparency and a turn, the dearest there is: see the head of stylize/decode.py.
    "16 million pixels": (lambda: png(4096, 4096, zeros(4096 * 16_385), png_chunk(b"eXIf", TURNED), kind=6), ""),
}


def explode(bomb: str, answer: Any) -> None:
    # Above what this process has: forked late in a whole suite, that alone may be more than the bound.
    bound = ADDRESS_SPACE + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    data = BOMBS[bomb][0]()
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is held now
    before, began = _peak(), time.process_time()
    try:
        outcome = str(decode_image(data).shape)
    except ImageError as error:
        outcome = f"refused: {error}"
    answer.send((outcome, time.process_time() - began, _peak() - before))


@linux
@pytest.mark.parametrize("bomb", BOMBS)
def test_an_image_bomb_costs_little_and_is_told(bomb):
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=explode, args=(bomb, sender))
    process.start()
    sender.close()
    try:
        assert receiver.poll(120)
        outcome, seconds, grown = receiver.recv()
    finally:
        process.kill()
        process.join()
    print(f"{bomb}: {outcome}, {seconds:.2f} s of CPU, {grown >> 20} MiB")
    sentence = BOMBS[bomb][1]
    assert outcome.startswith("refused: ") == bool(sentence)
    assert sentence in outcome
    assert seconds < CPU_SECONDS
    assert grown < (MEMORY // 4 if bomb == "16 million pixels" else 100 << 20)


def test_common_progressive_pictures_and_films_behind_them_are_no_bombs():
    for scans in (0, 50):
        assert decode_image(many_scans(64, scans)).shape == (64, 64, 3)
    film = encoded(Image.new("RGB", (64, 64)), "JPEG", progressive=True) + b"\0\xff\xda\0\x08" * 500
    assert decode_image(film).shape == (64, 64, 3)
    assert decode_image(many_exif_blocks(100)).shape == (16, 16, 3)
    strips = tiff(
        *((256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, (-1,) * 16), (277, 1), (278, 1)),
        (279, (16,) * 16),
        data=bytes(range(16)),
    )
    assert decode_image(strips)[..., 0].tolist() == [list(range(16))] * 16


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%touch x) (w) file\n", "PostScript"),
        (b"\xc5\xd0\xd3\xc6" + bytes(60), "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    ],
)
def test_other_kinds_are_named_with_what_to_do(data, name):
    with pytest.raises(ImageError, match=f"{name} is not read; convert it to JPEG, PNG, WEBP, BMP, TIFF or GIF"):
        decode_image(data)


@pytest.mark.parametrize("image_format", ["PPM", "TGA", "ICO", "EPS", "JPEG2000", "AVIF", "ICNS", "PCX", "SGI", "DDS"])
def test_kinds_that_pillow_reads_and_we_do_not(image_format):
    try:
        data = encoded(Image.new("RGB", (32, 32)), image_format)
    except (OSError, KeyError):
        pytest.skip(f"Pillow has been built without {image_format}")
    with pytest.raises(ImageError):
        decode_image(data)


# Folders.


@pytest.fixture
def folder(tmp_path):
    """A folder with one picture in it, and a secret beside it."""
    inside = tmp_path / "inside"
    inside.mkdir()
    Image.new("RGB", (16, 16)).save(inside / "fine.png")
    Image.new("RGB", (16, 16), "red").save(tmp_path / "secret.png")
    return inside


READERS: dict[str, Callable[..., FaceCatalogue | PaintingCatalogue]] = {
    "faces": read_faces,
    "paintings": read_paintings,
}


@pytest.mark.parametrize("reader", READERS)
def test_links_are_followed_within_the_folder_and_not_out_of_it(folder, reader):
    (folder / "sub").mkdir()
    (folder / "sub" / "link.png").symlink_to("../fine.png")
    (folder / "out.png").symlink_to("../secret.png")
    (folder / "absolute.png").symlink_to(folder.parent / "secret.png")
    (folder / "etc.png").symlink_to("/etc/passwd")
    (folder / "nowhere.png").symlink_to("nowhere")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "parent").symlink_to("..")
    catalogue = READERS[reader](folder)
    assert catalogue.table["locator"].to_pylist() == ["fine.png", "sub/link.png"]
    told = " ".join(catalogue.problems)
    assert "5 images are links that lead out" in told
    assert "1 folder is a link that leads out" in told
    with pytest.raises(InputError, match="lead out"):
        READERS[reader](folder, strict=True)
    for name in ("out.png", "absolute.png", "etc.png", "parent/secret.png"):
        with pytest.raises(InputError, match="leads out of"):
            catalogue.source.read(name)


@pytest.mark.parametrize("reader", READERS)
def test_the_folder_itself_may_be_a_link(folder, reader):
    link = folder.parent / "link"
    link.symlink_to(folder)
    catalogue = READERS[reader](link)
    assert catalogue.table["locator"].to_pylist() == ["fine.png"]
    assert catalogue.source.read("fine.png") == (folder / "fine.png").read_bytes()
    assert catalogue.digest == READERS[reader](folder).digest


def test_a_link_put_there_after_the_plan_is_not_followed(folder):
    source = read_faces(folder).source
    (folder / "fine.png").unlink()
    (folder / "fine.png").symlink_to("../secret.png")
    with pytest.raises(InputError, match="leads out of"):
        source.read("fine.png")


def special_files(folder: Path) -> dict[str, Path]:
    os.mkfifo(folder / "pipe.png")
    server = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # the name of a socket has a hundred characters at most
    try:
        server.bind("socket.png")
    finally:
        os.chdir(here)
        server.close()
    (folder / "folder.png").mkdir()
    (folder / "linked.png").symlink_to("pipe.png")
    names = ["pipe.png", "socket.png", "folder.png", "linked.png"]
    try:
        os.mknod(folder / "zero.png", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
        names.append("zero.png")
    except PermissionError:
        pass
    return {name: folder / name for name in names}


@pytest.mark.parametrize("reader", READERS)
def test_pipes_and_devices_are_not_opened(folder, reader, monkeypatch):
    """Whoever opens a pipe that nobody writes to waits for ever; a device never ends."""
    special = special_files(folder)
    opened: list[str] = []
    plain_open = open

    def recorded(path: Any, *arguments: Any, **options: Any) -> Any:
        opened.append(os.path.basename(os.fspath(path)))
        return plain_open(path, *arguments, **options)

    monkeypatch.setattr(image_files, "open", recorded, raising=False)
    catalogue = READERS[reader](folder)
    assert catalogue.table["locator"].to_pylist() == ["fine.png"]
    for name in special:
        with pytest.raises(InputError, match=f"'{name}' in .* is a pipe, a device or a folder"):
            catalogue.source.read(name)
    assert not opened
    assert catalogue.source.read("fine.png")
    assert opened == ["fine.png"]


def test_a_pipe_among_the_pictures_of_celeba_or_in_place_of_its_annotations(tmp_path):
    faces = write_faces(tmp_path / "celeba", 4)
    picture = faces / "img_align_celeba" / "000002.jpg"
    picture.unlink()
    os.mkfifo(picture)
    catalogue = read_faces(faces)
    assert "000002.jpg" not in catalogue.table["image_id"].to_pylist()
    assert any("000002.jpg" in problem for problem in catalogue.problems)
    (faces / "list_attr_celeba.txt").unlink()
    os.mkfifo(faces / "list_attr_celeba.txt")
    with pytest.raises(InputError, match=r"has no list_attr_celeba\.txt"):
        read_faces(faces)


def test_a_file_larger_than_any_picture_is_not_read_into_memory(folder):
    with (folder / "huge.png").open("wb") as file:
        file.truncate(1 << 40)
    catalogue = read_faces(folder)
    with pytest.raises(InputError, match=r"'huge.png' in .* has 1,099,512 MB, at most 671 MB are read"):
        catalogue.source.read("huge.png")


# Archives.


def pack(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        with zipfile.ZipFile(path, "w", method) as archive:
            for name, content in members:
                archive.writestr(name, content, compress_type=method)
    return path


PICTURE = encoded(Image.new("RGB", (16, 16)), "PNG")
SLIPS = ["../x.png", "a/../../x.png", "/x.png", "..\\x.png", "a\\..\\..\\x.png", "\\x.png", "C:\\x.png", "c:/x.png"]


@pytest.mark.parametrize("name", [*SLIPS, "\\\\server\\share\\x.png"])
def test_names_that_lead_out_of_an_archive_are_refused(tmp_path, name):
    path = pack(tmp_path / "a.zip", ("fine.png", PICTURE), (name, PICTURE))
    with pytest.raises(InputError, match="leaves its root"):
        read_paintings(path)
    with pytest.raises(InputError, match="leaves its root"):
        ImageSource("zip", str(path)).read(name)
    write_faces(tmp_path / "celeba", 4)
    sentence = refuse(2, "build", tmp_path / "OUT", "--faces", tmp_path / "celeba", "--paintings", path)
    assert "leaves its root" in sentence
    assert not (tmp_path / "OUT").exists()
    assert not list(tmp_path.parent.glob("x.png"))


@pytest.mark.parametrize(
    "name", ["a..b.png", "..a/x.png", "a/...png", "Style\\artist_title.png", "C:x.png", "a:b/x.png"]
)
def test_harmless_names_are_not_refused(tmp_path, name):
    path = pack(tmp_path / "a.zip", (name, PICTURE))
    hidden = name.startswith(".") or "/." in name
    assert list_zip_images(path).table["locator"].to_pylist() == ([] if hidden else [name])
    assert ImageSource("zip", str(path)).read(name) == PICTURE


def special_member(name: str, kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3  # Unix
    info.external_attr = (kind | 0o777) << 16
    return info


def test_links_and_devices_in_an_archive_are_left_out_and_told(tmp_path):
    path = pack(
        tmp_path / "a.zip",
        ("fine.png", PICTURE),
        (special_member("file.png", stat.S_IFREG), PICTURE),
        (special_member("link.png", stat.S_IFLNK), b"/etc/passwd"),
        (special_member("pipe.png", stat.S_IFIFO), b""),
    )
    paintings = read_paintings(path)
    assert paintings.table["painting"].to_pylist() == ["file.png", "fine.png"]
    assert "2 images in" in paintings.problems[0]
    assert "are links or no files, and are left out" in paintings.problems[0]
    with pytest.raises(InputError, match="is a link"):
        paintings.source.read("link.png")


def test_of_members_with_one_name_the_last_is_read_and_the_others_are_told(tmp_path):
    other = encoded(Image.new("RGB", (16, 16), "red"), "PNG")
    path = pack(tmp_path / "a.zip", ("a.png", PICTURE), ("a.png", other))
    paintings = read_paintings(path)
    assert paintings.table["painting"].to_pylist() == ["a.png"]
    assert "repeats an earlier painting" in paintings.problems[0]
    assert paintings.source.read("a.png") == other


@linux
def test_a_zip_bomb_that_declares_little_is_not_unpacked(tmp_path):
    path = pack(tmp_path / "a.zip", ("a.png", bytes(1 << 28)), ("fine.png", PICTURE))
    data = bytearray(path.read_bytes())
    for at in (22, data.index(b"PK\1\2") + 24):  # in the local header and in the directory
        assert data[at : at + 4] == struct.pack("<I", 1 << 28)
        data[at : at + 4] = struct.pack("<I", 1000)
    path.write_bytes(data)
    source = read_paintings(path).source
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    with pytest.raises(InputError, match=r"'a.png' in .* is damaged \(Bad CRC-32"):
        source.read("a.png")
    assert _peak() - before < 64 << 20
    assert source.read("fine.png") == PICTURE


def test_a_zip_bomb_that_declares_much_is_not_unpacked(tmp_path):
    path = pack(tmp_path / "a.zip", ("a.png", bytes(1000)))
    data = path.read_bytes().replace(struct.pack("<I", 1000), struct.pack("<I", 0xFFFF_FF00))
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"'a.png' in .* has 4,295 MB, at most 671 MB are read"):
        ImageSource("zip", str(path)).read("a.png")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_a_bomb_at_once_are_refused(tmp_path, method):
    path = pack(tmp_path / "a.zip", ("a.png", bytes(1 << 20)), method=method)
    with pytest.raises(InputError, match="unusual method"):
        read_paintings(path)
    with pytest.raises(InputError, match="unusual method"):
        ImageSource("zip", str(path)).read("a.png")


def test_members_that_lie_upon_each_other_cost_no_more_than_each(tmp_path):
    """The directory names the same packed bytes a thousand times, which is how small archives unpack to petabytes."""
    path = pack(tmp_path / "a.zip", ("0000.png", bytes(1 << 20)))
    data = path.read_bytes()
    start = data.index(b"PK\1\2")
    end = data.index(b"PK\5\6")
    directory = b"".join(data[start:end].replace(b"0000.png", b"%04d.png" % number) for number in range(1000))
    tail = bytearray(data[end:])
    tail[8:16] = struct.pack("<HHI", 1000, 1000, len(directory))
    path.write_bytes(data[:start] + directory + tail)
    source = read_paintings(path).source
    assert source.read("0000.png") == bytes(1 << 20)
    with pytest.raises(InputError, match="is damaged"):
        source.read("0777.png")


def test_a_damaged_archive_is_refused_and_nothing_else(tmp_path):
    """Every byte of a small archive changed once, in two ways, and every length of it."""
    path = pack(tmp_path / "a.zip", ("a.png", b"picture" * 9), ("s/b.png", PICTURE))
    whole = path.read_bytes()
    damaged = [whole[:at] + bytes([value]) + whole[at + 1 :] for at in range(len(whole)) for value in (0, 255)]
    damaged += [whole[:length] for length in range(len(whole))]
    for number, data in enumerate(damaged):
        other = tmp_path / f"{number}.zip"  # archives stay open by their name
        other.write_bytes(data)
        try:
            locators = list_zip_images(other).table["locator"].to_pylist()
            for locator in locators:
                ImageSource("zip", str(other)).read(locator)
        except (InputError, OSError):
            pass
        other.unlink()


# Parquet copies.


@pytest.mark.parametrize("name", ["../secret.parquet", "/etc/passwd", "a/../../secret.parquet", "link.parquet", ""])
@pytest.mark.parametrize("place", ["#0#0", "#-1#-1", "#99999999999999999999#0", "#0#99999999999999999999", "#0x0#0"])
def test_locators_of_parquet_copies_lead_nowhere_else(tmp_path, name, place):
    root = tmp_path / "root"
    root.mkdir()
    pq.write_table(pa.table({"image": [b"fine"]}), root / "a.parquet")
    pq.write_table(pa.table({"image": [b"secret"]}), tmp_path / "secret.parquet")
    (root / "link.parquet").symlink_to("../secret.parquet")
    source = ImageSource("parquet", str(root))
    for locator in (f"{name}{place}", f"a.parquet{place}"):
        if locator != "a.parquet#0#0":
            with pytest.raises(InputError):
                source.read(locator)
    assert source.read("a.parquet#0#0") == b"fine"


def test_a_pipe_that_is_called_parquet_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(InputError):
        read_faces(tmp_path)


# Pickles.


class Attack:
    """Pickled as a call of `os.system`."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.trap}",)


def attacks(trap: Path) -> dict[str, bytes]:
    """The same in every format that a checkpoint comes in."""
    found = {f"pickle {protocol}": pickle.dumps({"w": Attack(trap)}, protocol) for protocol in (0, 2, 4, 5)}
    for name, zipped in (("zip", True), ("legacy", False)):
        buffer = io.BytesIO()
        torch.save({"state_dict": {"w": Attack(trap)}}, buffer, _use_new_zipfile_serialization=zipped)
        found[name] = buffer.getvalue()
    return found


@pytest.fixture
def trap(tmp_path):
    """A file that only an attack makes."""
    path = tmp_path / "trap"
    assert os.system(f"touch {path}") == 0  # the attack would work
    path.unlink()
    yield path
    assert not path.exists()


def one_sentence(error: BaseException) -> None:
    assert str(error).strip()
    assert "\n" not in str(error)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors", ".pkl", ""])
def test_weights_that_would_run_code(tmp_path, trap, suffix):
    for content in attacks(trap).values():
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            load_weights(str(path))
        one_sentence(caught.value)
        with pytest.raises(InputError) as refused:
            read_state_dict(path)
        one_sentence(refused.value)


def test_the_command_line_refuses_such_weights_with_one_sentence(tmp_path, trap):
    write_faces(tmp_path / "celeba", 4)
    write_paintings(tmp_path / "wikiart", 4)
    (tmp_path / "vgg.pth").write_bytes(attacks(trap)["zip"])
    inputs = ("--faces", tmp_path / "celeba", "--paintings", tmp_path / "wikiart", "--weights", tmp_path / "vgg.pth")
    assert "without running code" in refuse(2, "build", tmp_path / "OUT", *inputs)
    assert not (tmp_path / "OUT").exists()


class NoTrainer:
    """Takes part in nothing: the state is refused before."""

    def restore(self, state: object) -> None:
        raise AssertionError("the state was read")


def test_the_state_of_a_training_run_that_would_run_code(tmp_path, trap):
    run = TrainingRun.create_or_resume(tmp_path / "run", {"lr": 0.1}, {"faces": {"digest": "a", "count": 1}})
    for content in attacks(trap).values():
        (tmp_path / "run" / STATE_FILE).write_bytes(content)
        with pytest.raises(RunError) as caught:
            load_state(run, NoTrainer())  # type: ignore[arg-type]
        one_sentence(caught.value)


def test_an_index_that_would_run_code(tmp_path, trap):
    """There are no pickles in an index: neither in place of its files, nor within them."""
    for content in attacks(trap).values():
        (tmp_path / INDEX_FILE).write_bytes(content)
        with pytest.raises((InputError, RunError)) as caught:
            open_index(tmp_path)
        one_sentence(caught.value)


def test_a_parquet_copy_with_a_pickled_type_of_arrow(tmp_path, trap):
    """Older pyarrow made the types that a file's schema names by unpickling them (CVE-2023-47248)."""
    field = pa.field(
        "image",
        pa.binary(),
        metadata={
            "ARROW:extension:name": "arrow.py_extension_type",
            "ARROW:extension:metadata": pickle.dumps(Attack(trap), 0),
        },
    )
    pq.write_table(pa.table([pa.array([PICTURE])], schema=pa.schema([field])), tmp_path / "a.parquet")
    catalogue = read_faces(tmp_path)
    assert catalogue.source.read(catalogue.table["locator"][0].as_py()) == PICTURE


# What the code itself may call.

# The processes of a quarantine and their parent, over pipes of their own; a client and the workers of its cluster, who
# run each other's code anyway.
UNPICKLES_ITS_OWN = {"pipeline/quarantine.py", "pipeline/worker_versions.py"}
FORBIDDEN = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads", "marshal.loads"),
    *("shelve.open", "joblib.load", "dill.load", "dill.loads", "yaml.load", "yaml.unsafe_load", "torch.jit.load"),
    *("np.load", "numpy.load", "pd.read_pickle", "pandas.read_pickle", "os.system", "os.popen", "eval", "exec"),
}


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_nothing_unpickles_what_a_user_gives():
    """By name: `pickle.load` and its like nowhere, `torch.load` with weights_only=True alone, no shells."""
    sources = [
        ROOT / "cli.py",
        *(path for room in ("stylize", "manifests", "pipeline") for path in (ROOT / room).rglob("*.py")),
    ]
    found: list[str] = []
    loads = 0
    for path in sources:
        name = path.relative_to(ROOT).as_posix()
        for call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            function = ast.unparse(call.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if function == "torch.load":
                loads += 1
                if options.get("weights_only") != "True":
                    found.append(f"{name}: {ast.unparse(call)}")
            allowed = function == "pickle.loads" and name in UNPICKLES_ITS_OWN
            if (function in FORBIDDEN and not allowed) or options.get("shell") == "True":
                found.append(f"{name}: {ast.unparse(call)}")
    assert len(sources) > 100
    assert loads == 3
    assert not found


def test_unpicklers_are_called_by_their_full_names():
    """Or the test above would not see them."""
    for room in ("stylize", "manifests", "pipeline"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                modules = {name.partition(".")[0] for name in FORBIDDEN if "." in name} - {"np", "pd", "os", "numpy"}
                if isinstance(node, ast.ImportFrom) and node.module in modules - {"torch"}:
                    assert not {alias.name for alias in node.names} & {"load", "loads", "Unpickler", "open"}, path
                if isinstance(node, ast.Import):
                    assert all(alias.asname is None for alias in node.names if alias.name in modules), path


def test_settings_and_manifests_are_json_and_parquet(tmp_path):
    """run.json in place of which somebody puts a pickle is told as what it is."""
    out = tmp_path / "OUT"
    out.mkdir()
    (out / "run.json").write_bytes(pickle.dumps(Attack(tmp_path / "trap")))
    refuse(2, "status", out)
    (out / "run.json").write_text(json.dumps([1]))
    refuse(2, "status", out)
    assert not (tmp_path / "trap").exists()
