"""Visitors' photographs: what is refused by its header alone, orientation, faces, and how a head is framed."""

import contextlib
import io
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.exhibition import photo as photo_module
from pipeline.exhibition.photo import (
    ALIGNED,
    PhotoError,
    Place,
    Portrait,
    centre_face,
    frame_head,
    read_portrait,
)
from pipeline.faces.face_box import FaceBox
from stylize.decode import decode_image
from tests.exhibition_visitors import detect, encoded, picture_of

LIMIT = 50_000_000
CELEBA = (178, 218)


def png_header(width, height):
    """A PNG that says how large it is, and little else."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", body), (b"IDAT", zlib.compress(b"\0" * 100)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )


def refusal(data, finder=detect, **options):
    with pytest.raises(PhotoError) as caught:
        read_portrait(data, finder, max_pixels=LIMIT, **options)
    return caught.value.code


# --- decoding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(10_000, 10_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1), (7072, 7072)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_photograph_of_too_many_pixels_is_refused_by_its_header(size, monkeypatch):
    def never(*args, **options):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "load", never)
    tracemalloc.start()
    assert refusal(png_header(*size)) == "too_many_pixels"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bomb_where_warnings_are_errors():
    assert refusal(png_header(10_000, 10_000)) == "too_many_pixels"


def test_a_whole_photograph_of_too_many_pixels():
    """Grey to the end, and small as a file; the limit is what refuses it."""
    picture = Image.new("L", (8000, 6500))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    assert refusal(buffer.getvalue()) == "too_many_pixels"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF"])
def test_kinds_of_pictures(kind):
    portrait = read_portrait(encoded(picture_of(2), kind), detect, max_pixels=LIMIT)
    assert (portrait.width, portrait.height, len(portrait.faces)) == (160, 200, 1)


@pytest.mark.parametrize("kind", ["TIFF", "BMP", "PPM", "PCX", "TGA"])
def test_kinds_that_are_not_read(kind):
    assert refusal(encoded(picture_of(2), kind)) == "not_an_image"


@given(st.binary(max_size=300))
@settings(max_examples=60, deadline=None)
def test_any_bytes_are_refused_in_words(data):
    for start in (b"", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBPVP8 "):
        assert refusal(start + data) in {"not_an_image", "too_many_pixels"}


@given(st.integers(0, 2000), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_damaged_photographs(at, value):
    data = bytearray(encoded(picture_of(2), "JPEG"))
    data[at % len(data)] = value
    with contextlib.suppress(PhotoError):  # and nothing else
        read_portrait(bytes(data), detect, max_pixels=LIMIT)


def test_orientation_comes_first():
    upright = np.zeros((400, 320, 3), np.uint8)
    upright[:200] = 255
    turned = Image.fromarray(np.rot90(upright))  # as a camera lying on its side has it
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "PNG", exif=exif)
    portrait = read_portrait(buffer.getvalue(), detect, max_pixels=LIMIT)
    assert (portrait.width, portrait.height) == (320, 400)
    assert portrait.pixels[:190].mean() > 250
    assert portrait.pixels[210:].mean() < 5


def test_large_photographs_are_reduced(monkeypatch):
    shown = []

    def look(picture):
        shown.append(picture.shape)
        return detect(picture)

    large = np.full((2500, 2000, 3), 99, np.uint8)
    portrait = read_portrait(encoded(large, "JPEG"), look, max_pixels=LIMIT)
    assert (portrait.width, portrait.height) == (2000, 2500)
    assert portrait.pixels.shape == (1600, 1280, 3)
    assert shown == [(640, 512, 3)]
    assert portrait.faces[0].w == pytest.approx(ALIGNED.w, rel=0.05)


def test_one_large_photograph_at_a_time(monkeypatch):
    inside, most = 0, 0
    lock = threading.Lock()
    decode = decode_image

    def counted(data, **options):
        nonlocal inside, most
        if options["max_pixels"] < LIMIT:
            return decode(data, **options)
        with lock:
            inside += 1
            most = max(most, inside)
        try:
            return decode(data, **options)
        finally:
            with lock:
                inside -= 1

    monkeypatch.setattr(photo_module, "decode_image", counted)
    monkeypatch.setattr(photo_module, "_LARGE", 1000)
    data = encoded(picture_of(2, scale=30))
    threads = [
        threading.Thread(target=read_portrait, args=(data, detect), kwargs={"max_pixels": LIMIT}) for _ in "1234"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


# --- faces ------------------------------------------------------------------------------------------


def boxes(*places):
    return lambda picture: tuple(FaceBox(x, y, x + w, y + h, 0.9) for x, y, w, h in places)


def test_faces_are_in_fractions_from_left_to_right():
    data = encoded(np.full((400, 500, 3), 90, np.uint8))
    portrait = read_portrait(data, boxes((300, 100, 100, 120), (50, 80, 90, 110)), max_pixels=LIMIT)
    assert portrait.faces == (Place(0.1, 0.2, 0.18, 0.275), Place(0.6, 0.25, 0.2, 0.3))


def test_passers_by_are_left_out():
    data = encoded(np.full((400, 500, 3), 90, np.uint8))
    portrait = read_portrait(data, boxes((10, 100, 50, 60), (200, 80, 160, 200)), max_pixels=LIMIT)
    assert [face.x for face in portrait.faces] == [0.4]


def test_no_face_and_small_faces():
    data = encoded(np.full((400, 500, 3), 90, np.uint8))
    assert refusal(data, boxes()) == "no_face"
    assert refusal(data, boxes((5, 5, 0, 9), (9, 9, -5, 5))) == "no_face"  # no boxes at all
    assert refusal(data, boxes((10, 10, 20, 24))) == "face_too_small"


# --- framing ----------------------------------------------------------------------------------------


def portrait_of(pixels, face):
    return Portrait(pixels, pixels.shape[1], pixels.shape[0], (face,))


def test_an_aligned_picture_is_framed_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (218, 178, 3), np.uint8)
    head = frame_head(portrait_of(pixels, ALIGNED), 0, CELEBA)
    np.testing.assert_array_equal(head.permute(1, 2, 0).numpy(), pixels)


@given(
    st.floats(0.2, 3),
    st.floats(-100, 400),
    st.floats(-100, 400),
    st.sampled_from([CELEBA, (112, 112), (89, 109), (16, 20)]),
)
@settings(max_examples=60, deadline=None)
def test_the_frame_moves_and_grows_with_the_face(scale, left, top, size):
    """A picture whose colours say where they are: red is x, green is y, so every cut says what it shows."""
    height, width = 300, 400
    across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    pixels = np.stack([across / width * 255, down / height * 255, np.zeros_like(down)], axis=2).round().astype(np.uint8)
    head = Place(left, top, CELEBA[0] * scale, CELEBA[1] * scale)
    face = Place(left + ALIGNED.x * head.w, top + ALIGNED.y * head.h, ALIGNED.w * head.w, ALIGNED.h * head.h).scaled(
        1 / width, 1 / height
    )
    cut = frame_head(portrait_of(pixels, face), 0, size).double().numpy()
    assert cut.shape == (3, size[1], size[0])
    part = min(head.w / size[0], head.h / size[1])
    xs = head.x + (head.w - part * size[0]) / 2 + (np.arange(size[0]) + 0.5) * part
    ys = head.y + (head.h - part * size[1]) / 2 + (np.arange(size[1]) + 0.5) * part
    expected = np.clip(xs / width, 0, 1) * 255, np.clip(ys / height, 0, 1) * 255  # edges go on
    inside = [(values > 2 + 4 * part) & (values < 253 - 4 * part) for values in expected]
    for channel, (values, sure) in enumerate(zip(expected, inside, strict=True)):
        lines = cut[channel].mean(axis=channel)
        beyond = (values <= 0) | (values >= 255)
        assert np.abs(lines - values)[sure].max(initial=0) < 2
        assert np.abs(lines - values)[beyond].max(initial=0) < 2 + 4 * part


def test_boxes_of_other_shapes_give_the_same_head():
    """Detectors differ in how much of forehead and chin they take in; area and centre decide."""
    pixels = np.random.default_rng(0).integers(0, 256, (436, 356, 3), np.uint8)
    wide = Place(ALIGNED.x - 0.1 * ALIGNED.w, 0, 1.2 * ALIGNED.w, ALIGNED.h / 1.2)
    wide = Place(wide.x, ALIGNED.y + (ALIGNED.h - wide.h) / 2, wide.w, wide.h)
    one, other = (frame_head(portrait_of(pixels, face), 0, CELEBA).double() for face in (ALIGNED, wide))
    assert (one - other).abs().max() <= 1


@pytest.mark.parametrize("shape", [(218, 178), (300, 800), (800, 300), (436, 356)])
def test_the_middle_for_a_face(shape):
    """Without a detector the head is the largest of Celeb-A's shape in the middle."""
    height, width = shape
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    (face,) = centre_face(pixels)
    place = Place(face.left, face.top, face.right - face.left, face.bottom - face.top).scaled(1 / width, 1 / height)
    head = frame_head(portrait_of(pixels, place), 0, CELEBA).permute(1, 2, 0).numpy()
    scale = min(width / 178, height / 218)
    box = ((width - 178 * scale) / 2, (height - 218 * scale) / 2, (width + 178 * scale) / 2, (height + 218 * scale) / 2)
    expected = Image.fromarray(pixels).resize(CELEBA, Image.Resampling.LANCZOS, box=box)
    assert np.abs(head.astype(int) - np.asarray(expected)).max() <= 1
