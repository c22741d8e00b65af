"""Faces of a folder: what the catalogue knows, in every form that it comes in, and versions that tell a change."""

import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.faces import read_faces
from pipeline.retrieval.face_set import FACE_SET_SCHEMA
from pipeline.retrieval.folder_sets import faces_of_folder
from stylize.decode import decode_image
from stylize.fit import cover
from tests.labelled_run import write_labelled_run
from tests.small_inputs import write_faces

SIZE = (36, 44)
SIDES = (40, 50)


def expected(encoded):
    return torch.from_numpy(np.stack([cover(decode_image(data), *SIZE) for data in encoded])).permute(0, 3, 1, 2)


def picture(seed, width=SIDES[0], height=SIDES[1]):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_celeba_copy(tmp_path):
    root = write_faces(tmp_path, 8, SIDES)
    faces = faces_of_folder(root, size=SIZE)
    catalogue = read_faces(root).table
    assert faces.table.schema.equals(FACE_SET_SCHEMA)
    assert faces.size == SIZE
    assert str(root) in faces.title
    assert faces.table["id"].to_pylist() == faces.table["source_id"].to_pylist() == catalogue["image_id"].to_pylist()
    assert faces.table["identity"].to_pylist() == [str(identity) for identity in catalogue["identity"].to_pylist()]
    for name in ATTRIBUTES:
        assert faces.table[name].to_pylist() == catalogue[name].to_pylist()
    paths = [root / "img_align_celeba" / name for name in faces.table["id"].to_pylist()]
    assert faces.table["version"].to_pylist() == [str(path.stat().st_size) for path in paths]
    assert torch.equal(faces.load([6, 1]), expected([paths[6].read_bytes(), paths[1].read_bytes()]))


def test_celebas_own_size_by_default(tmp_path):
    faces = faces_of_folder(write_faces(tmp_path, 4, SIDES))
    assert faces.size == (178, 218)
    assert faces.load([0]).shape == (1, 3, 218, 178)


def test_a_plain_folder_knows_nobody(tmp_path):
    for number, name in enumerate(("b/2.png", "a.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(number))
    faces = faces_of_folder(tmp_path, size=SIZE)
    assert faces.table["id"].to_pylist() == ["a.png", "b/2.png"]
    assert faces.table["identity"].null_count == faces.table["Smiling"].null_count == 2
    assert torch.equal(faces.load([1, 0]), expected([picture(0), picture(1)]))
    assert faces.source.read(faces.table["locator"][0].as_py()) == picture(1)


def test_a_zip_archive(tmp_path):
    root = write_faces(tmp_path / "faces", 4, SIDES)
    whole = faces_of_folder(root, size=SIZE)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as archive:
        for path in sorted((root / "img_align_celeba").iterdir()):
            archive.write(path, f"img_align_celeba/{path.name}")
            path.unlink()
    packed = faces_of_folder(root / "img_align_celeba.zip", size=SIZE)
    assert packed.source.kind == "zip"
    assert packed.table.drop(["locator"]).equals(whole.table.drop(["locator"]))
    assert packed.load(range(4)).shape == (4, 3, SIZE[1], SIZE[0])


def write_parquet(path: Path, seeds: list[int], **columns: list[object]) -> None:
    images = [{"bytes": picture(seed), "path": f"{900 - seed:03d}.png"} for seed in seeds]
    pq.write_table(pa.table({"image": images, **columns}), path, row_group_size=3)


def test_parquet_is_read_as_it_is_stored(tmp_path):
    """The catalogue sorts by split and name, which here is backwards; the set does not."""
    write_parquet(tmp_path / "b.parquet", [20, 21])
    write_parquet(tmp_path / "a.parquet", list(range(8)), celeb_id=[5, 5, None, 1, 1, 1, 2, 2], Smiling=[True] * 8)
    faces = faces_of_folder(tmp_path, size=SIZE)
    seeds = [*range(8), 20, 21]
    assert faces.table["id"].to_pylist() == [f"{900 - seed:03d}.png" for seed in seeds]
    assert faces.table["identity"].to_pylist() == ["5", "5", None, "1", "1", "1", "2", "2", None, None]
    assert faces.table["Smiling"].to_pylist() == [True] * 8 + [None] * 2
    assert faces.table["version"].to_pylist() == [hashlib.sha256(picture(seed)).hexdigest() for seed in seeds]
    order = [9, 0, 7, 3]
    assert torch.equal(faces.load(order), expected([picture(seeds[at]) for at in order]))


def test_versions_tell_a_change_of_the_picture_alone(tmp_path):
    write_parquet(tmp_path / "before.parquet", [1, 2])
    write_parquet(tmp_path / "after.parquet", [2, 1, 3])  # rows were moved and one was added
    before, after = (
        faces_of_folder(tmp_path / name).table.select(["id", "version"]).to_pylist()
        for name in ("before.parquet", "after.parquet")
    )
    assert after == [*reversed(before), after[2]]


def test_a_run_is_no_folder_of_faces(tmp_path):
    run = write_labelled_run(tmp_path, {"train": [2]})
    with pytest.raises(InputError, match="is a built run, not a folder of faces"):
        faces_of_folder(run)


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        faces_of_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no images"):
        faces_of_folder(tmp_path)


def test_a_picture_too_small_is_named_when_it_is_loaded(tmp_path):
    (tmp_path / "icon.png").write_bytes(picture(0, 31, 200))
    faces = faces_of_folder(tmp_path)
    with pytest.raises(InputError, match=r'"icon.png" .* 31x200 pixels are too small to show a face'):
        faces.load([0])


def test_parquet_without_the_bytes(tmp_path):
    images = pa.array([{"bytes": picture(0), "path": "a"}, {"bytes": None, "path": "b"}])
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="holds no image bytes in row 1"):
        faces_of_folder(tmp_path)


@pytest.mark.data
@pytest.mark.skipif("STYLIZE_TEST_DATA" not in os.environ, reason="STYLIZE_TEST_DATA is not set")
def test_research_data():
    root = Path(os.environ["STYLIZE_TEST_DATA"])
    celeba, lfw = faces_of_folder(root / "celeba"), faces_of_folder(root / "lfw")
    assert len(celeba) == 1094
    assert celeba.table["identity"].null_count == celeba.table["Smiling"].null_count == 0
    assert len(lfw) == 400
    for faces in (celeba, lfw):
        assert faces.load([0, len(faces) - 1]).shape == (2, 3, 218, 178)
