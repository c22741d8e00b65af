"""Damaged and hostile image files: each is decoded or refused with a reason, in bounded time and memory.

The suite decodes 1,500 mutated files; ``STYLIZE_FUZZ_CASES=10000 pytest tests/test_fuzz_decode.py -s`` as many as it
says, and prints what became of them. Case N is the same file wherever and whenever it is made, and is decoded alone by
``python -m tests.test_fuzz_decode N 1``.
"""

import io
import json
import os
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylize.decode import FORMATS, MAX_PIXELS, MAX_SIDE, decode_image
from stylize.errors import ImageError

ROOT = Path(__file__).parent.parent
CASES = int(os.environ.get("STYLIZE_FUZZ_CASES", "1500"))
CPU_SECONDS = 5
MEMORY = 1700 << 20  # bytes above what the interpreter and its libraries take, see stylize/decode.py
ADDRESS_SPACE = 6 << 30
SIZE = (48, 36)


# Samples: every kind that is read, in every way of storing it that can be written here, and some that are not read.


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _pictures() -> dict[str, Image.Image]:
    width, height = SIZE
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 4))
    ramp = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None]
    pixels = (noise + ramp).clip(0, 255).astype(np.uint8)
    rgba = Image.fromarray(pixels)
    rgb = rgba.convert("RGB")
    return {
        "RGB": rgb,
        "RGBA": rgba,
        "L": rgb.convert("L"),
        "LA": rgba.convert("LA"),
        "P": rgb.quantize(16),
        "1": rgb.convert("1"),
        "CMYK": rgb.convert("CMYK"),
        "I;16": Image.fromarray(pixels[..., 0].astype(np.uint16) * 257),
        "I": Image.fromarray(pixels[..., 0].astype(np.int32) * 257),
        "F": Image.fromarray(pixels[..., 0].astype(np.float32) / 255),
    }


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(
    width: int, height: int, rows: bytes, *extra: bytes, kind: int = 2, depth: int = 8, interlace: int = 0
) -> bytes:
    """A PNG of these already compressed rows; kind and depth as PNG numbers them."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace))
    body = png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body


def zeros(count: int) -> bytes:
    """That many bytes of zero, compressed to a thousandth."""
    packer, million = zlib.compressobj(1), bytes(1 << 20)
    parts = [packer.compress(million[: min(1 << 20, count - at)]) for at in range(0, count, 1 << 20)]
    return b"".join([*parts, packer.flush()])


def tiff(*entries: tuple[int, int | tuple[int, ...]], data: bytes = b"") -> bytes:
    """A TIFF of one directory, all its values 32-bit; -1 in a value stands for where `data` begins in the file."""
    where = 8 + 2 + 12 * len(entries) + 4
    directory, behind = struct.pack("<H", len(entries)), data
    for tag, value in entries:
        values = tuple(where if item == -1 else item for item in (value if isinstance(value, tuple) else (value,)))
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(values) > 1:
            packed, behind = struct.pack("<I", where + len(behind)), behind + packed
        directory += struct.pack("<HHI", tag, 4, len(values)) + packed
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + behind


def tiled_tiff(sides: tuple[int, int], tile: tuple[int, int], data: bytes, compression: int = 8) -> bytes:
    return tiff(
        *((256, sides[0]), (257, sides[1]), (258, 8), (259, compression), (262, 1), (277, 1)),
        *((322, tile[0]), (323, tile[1]), (324, -1), (325, len(data))),
        data=data,
    )


def samples() -> dict[str, bytes]:
    """Encoded pictures by name; all but the last few are of kinds that are read."""
    of = _pictures()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    frames = {"save_all": True, "append_images": [of["RGB"].rotate(90), of["RGB"].rotate(180)]}
    found = {
        "jpeg": _encoded(of["RGB"], "JPEG"),
        "jpeg progressive": _encoded(of["RGB"], "JPEG", progressive=True, subsampling=0),
        "jpeg restarts": _encoded(of["RGB"], "JPEG", restart_marker_blocks=2),
        "jpeg grey exif": _encoded(of["L"], "JPEG", exif=exif),
        "jpeg cmyk": _encoded(of["CMYK"], "JPEG"),
        "jpeg icc comment": _encoded(of["RGB"], "JPEG", icc_profile=bytes(70_000), comment=b"c" * 300),
        "mpo": _encoded(of["RGB"], "MPO", **frames),
        "png exif": _encoded(of["RGB"], "PNG", exif=exif),
        "apng": _encoded(of["RGB"], "PNG", **frames),
        "png interlaced": png(8, 8, zlib.compress(bytes(15 * 25)), interlace=1),
        "png profile": _encoded(of["RGB"], "PNG", icc_profile=bytes(3000)),
        "png text": png(4, 4, zeros(4 * 13), png_chunk(b"zTXt", b"k\0\0" + zeros(9999))),
        "png 16-bit": png(4, 4, zeros(4 * 33), kind=6, depth=16),
        "webp": _encoded(of["RGB"], "WEBP", exif=exif),
        "webp lossless": _encoded(of["RGB"], "WEBP", lossless=True),
        "webp alpha": _encoded(of["RGBA"], "WEBP"),
        "webp animated": _encoded(of["RGB"], "WEBP", **frames),
        "gif": _encoded(of["P"], "GIF", transparency=3, comment=b"a comment"),
        "gif animated": _encoded(of["P"], "GIF", **frames),
        "bmp run-length": rle_bmp(16, 16, b"\x10\x07\0\0" * 15 + b"\0\2\1\1\0\4abcd\0\1"),
        "tiff tiled": tiled_tiff((48, 36), (32, 32), zlib.compress(bytes(range(256)) * 4)),
        "tiff strips": tiff(
            *((256, 48), (257, 36), (258, 8), (259, 1), (262, 1), (273, (8, 8, 8)), (277, 1), (278, 12)),
            *((279, (576, 576, 576)),),
            data=bytes(600),
        ),
    }
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        found[f"png {mode}"] = _encoded(of[mode], "PNG")
    for mode in ("RGB", "RGBA", "L", "P", "1"):
        found[f"bmp {mode}"] = _encoded(of[mode], "BMP")
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "I", "F"):
        found[f"tiff {mode}"] = _encoded(of[mode], "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        found[f"tiff {compression}"] = _encoded(of["RGB"], "TIFF", compression=compression)
    for compression in ("group3", "group4", "tiff_ccitt"):
        found[f"tiff {compression}"] = _encoded(of["1"], "TIFF", compression=compression)
    foreign = {f"foreign {kind}": _encoded(of["RGB"], kind) for kind in ("EPS", "TGA", "PPM", "PCX", "ICO", "SGI")}
    return {**found, **foreign}


def rle_bmp(width: int, height: int, runs: bytes) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024) + header + bytes(1024) + runs


# Mutations: each takes a file and gives a damaged one.


def _place(chance: random.Random, length: int) -> int:
    """Somewhere in a file, seldom in the signature; more often in its header, where sizes, modes and offsets stand."""
    start = min(length, chance.choice((0, 12, 12, 12)))
    return start + int(chance.random() ** chance.choice((1, 3)) * (length - start))


def _truncate(chance: random.Random, data: bytearray) -> None:
    del data[_place(chance, len(data)) :]


def _flip(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        data[min(_place(chance, len(data)), len(data) - 1)] ^= 1 << chance.randrange(8)


def _overwrite(chance: random.Random, data: bytearray) -> None:
    start, count = _place(chance, len(data)), chance.choice((1, 2, 4, 16, 300))
    fill = chance.choice((b"\0", b"\xff", b"\x7f", None))
    data[start : start + count] = chance.randbytes(count) if fill is None else fill * count


def _delete(chance: random.Random, data: bytearray) -> None:
    start = _place(chance, len(data))
    del data[start : start + chance.choice((1, 2, 4, 16, 300))]


def _insert(chance: random.Random, data: bytearray) -> None:
    start = _place(chance, len(data))
    data[start:start] = chance.randbytes(chance.choice((1, 2, 4, 16, 300)))


def _repeat(chance: random.Random, data: bytearray) -> None:
    start, count = _place(chance, len(data)), chance.choice((2, 12, 100, 1000))
    data[start:start] = data[start : start + count] * chance.choice((1, 3, 200))


def _splice(chance: random.Random, data: bytearray) -> None:
    other = SAMPLES[chance.choice(NAMES)]
    start, count = _place(chance, len(other)), chance.choice((4, 30, 400))
    at = _place(chance, len(data))
    data[at : at + chance.choice((0, count))] = other[start : start + count]


def _wrong_header(chance: random.Random, data: bytearray) -> None:
    count = chance.choice((2, 8, 12, 16, 40))
    data[:count] = SAMPLES[chance.choice(NAMES)][:count]


def _resize(chance: random.Random, data: bytearray) -> None:
    """Change a width or height wherever it stands as a number, in either byte order."""
    side = chance.choice((*SIZE, 4, 8, 16, 32))
    new = chance.choice((0, 1, 7, side + 1, 4000, 16_384, 50_000, 65_535, 1 << 24, 2**31 - 1, 2**32 - 1))
    for form in chance.sample((">I", "<I", ">H", "<H"), 4):
        width = struct.calcsize(form)
        for old in (side, side - 1):  # WebP stores one less
            where = [hit.start() for hit in re.finditer(re.escape(struct.pack(form, old)), bytes(data[:600]))]
            if where:
                at = chance.choice(where)
                data[at : at + width] = struct.pack(form, new % (1 << 8 * width))
                return


def _mend_png(data: bytearray) -> None:
    """Make the checksums right again, so that the damage gets past them."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(_truncate, _flip, _flip, _flip, _flip, _overwrite, _overwrite, _delete, _insert),
    *(_repeat, _repeat, _splice, _splice, _wrong_header, _resize, _resize, _resize, _resize),
)
SAMPLES = samples()
NAMES = sorted(SAMPLES)


