"""The faces of a run: right labels, right pictures, and refusals that say what is wrong."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from manifests import shard
from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.faces import read_faces
from manifests.run import RunDirectory
from pipeline.training import ranks, run_faces
from pipeline.training.run_faces import RunFaces
from stylize.fit import cover
from tests.labelled_run import HEIGHT, WIDTH, people, photograph, proxy, write_labelled_run
from tests.small_run import MIXED, write_run

COUNTS = {"train": [3, 1, 4, 2], "valid": [2, 3], "test": [2, 2]}
FACES = people(COUNTS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """19 faces in shards of 7, row groups of 3."""
    folder = tmp_path_factory.mktemp("labelled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard, "ROW_GROUP_ROWS", 3)
        write_labelled_run(folder, COUNTS)
    return folder


@pytest.fixture
def copy(place, tmp_path):
    shutil.copytree(place, tmp_path / "copy")
    return tmp_path / "copy"


def pictures(draw, indices):
    return torch.from_numpy(np.stack([draw(*FACES[index][2:]) for index in indices])).permute(0, 3, 1, 2)


def test_labels(place):
    faces = RunFaces.open(place / "run")
    assert len(faces) == len(FACES)
    assert faces.table.column_names == ["image_id", "source_id", "split", "identity"]
    assert faces.table["image_id"].to_pylist() == faces.table["source_id"].to_pylist() == [face[0] for face in FACES]
    assert faces.identities.tolist() == [face[2] for face in FACES]
    assert len(set(faces.sources.tolist())) == len(FACES)
    assert faces.splits == ("train", "valid", "test")
    assert faces.indices("valid").tolist() == faces.labelled("valid").tolist() == list(range(10, 15))
    assert faces.size == (WIDTH, HEIGHT)
    rows = [row for path in sorted((place / "run/manifest").glob("*")) for row in pq.read_table(path).to_pylist()]
    by_id = {row["image_id"]: [int(row[name]) for name in ATTRIBUTES] for row in rows}
    assert faces.attributes.dtype == np.int8
    assert faces.attributes.tolist() == [by_id[face[0]] for face in FACES]


@pytest.mark.parametrize("cached_bytes", [0, 1 << 30])
def test_pictures_are_those_of_the_indices(place, monkeypatch, cached_bytes):
    monkeypatch.setattr(run_faces, "_CACHED_BYTES", cached_bytes)
    faces = RunFaces.open(place / "run")
    for indices in (range(len(FACES)), [18, 0, 7, 7, 6, 2], np.array([11]), []):
        assert faces.proxies(indices).dtype == faces.photographs(indices).dtype == torch.uint8
        assert faces.proxies(indices).shape == (len(indices), 3, HEIGHT, WIDTH)
        if len(indices):
            assert torch.equal(faces.proxies(indices), pictures(proxy, indices))
            assert torch.equal(faces.photographs(indices), pictures(photograph, indices))
    assert len(faces._proxies._groups) == (1 if cached_bytes == 0 else 8)


def test_a_row_group_is_read_once_for_a_batch_and_kept(place, monkeypatch):
    """Nineteen faces: two shards of training with three and one row groups of three, one of each other split."""
    read = []
    real = run_faces._images

    def images(parquet, group):
        read.append(group)
        return real(parquet, group)

    monkeypatch.setattr(run_faces, "_images", images)
    mixed = np.random.default_rng(0).permutation(len(FACES))
    faces = RunFaces.open(place / "run")
    assert torch.equal(faces.proxies(mixed), pictures(proxy, mixed))
    assert len(read) == 8
    faces.proxies(mixed[::-1])
    assert len(read) == 8
    monkeypatch.setattr(run_faces, "_CACHED_BYTES", 0)
    faces = RunFaces.open(place / "run")
    read.clear()
    assert torch.equal(faces.proxies([*mixed, *mixed]), pictures(proxy, [*mixed, *mixed]))
    assert len(read) == 8


def test_what_was_used_last_stays(place, monkeypatch):
    faces = RunFaces.open(place / "run")
    for index in (0, 3, 0):  # row groups 0, 1, 0 of one file
        faces.proxies([index])
    held = faces._proxies
    assert held._held == sum(images.nbytes for images in held._groups.values())
    held._room = held._held
    faces.proxies([6])
    assert [group for _, group in held._groups] == [0, 2]
    assert held._held == sum(images.nbytes for images in held._groups.values())


def test_memory_for_proxies_is_a_share_of_what_is_free(monkeypatch):
    monkeypatch.setattr(run_faces, "free_memory", lambda: 1 << 30)
    assert run_faces._cache_bytes() == 1 << 28
    monkeypatch.setattr(ranks, "world_size", lambda: 4)
    assert run_faces._cache_bytes() == 1 << 26
    monkeypatch.setattr(run_faces, "free_memory", lambda: 1 << 40)
    assert run_faces._cache_bytes() == 4 << 30


def test_threads_share_the_proxies(place, monkeypatch):
    monkeypatch.setattr(run_faces, "_CACHED_BYTES", 2000)  # so that row groups come and go
    faces = RunFaces.open(place / "run")
    orders = [np.random.default_rng(seed).permutation(len(FACES)) for seed in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(faces.proxies, orders))
    assert all(torch.equal(one, pictures(proxy, order)) for one, order in zip(found, orders, strict=True))
    held = faces._proxies
    assert held._held == sum(images.nbytes for images in held._groups.values())


def test_folders_inside_the_run_are_refused(place, tmp_path):
    faces = RunFaces.open(place / "run")
    (tmp_path / "link").symlink_to(place / "run")
    for inside in (place / "run", place / "run/training/one", tmp_path / "link/training", f"file://{place}/run/x"):
        with pytest.raises(InputError, match="lies inside the run"):
            faces.refuse_folder_inside(inside)
    for outside in (place, place / "run2", place / "run/../training", "memory://run/training"):
        faces.refuse_folder_inside(outside)


def test_faces_without_a_proxy_are_left_out(tmp_path):
    write_run(tmp_path, MIXED)
    faces = RunFaces.open(tmp_path)
    accepted = [at for at, status in enumerate(MIXED["train"]) if status == "accepted"]
    ids = [f"{number:06d}.jpg" for number in [*accepted, 1000, 1001, 1002, 2000]]
    assert faces.table["image_id"].to_pylist() == ids
    assert faces.identities[:3].tolist() == [-1, 1, 2]
    assert set(np.unique(faces.attributes)) == {-1, 0, 1}
    assert faces.proxies([3, 0]).shape == (2, 3, 9, 7)
    known = faces.labelled("train")
    assert set(faces.identities[known]) == {1, 2, 3}
    assert set(known) < set(faces.indices("train"))


def test_photographs_are_fitted_as_the_engine_fitted_them(copy):
    """The catalogue's digest knows a file by its size in bytes, so a larger picture must come with its own digest."""
    large = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(large).save(copy / "faces/img_align_celeba" / FACES[4][0])
    with pytest.raises(InputError, match=r'faces at ".*" are not those that the run was made from'):
        RunFaces.open(copy / "run", faces=copy / "faces").photographs([4])
    run = RunDirectory.open(copy / "run")
    text = (copy / "run/run.json").read_text()
    digest = read_faces(copy / "faces").digest
    (copy / "run/run.json").write_text(text.replace(run.content["inputs"]["faces"]["digest"], digest))
    found = RunFaces.open(copy / "run", faces=copy / "faces").photographs([4])
    assert torch.equal(found[0], torch.tensor(cover(large, WIDTH, HEIGHT)).permute(2, 0, 1))


