"""Contact sheets and the triples on them, from a run whose proxies the stub engine made."""

import numpy as np
import pytest
from PIL import Image

from manifests.errors import InputError
from manifests.run import RunDirectory
from pipeline import build as build_module
from pipeline import shard_task
from pipeline.contact_sheet import contact_sheet
from pipeline.network import NetworkReference
from pipeline.run_inputs import open_inputs
from pipeline.triples import Triple, sample_triples
from tests.command_line import succeed
from tests.real_run import local_cluster, rows_of
from tests.small_inputs import write_faces, write_paintings
from tests.stub_engine import StubEngine


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheet")
    write_faces(folder / "faces", 16)
    write_paintings(folder / "paintings", 12)
    with pytest.MonkeyPatch.context() as patch, local_cluster() as cluster:
        patch.setattr(
            build_module, "reference", lambda source, seed, *_: NetworkReference(source, seed, "0" * 64, None)
        )
        patch.setattr(shard_task, "repaint_shard", StubEngine())
        inputs = ("--faces", folder / "faces", "--paintings", folder / "paintings", "--weights", "random")
        succeed("build", folder / "OUT", *inputs, "--scheduler", cluster.scheduler_address, "--shard-size", 3)
    return folder


@pytest.fixture(scope="module")
def run(place):
    return RunDirectory.open(place / "OUT")


@pytest.fixture(scope="module")
def inputs(run):
    return open_inputs(run, None, None)


def test_a_triple_is_face_painting_and_proxy_of_one_row(place, run, inputs):
    rows = {row["image_id"]: row for row in rows_of(place / "OUT") if row["status"] == "accepted"}
    triples = sample_triples(run, inputs, 99)
    assert [triple.row["image_id"] for triple in triples] == sorted(rows)
    for triple in triples:
        row = rows[triple.row["image_id"]]
        assert triple.face.shape == triple.painting.shape == triple.proxy.shape == (20, 16, 3)
        with Image.open(place / "faces/img_align_celeba" / row["image_id"]) as image:
            assert np.array_equal(triple.face, np.asarray(image.convert("RGB")))
        with Image.open(place / "paintings" / row["painting"]) as image:
            assert tuple(triple.painting[0, 0]) == image.getpixel((0, 0))
        # The stub paints the whole proxy in the loss: a proxy of a neighbouring row would show.
        assert tuple(triple.proxy[0, 0]) == (int(row["loss"]), 0, 0)


def test_a_sample_is_seeded_and_without_repetition(run, inputs):
    def ids(count, seed):
        return [triple.row["image_id"] for triple in sample_triples(run, inputs, count, seed)]

    assert ids(4, 0) == ids(4, 0)
    assert len({tuple(ids(4, seed)) for seed in range(5)}) > 1
    assert len(set(ids(6, 3))) == 6


def test_other_inputs_than_the_runs_are_refused(place, run, tmp_path):
    write_paintings(tmp_path / "other", 12)
    next((tmp_path / "other").rglob("*.png")).unlink()
    with pytest.raises(InputError, match=r'paintings at ".*other" are not those'):
        open_inputs(run, None, tmp_path / "other")
    with pytest.raises(InputError, match=r"faces of this run are not at .*nowhere; say where they are with --faces"):
        open_inputs(run, tmp_path / "nowhere", None)
    # A copy of the same inputs is the same inputs.
    assert open_inputs(run, write_faces(tmp_path / "copy", 16), None).faces.digest


def triples_of(*sizes):
    def picture(size, shade):
        return np.full((size[1], size[0], 3), shade, np.uint8)

    return [
        Triple(
            {"image_id": f"{number:06d}.jpg", "loss": 1.25 * number, "painting": "S/" + "long-title-" * 30},
            *(picture(size, shade) for shade in ((250, 0, 0), (0, 250, 0), (0, 0, 250))),
        )
        for number, size in enumerate(sizes)
    ]


def tile_colours(sheet):
    pixels = np.asarray(sheet).reshape(-1, 3)
    return [int((pixels == colour).all(axis=1).sum()) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]


@pytest.mark.parametrize(("count", "columns"), [(1, 3), (3, 3), (4, 3), (5, 1), (2, 9)])
def test_every_picture_is_on_the_sheet_once(count, columns):
    sheet = contact_sheet(triples_of(*[(20, 30)] * count), columns)
    scale = round(218 / 30)
    assert tile_colours(sheet) == [count * 20 * 30 * scale**2] * 3
    assert sheet.mode == "RGB"


def test_large_pictures_are_not_enlarged():
    assert tile_colours(contact_sheet(triples_of((300, 400)), 1)) == [300 * 400] * 3


def test_pictures_of_several_sizes_keep_their_shape():
    """The first sets the grid; the others must be neither stretched nor cut."""
    sheet = contact_sheet(triples_of((40, 40), (40, 20)), 2)
    assert tile_colours(sheet) == [200**2 + 200 * 100] * 3


def test_captions_stay_in_their_cells():
    """An id of sixty characters and a painting of three hundred must not run into the neighbour."""
    wide = contact_sheet(triples_of((20, 30), (20, 30)), 2)
    alone = contact_sheet(triples_of((20, 30)), 1)
    cell = alone.width
    assert np.array_equal(np.asarray(wide)[:, :cell], np.asarray(alone))


def test_names_in_any_script():
    (triple,) = triples_of((20, 30))
    named = Triple(
        {**triple.row, "painting": "浮世絵/葛飾-北斎_神奈川沖浪裏.jpg"}, triple.face, triple.painting, triple.proxy
    )
    contact_sheet([named])