def case(number: int) -> tuple[str, bytes]:
    """Mutated file number `number`, and the name of what it was."""
    chance = random.Random(number)
    name = NAMES[number % len(NAMES)]
    data = bytearray(SAMPLES[name])
    for _ in range(chance.choice((1, 1, 1, 2, 3, 5))):
        if data:
            chance.choice(MUTATIONS)(chance, data)
    if chance.random() < 0.9:
        _mend_png(data)
    return name, bytes(data)


# The child: decodes one after the other, and says so before and after; whatever kills it, the parent knows of which.


def judge(data: bytes) -> str:
    """Decode one file; "decoded", "refused: why", or "defect: what"."""
    try:
        pixels = decode_image(data)
    except ImageError as error:
        sentence = str(error)
        if not sentence.strip() or "\n" in sentence or " at 0x" in sentence:
            return f"defect: refused with {sentence!r}"
        return f"refused: {sentence}"
    except BaseException as error:
        return f"defect: {error!r}"
    height, width, _ = pixels.shape
    if pixels.dtype != np.uint8 or pixels.shape[2] != 3 or height * width > MAX_PIXELS or max(width, height) > MAX_SIDE:
        return f"defect: {pixels.dtype} {pixels.shape}"
    if not np.array_equal(pixels, decode_image(data)):  # memory of somebody else's, or what lay there before
        return "defect: decoded otherwise the second time"
    return "decoded"