def test_fingerprint_is_of_the_data_alone(place, copy, tmp_path):
    original = RunFaces.open(place / "run").fingerprint
    assert RunFaces.open(copy / "run").fingerprint == original
    write_labelled_run(tmp_path / "other", {**COUNTS, "test": [2, 3]})
    assert RunFaces.open(tmp_path / "other/run").fingerprint != original
    path = next((copy / "run/manifest").glob("train-00000*"))
    table = pq.read_table(path)
    column = table.column_names.index("sha256")
    changed = pc.replace_substring_regex(table["sha256"], "^.", "x")
    pq.write_table(table.set_column(column, table.schema.field(column), changed), path)
    assert RunFaces.open(copy / "run").fingerprint != original


def test_what_cannot_be_used_is_refused(place, copy, tmp_path):
    with pytest.raises(InputError, match=r"no run\.json"):
        RunFaces.open(tmp_path / "nothing")
    write_run(tmp_path / "rejected", {"train": ["rejected"] * 3})
    with pytest.raises(InputError, match="no accepted proxy; stylize status"):
        RunFaces.open(tmp_path / "rejected")
    write_run(tmp_path / "mixed", MIXED)
    with pytest.raises(InputError, match=r"faces of this run are not at None; say where they are with --faces"):
        RunFaces.open(tmp_path / "mixed").photographs([0])
    with pytest.raises(InputError, match=r"not at .*gone; say where"):
        RunFaces.open(place / "run", faces=tmp_path / "gone").photographs([0])
    faces = RunFaces.open(copy / "run", faces=copy / "faces")
    faces.photographs([0])
    (copy / "faces/img_align_celeba" / FACES[1][0]).unlink()
    with pytest.raises(InputError, match=rf'"{FACES[1][0]}" in .* cannot be read any more'):
        faces.photographs([0, 1])


