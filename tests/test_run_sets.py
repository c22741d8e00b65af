"""The two sides of a run: the same faces in the same order, each with its own pictures."""

import hashlib
import shutil

import numpy as np
import pyarrow as pa
import pytest
import torch

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval.face_set import FACE_SET_SCHEMA
from pipeline.retrieval.run_sets import photographs_of_run, proxies_of_run
from pipeline.training.run_faces import RunFaces
from stylize.decode import decode_image
from tests.labelled_run import HEIGHT, WIDTH, people, photograph, proxy, write_labelled_run
from tests.small_run import A, write_run

COUNTS = {"train": [3, 1, 4], "valid": [2, 2], "test": [2, 3]}
FACES = people(COUNTS)
WANTED = [12, 0, 7, 14]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    write_labelled_run(folder, COUNTS)
    return folder


def pictures(draw, indices):
    return torch.from_numpy(np.stack([draw(*FACES[index][2:]) for index in indices])).permute(0, 3, 1, 2)


def test_both_sides(place):
    run = RunFaces.open(place / "run")
    photographs, proxies = photographs_of_run(run, WANTED), proxies_of_run(run, WANTED)
    for faces, draw in ((photographs, photograph), (proxies, proxy)):
        assert faces.table.schema.equals(FACE_SET_SCHEMA)
        assert faces.table["id"].to_pylist() == faces.table["source_id"].to_pylist()
        assert faces.table["id"].to_pylist() == [FACES[index][0] for index in WANTED]
        assert faces.table["identity"].to_pylist() == [str(FACES[index][2]) for index in WANTED]
        bits = np.stack([faces.table[name].to_numpy() for name in ATTRIBUTES], axis=1)
        assert bits.astype(int).tolist() == run.attributes[WANTED].tolist()
        assert faces.size == (WIDTH, HEIGHT)
        assert torch.equal(faces.load([3, 0, 1]), pictures(draw, [WANTED[at] for at in (3, 0, 1)]))
        assert torch.equal(faces.take([2, 3]).load([1]), pictures(draw, [WANTED[3]]))


def test_a_proxy_is_where_its_locator_says_and_has_its_digest(place):
    run = RunFaces.open(place / "run")
    faces = proxies_of_run(run, range(len(run)))
    for index, row in enumerate(faces.table.select(["locator", "version"]).to_pylist()):
        encoded = faces.source.read(row["locator"])
        assert row["version"] == hashlib.sha256(encoded).hexdigest()
        assert np.array_equal(decode_image(encoded), proxy(*FACES[index][2:]))


def test_unknown_identities_and_attributes_are_null(tmp_path):
    run = RunFaces.open(write_run(tmp_path / "run", {"train": [A] * 4}).url)
    table = proxies_of_run(run, [0, 1, 2, 3]).table
    assert table["identity"].to_pylist() == [None, "0", "1", None]
    assert {None, True, False} == {value for name in ATTRIBUTES for value in table[name].to_pylist()}


def test_photographs_are_looked_for_when_they_are_loaded(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    run = RunFaces.open(tmp_path / "run", faces=tmp_path / "nowhere")
    faces = photographs_of_run(run, [0, 1])
    assert len(faces) == 2
    assert proxies_of_run(run, [1]).load([0]).shape == (1, 3, HEIGHT, WIDTH)
    with pytest.raises(InputError, match="say where they are with --faces"):
        faces.load([0])


def test_no_face_at_all(place):
    run = RunFaces.open(place / "run")
    for faces in (photographs_of_run(run, []), proxies_of_run(run, np.array([], np.int64))):
        assert faces.table.equals(pa.Table.from_pylist([], FACE_SET_SCHEMA))
        assert len(faces) == 0