def child(start: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    before = _peak()
    for number in range(start, start + count):
        name, data = case(number)
        print(json.dumps({"begin": number, "name": name}), flush=True)
        # Unlike a handler of Python's, the default action ends a process that is in C for ever. Two decodings.
        signal.setitimer(signal.ITIMER_PROF, 2 * CPU_SECONDS)
        began = time.process_time()
        outcome = judge(data)
        seconds = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        ended = {"end": number, "outcome": outcome, "seconds": seconds, "grown": _peak() - before}
        print(json.dumps(ended), flush=True)


def _peak() -> int:
    """Return the most memory this process has held, in bytes; getrusage would count its parent's before exec, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def run_child(start: int, count: int) -> tuple[list[dict[str, Any]], int, str]:
    """Return what the child said, how it ended, and the last of its errors (libtiff writes of every damaged TIFF)."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.test_fuzz_decode", str(start), str(count)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        timeout=60 + count,  # a deadlock takes no CPU
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return lines, done.returncode, done.stderr[-500:].decode(errors="replace")


def fuzz(count: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Decode cases 0 to `count`; what became of those that ended, and of those that ended the process."""
    ended: list[dict[str, Any]] = []
    fatal: list[str] = []
    start = 0
    while start < count:
        said, code, errors = run_child(start, count - start)
        ended += [line for line in said if "end" in line]
        if code == 0:
            break
        assert said, f"the child died before its first case ({code}): {errors}"
        last = said[-1]
        fatal.append(f"case {last.get('begin')} ({last.get('name')}) ended the process with {code}: {errors}")
        start = int(last["begin"] if "begin" in last else last["end"]) + 1
    return ended, fatal


def _kind(outcome: str) -> str:
    return re.sub(r"\d[\d.]*", "#", outcome)[:90]


@pytest.mark.skipif(sys.platform != "linux", reason="measures memory by /proc")
def test_whatever_is_wrong_with_a_file_it_is_decoded_or_refused():
    ended, fatal = fuzz(CASES)
    assert not fatal, fatal
    assert [line["end"] for line in ended] == list(range(CASES))
    defects = [(line["end"], line["outcome"]) for line in ended if line["outcome"].startswith("defect")]
    assert not defects, defects
    counts = Counter(_kind(line["outcome"]) for line in ended)
    slowest = max(ended, key=lambda line: line["seconds"])
    grown = max(line["grown"] for line in ended)
    print(f"\n{CASES} cases: {counts['decoded']} decoded, {CASES - counts['decoded']} refused")
    print(f"longest (decoded twice): {slowest['seconds']:.2f} s of CPU, case {slowest['end']}")
    print(f"peak memory above the interpreter's: {grown >> 20} MiB")
    for outcome, number in counts.most_common(60):
        print(f"{number:6}  {outcome}")
    assert grown < MEMORY
    assert not any("not enough memory" in kind for kind in counts)
    # A fuzz of which nothing gets past the headers, or which damages nothing, would show nothing.
    assert 0.1 < counts["decoded"] / CASES < 0.6


def test_the_samples_are_of_every_kind_and_are_read_or_refused_as_such():
    kinds = set()
    for name, data in SAMPLES.items():
        if name.startswith("foreign") or name == "bmp run-length":
            with pytest.raises(ImageError):
                decode_image(data)
        elif name != "tiff tiled":  # three of its four tiles are missing
            assert decode_image(data).shape[2] == 3, name
            with Image.open(io.BytesIO(data)) as image:
                kinds.add("JPEG" if image.format == "MPO" else image.format)
    assert kinds == set(FORMATS)


if __name__ == "__main__":
    child(int(sys.argv[1]), int(sys.argv[2]))
