"""Decoding what people have on disk, and refusing what cannot be decoded with a reason."""

import io
import struct
import subprocess
import threading
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stylize.decode import MAX_PIXELS, decode_image
from stylize.errors import ImageError
from tests.tiny_transfer import encoded, picture

RGB = picture(1, 20, 28)

# EXIF 2.32, tag 0x0112: how the stored rows and columns become the picture as it is to be seen.
ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def refusal(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    message = str(caught.value)
    assert message.strip()
    assert "\n" not in message
    assert " at 0x" not in message  # a manifest must not depend on where something lay in memory
    return message


def plain(array: np.ndarray) -> None:
    assert array.dtype == np.uint8
    assert array.ndim == 3
    assert array.shape[2] == 3
    assert array.flags.writeable
    assert array.flags.c_contiguous


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_rgb_comes_back_as_it_is(image_format):
    decoded = decode_image(encoded(RGB, image_format))
    plain(decoded)
    assert np.array_equal(decoded, RGB)
    assert np.array_equal(decode_image(encoded(RGB, "WEBP", lossless=True)), RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG", "TIFF"])
def test_exif_orientation_is_applied(orientation, image_format):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options: dict[str, object] = {"lossless": True} if image_format == "WEBP" else {}
    if image_format == "JPEG":
        options = {"quality": 100, "subsampling": 0}
    decoded = decode_image(encoded(RGB, image_format, exif=exif, **options))
    expected = ORIENTATIONS[orientation](RGB)
    plain(decoded)
    assert decoded.shape == expected.shape
    assert np.abs(decoded.astype(int) - expected).max() <= (12 if image_format == "JPEG" else 0)


def test_orientation_of_sixteen_bit_grey_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = RGB[..., 0].astype(np.uint16) * 257
    assert np.array_equal(
        decode_image(encoded(Image.fromarray(grey), "PNG", exif=exif))[..., 0], np.rot90(RGB[..., 0], -1)
    )


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(decode_image(encoded(RGB, "PNG", exif=exif)), RGB)


@pytest.mark.parametrize("block", [b"garbage", b"", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\xff\xff\xff\xff", b"II*\0"])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_does_not_cost_the_image(block, image_format):
    assert decode_image(encoded(RGB, image_format, exif=b"Exif\0\0" + block)).shape == RGB.shape


def test_grey_becomes_three_equal_channels():
    grey = RGB[..., 0]
    for data in (encoded(Image.fromarray(grey)), encoded(Image.fromarray(grey), "JPEG", quality=100)):
        decoded = decode_image(data)
        plain(decoded)
        assert (decoded == decoded[..., :1]).all()
        assert np.abs(decoded[..., 0].astype(int) - grey).max() <= 3


def test_black_and_white_of_one_bit():
    bits = RGB[..., 0] > 128
    assert np.array_equal(decode_image(encoded(Image.fromarray(bits)))[..., 1], bits * np.uint8(255))


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def test_transparency_is_laid_on_white():
    alpha = np.linspace(0, 255, RGB.shape[1]).astype(np.uint8) * np.ones((RGB.shape[0], 1), np.uint8)
    rgba = Image.fromarray(np.dstack([RGB, alpha]))
    grey_alpha = Image.merge("LA", (Image.fromarray(RGB[..., 0]), Image.fromarray(alpha)))
    for data, colour in (
        (encoded(rgba), RGB),
        (encoded(rgba, "WEBP", lossless=True, exact=True), RGB),
        (encoded(grey_alpha), np.repeat(RGB[..., :1], 3, 2)),
    ):
        decoded = decode_image(data)
        plain(decoded)
        assert np.abs(decoded - over_white(colour, alpha)).max() <= 1.5


def test_palettes_with_and_without_transparency():
    indices = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    palette = [255, 0, 0, 0, 255, 0, 0, 0, 255]
    image = Image.fromarray(indices)
    image.putpalette(palette)
    colours = np.array(palette, np.uint8).reshape(3, 3)[indices]
    assert np.array_equal(decode_image(encoded(image, "PNG")), colours)
    assert np.array_equal(decode_image(encoded(image, "GIF")), colours)
    colours[indices == 1] = 255
    for data in (encoded(image, "PNG", transparency=1), encoded(image, "GIF", transparency=1)):
        assert np.array_equal(decode_image(data), colours)
    half = encoded(image, "PNG", transparency=bytes([255, 128, 255]))
    assert np.abs(decode_image(half)[indices == 1].astype(int) - [127, 255, 127]).max() <= 1


def test_a_colour_key_is_transparent_too():
    image = Image.fromarray(np.tile(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8), (2, 1, 1)))
    assert decode_image(encoded(image, "PNG", transparency=(9, 8, 7))).tolist() == [[[255] * 3, [1, 2, 3]]] * 2


def test_cmyk_jpegs_have_their_colours():
    colours = np.zeros((16, 32, 3), np.uint8)
    colours[:, :16], colours[:, 16:] = (250, 240, 30), (20, 40, 200)
    cmyk = Image.fromarray(colours).convert("CMYK")
    for data in (encoded(cmyk, "JPEG", quality=98), encoded(cmyk, "TIFF")):
        decoded = decode_image(data)
        plain(decoded)
        assert np.abs(decoded.astype(int) - colours).max() < 25


def test_sixteen_bits_are_scaled_and_not_clipped():
    grey = np.linspace(0, 65535, 20 * 28).reshape(20, 28).astype(np.uint16)
    for image_format in ("PNG", "TIFF"):
        decoded = decode_image(encoded(Image.fromarray(grey), image_format))
        plain(decoded)
        assert np.abs(decoded[..., 0].astype(float) - grey / 257).max() <= 1
    assert decoded.max() == 255


def png(depth: int, colour_type: int, rows: bytes, width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_colour_and_alpha():
    row = b"\0" + struct.pack(">6H", 65535, 32896, 0, 257, 514, 65535)
    assert decode_image(png(16, 2, row, 2, 1)).tolist() == [[[255, 128, 0], [1, 2, 255]]]
    row = b"\0" + struct.pack(">8H", 65535, 0, 0, 65535, 0, 0, 0, 0)
    assert decode_image(png(16, 6, row, 2, 1)).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_floating_point_tiffs_of_either_range():
    ramp = np.linspace(0, 1, 48, dtype=np.float32).reshape(6, 8)
    for scale in (1, 255):
        decoded = decode_image(encoded(Image.fromarray(ramp * scale), "TIFF"))
        plain(decoded)
        assert np.abs(decoded[..., 0] - 255 * ramp).max() <= 1
    ramp[0, :3] = [np.nan, np.inf, -np.inf]
    plain(decode_image(encoded(Image.fromarray(ramp), "TIFF")))


def test_of_an_animation_the_first_frame():
    frames = [Image.fromarray(np.full((5, 6, 3), value, np.uint8)) for value in (200, 30, 90)]
    for image_format in ("GIF", "WEBP", "PNG"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        decoded = decode_image(encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options))
        assert decoded.shape == (5, 6, 3)
        assert (decoded == 200).all(), image_format


@pytest.mark.parametrize(
    "data", [b"", b"no image at all\n", b"\0" * 100, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"<svg/>"]
)
def test_what_is_no_image_is_refused(data):
    message = refusal(data)
    if not data:
        assert "empty" in message


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7])
def test_truncated_files_are_refused(image_format, part):
    data = encoded(picture(2, 60, 60), image_format)
    refusal(data[: int(len(data) * part)])


def test_the_pixel_limit_is_kept_to_the_pixel():
    data = encoded(RGB)
    assert decode_image(data, max_pixels=20 * 28).shape == RGB.shape
    assert "28x20" in refusal(data, max_pixels=20 * 28 - 1)


@pytest.mark.parametrize("side", [9000, 20_000, 2**31 - 1])
def test_a_header_that_claims_a_bomb_is_refused_before_decoding(side):
    assert side * side > MAX_PIXELS
    message = refusal(png(8, 2, b"\0" * 100, side, side))
    assert "large" in message or "million" in message


def test_a_real_bomb_is_refused():
    """A megabyte and a half that would unpack to 3.6 gigabytes."""
    side = 34_600
    rows = zlib.compressobj(1)
    compressed = rows.compress(b"\0" * (3 * side * 40)) + rows.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in ((b"IHDR", header), (b"IDAT", compressed), (b"IEND", b"")):
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
    refusal(data)


def test_no_program_is_started_for_a_file(monkeypatch):
    """Pillow hands PostScript to Ghostscript, an interpreter that a stranger's file must not reach."""
    started: list[object] = []

    def record(*arguments: object, **options: object) -> None:
        started.append(arguments)
        raise OSError("started a program")

    monkeypatch.setattr(subprocess, "Popen", record)
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs", raising=False)
    refusal(encoded(RGB, "EPS"))
    assert not started


def test_decoding_in_two_threads_leaves_the_processs_warning_filters_alone(monkeypatch):
    """The engine decodes faces in one thread and paintings in another; here the second begins within the first."""
    first_is_in, second_is_in, first_is_done = (threading.Event() for _ in range(3))
    slow, quick = encoded(picture(1, 20, 20)), encoded(picture(2, 20, 20))
    plain_open = Image.open

    def staged(file: io.BytesIO, *arguments: object, **options: object) -> Image.Image:
        if file.getvalue() == slow:
            first_is_in.set()
            second_is_in.wait(0.5)
        else:
            second_is_in.set()
            first_is_done.wait(0.5)
        return plain_open(file, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Image, "open", staged)
    before = list(warnings.filters)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(decode_image, slow)
        first.add_done_callback(lambda _: first_is_done.set())
        assert first_is_in.wait(5)
        pool.submit(decode_image, quick).result()
    assert list(warnings.filters) == before


SAMPLES = [
    encoded(RGB, image_format, **options)
    for image_format, options in (
        ("PNG", {}),
        ("JPEG", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("GIF", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {}),
        ("MPO", {}),
        ("PNG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    )
] + [encoded(Image.fromarray(RGB).convert("CMYK"), "JPEG"), encoded(Image.fromarray(RGB).quantize(9), "PNG")]


@given(
    sample=st.sampled_from(SAMPLES),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=5),
    cut=st.one_of(st.just(1.0), st.floats(0, 1)),
)
@settings(max_examples=200, deadline=None)
def test_damage_raises_nothing_but_the_refusal(sample, edits, cut):
    data = bytearray(sample)
    for place, content in edits:
        # More of the damage in the header, where sizes, modes and offsets stand.
        start = int(place**3 * len(data))
        data[start : start + len(content)] = content
    damaged = bytes(data[: int(cut * len(data))])
    try:
        decoded = decode_image(damaged, max_pixels=1_000_000)
    except ImageError:
        refusal(damaged, max_pixels=1_000_000)
    else:
        plain(decoded)


def test_decoding_does_not_need_the_file_again():
    buffer = io.BytesIO(encoded(RGB))
    decoded = decode_image(buffer.getvalue())
    buffer.close()
    decoded[0, 0] = 0
    assert decoded.shape == RGB.shape