def test_damage_is_named(copy):
    path = copy / "run/data/train-00000-of-00002.parquet"
    path.write_bytes(path.read_bytes().replace(b"\x89PNG", b"\x00PNG"))
    with pytest.raises(InputError, match=r'row 2 of "data/train-00000-of-00002.parquet" .* run stylize verify'):
        RunFaces.open(copy / "run").proxies([2])
    path.unlink()
    with pytest.raises(InputError, match="cannot be read; run stylize verify"):
        RunFaces.open(copy / "run").proxies([2])
    other = next((copy / "run/data").glob("test-*"))
    shutil.copy(other, path)  # four rows where the manifest has seven
    with pytest.raises(InputError, match=r"row 5 of"):
        RunFaces.open(copy / "run").proxies([5])
    (copy / "run/manifest/valid-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r'"manifest/valid-00000-of-00001.parquet" .* cannot be read'):
        RunFaces.open(copy / "run")


def test_unfinished_run_must_be_asked_for(copy):
    (copy / "run/manifest/train-00001-of-00002.parquet").unlink()
    with pytest.raises(InputError, match=r"1 of the 4 shards of .* are not committed yet"):
        RunFaces.open(copy / "run")
    faces = RunFaces.open(copy / "run", partial=True)
    assert faces.table["image_id"].to_pylist() == [face[0] for face in FACES[:7] + FACES[10:]]
    assert torch.equal(faces.proxies([7]), pictures(proxy, [10]))


def test_splits_that_cannot_tell_people_apart_are_refused(place, tmp_path):
    faces = RunFaces.open(place / "run")
    with pytest.raises(InputError, match="no accepted proxy in split dev; it has train, valid, test"):
        faces.labelled("dev")
    write_labelled_run(tmp_path / "nobody", {"train": [2, 2]}, identities=False)
    nobody = RunFaces.open(tmp_path / "nobody/run")
    assert nobody.indices("train").size == 4
    with pytest.raises(InputError, match=r"split train of .* has no identities"):
        nobody.labelled("train")
    write_labelled_run(tmp_path / "one", {"train": [2, 2], "valid": [5]})
    with pytest.raises(InputError, match=r"split valid of .* has one identity alone"):
        RunFaces.open(tmp_path / "one/run").labelled("valid")


def test_proxies_of_unequal_size_are_refused(copy):
    path = next((copy / "run/manifest").glob("train-00000*"))
    table = pq.read_table(path)
    column = table.column_names.index("width")
    widths = [WIDTH + (at == 2) for at in range(table.num_rows)]
    pq.write_table(table.set_column(column, table.schema.field(column), pa.array(widths, pa.int32())), path)
    with pytest.raises(InputError, match=r"proxies of 2 sizes \(16x20, 17x20, …\)"):
        RunFaces.open(copy / "run")
