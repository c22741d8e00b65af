"""The contact sheet of a search: what it shows of every hit, and that nothing leaves its place."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval.explanation import Explanation, SideExplanation
from pipeline.retrieval.integrated_gradients import integrated_gradients
from pipeline.retrieval.search_result import Hit, SearchResult
from pipeline.retrieval.search_sheet import search_sheet, write_search_sheet

BLUE, ORANGE, GREEN, RED, PAPER = (0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (250, 249, 246)
WIDTH, HEIGHT = 89, 109


def flat(colour, width=WIDTH, height=HEIGHT):
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


def hit(rank, identity=0.5, attributes: float | None = 0.75, name=None):
    score = identity + 0.2 * (attributes or 0)
    return Hit(rank, rank - 1, name or f"{rank:06d}.jpg", "s", None, score, identity, attributes, ("Male",))


def result(hits, **changes):
    made = SearchResult(
        photo="/somewhere/me.jpg",
        picture=flat((1, 2, 3)),
        index="index",
        gallery="drawn faces",
        model="tiny, bare",
        items=50,
        searched=50,
        weight=0.2,
        engine="exact",
        with_=(),
        without=(),
        liked=(),
        unliked=(),
        feedback=None,
        attributes=ATTRIBUTES,
        seen=("Smiling", "Young"),
        untrained=(),
        hits=tuple(hits),
        thumbnail=lambda item: flat((250 - 10 * item, 20, 10 * item)),
    )
    return dataclasses.replace(made, **changes)


def explained(of, spot=(20, 30)):
    """A hit for whose match a square of pixels speaks, on both sides."""
    mask = torch.zeros(3, HEIGHT, WIDTH)
    mask[:, spot[0] : spot[0] + 20, spot[1] : spot[1] + 20] = 1e-3
    white = torch.ones(3, HEIGHT, WIDTH)
    attribution = integrated_gradients(lambda pictures: (pictures * mask).sum(dim=(1, 2, 3)), white, steps=2)
    side = SideExplanation(attribution, None)
    return dataclasses.replace(of, explanation=Explanation(side, side, 0.2))


def pixels(sheet):
    return np.asarray(sheet).astype(int)


def of_colour(sheet, colour):
    return (pixels(sheet) == colour).all(axis=2)


def longest_run(mask):
    """Length of the longest row of true pixels."""
    best = 0
    for row in mask[mask.any(axis=1)]:
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        best = max(best, int((edges[1::2] - edges[::2]).max()))
    return best


def test_every_picture_is_there_in_the_order_of_the_ranking():
    sheet = search_sheet(result([hit(rank) for rank in range(1, 8)]), columns=3)
    assert sheet.mode == "RGB"
    assert of_colour(sheet, (1, 2, 3)).sum() == 327 * round(WIDTH * 327 / HEIGHT)
    corners = []
    for item in range(7):
        rows, columns = np.nonzero(of_colour(sheet, (250 - 10 * item, 20, 10 * item)))
        assert len(rows) == 218 * 178
        corners.append((rows.min(), columns.min()))
    assert corners == sorted(corners)  # row by row, left to right
    assert len({row for row, _ in corners}) == 3
    assert len({column for _, column in corners}) == 3


@pytest.mark.parametrize("columns", [1, 4, 100])
@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_any_number_of_hits(count, columns):
    sheet = search_sheet(result([hit(rank) for rank in range(1, count + 1)]), columns=columns)
    for item in range(count):
        assert of_colour(sheet, (250 - 10 * item, 20, 10 * item)).sum() == 218 * 178
    edge = pixels(sheet)
    for side in (edge[:8], edge[-8:], edge[:, :8], edge[:, -8:]):
        assert (side == PAPER).all()


def test_bars_are_as_long_as_scores():
    def bars(identity, attributes):
        sheet = search_sheet(result([hit(1, identity, attributes)]))
        legend = 23  # pixels of colour beside the words
        return [
            length if (length := longest_run(of_colour(sheet, colour))) > legend else 0 for colour in (BLUE, ORANGE)
        ]

    full, _ = bars(1.0, 0.5)
    for value in (0.25, 0.5, 0.8):
        blue, orange = bars(value, value)
        assert blue == pytest.approx(value * full, abs=2)
        assert orange == pytest.approx(value * full, abs=2)
    assert bars(1.7, -0.2) == [full, 0]  # feedback may take a score out of its range; the bar stays in its place


def test_without_attributes_there_is_no_bar_for_them():
    sheet = search_sheet(result([hit(1, attributes=None)], attributes=(), seen=()))
    assert not of_colour(sheet, ORANGE).any()
    assert of_colour(sheet, BLUE).any()


def test_judged_hits_are_framed():
    hits = [hit(rank) for rank in range(1, 5)]
    sheet = search_sheet(result(hits, liked=("000001.jpg", "000009.jpg"), unliked=("000003.jpg",)))
    for colour, item in ((GREEN, 0), (RED, 2)):
        rows, columns = np.nonzero(of_colour(sheet, (250 - 10 * item, 20, 10 * item)))
        frame_rows, frame_columns = np.nonzero(of_colour(sheet, colour))
        assert (frame_rows.min(), frame_rows.max()) == (rows.min() - 4, rows.max() + 4)
        assert (frame_columns.min(), frame_columns.max()) == (columns.min() - 4, columns.max() + 4)
    plain = search_sheet(result(hits))
    assert not of_colour(plain, GREEN).any()
    assert not of_colour(plain, RED).any()


def test_explained_hits_show_what_speaks_for_them():
    plain = search_sheet(result([hit(1), hit(2), hit(3)]))
    sheet = search_sheet(result([explained(hit(1)), hit(2), explained(hit(3))]))
    below = pixels(sheet)[plain.height :]
    assert len(below) > 196
    glowing = (below[..., 0] > 150) & (below[..., 2] < 100)  # the bright end of the map is yellow
    columns = np.flatnonzero(glowing.any(axis=0))
    assert len(np.split(columns, np.flatnonzero(np.diff(columns) > 40) + 1)) == 4  # two pairs
    assert (pixels(sheet)[: plain.height - 60] == pixels(plain)[: plain.height - 60]).all()


def test_more_pairs_than_fit_side_by_side():
    few, many = (search_sheet(result([explained(hit(rank)) for rank in range(1, 1 + n)]), columns=2) for n in (1, 8))
    assert many.height > few.height + 2 * 196
    assert (pixels(many)[:, -8:] == PAPER).all()


@pytest.mark.parametrize(
    "name", ["a/very/long/path/" * 8 + "face.png", "портрет.jpg", "顔.png", "a b", "\u200b", "x" * 300]
)
def test_names_stay_in_their_place(name):
    sheet = search_sheet(result([explained(hit(1, name=name)), hit(2)], photo=f"/p/{name.replace('/', '-')}"))
    plain = search_sheet(result([explained(hit(1)), hit(2)]))
    assert sheet.width == plain.width
    assert (pixels(sheet)[:, -8:] == PAPER).all()
    rows, columns = np.nonzero(of_colour(sheet, (250, 20, 0)))
    after = pixels(sheet)[rows.max() + 1 : rows.max() + 30, columns.max() + 1 : columns.max() + 10]
    assert (after == PAPER).all()  # between this caption and the next


def test_many_attributes_make_room_for_themselves():
    short = search_sheet(result([hit(1)], seen=()))
    tall = search_sheet(result([hit(1)], seen=ATTRIBUTES))
    assert tall.height > short.height
    assert (pixels(tall)[-8:] == PAPER).all()


@pytest.mark.parametrize(("width", "height"), [(100, 100), (200, 50), (16, 160), (178, 218)])
def test_pictures_of_any_shape(width, height):
    sheet = search_sheet(
        result(
            [hit(1), hit(2), hit(3)],
            picture=flat((1, 2, 3), width, height),
            thumbnail=lambda item: flat((250 - 10 * item, 20, 10 * item), width, height),
        )
    )
    for item in range(3):
        assert of_colour(sheet, (250 - 10 * item, 20, 10 * item)).sum() == 218 * round(width * 218 / height)


def test_a_picture_that_is_gone():
    def gone(item):
        raise InputError("the picture cannot be read any more")

    with pytest.raises(InputError, match="cannot be read any more"):
        search_sheet(result([hit(1)], thumbnail=gone))


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    place = tmp_path / "sheet.png"
    write_search_sheet(result([hit(1)]), place)
    before = place.read_bytes()
    np.testing.assert_array_equal(np.asarray(Image.open(place)), np.asarray(search_sheet(result([hit(1)]))))

    def gone(item):
        raise InputError("the picture cannot be read any more")

    with pytest.raises(InputError):
        write_search_sheet(result([hit(1)], thumbnail=gone), place)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("manifests.commit._write_durably", full)
    with pytest.raises(OSError, match="No space left"):
        write_search_sheet(result([hit(1), hit(2)]), place)
    assert place.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
