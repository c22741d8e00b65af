"""The index on disk: round trip, new images only, nothing mixed, nothing lost, damage named."""

import dataclasses
import errno
import io
import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.image_source import ImageSource
from pipeline.retrieval import index as index_module
from pipeline.retrieval import index_file
from pipeline.retrieval.described_faces import describe
from pipeline.retrieval.face_files import FaceFile, faces_of_files
from pipeline.retrieval.face_set import FACE_SET_SCHEMA, FaceSet, PictureError
from pipeline.retrieval.index import IndexUpdate, open_index, update_index
from pipeline.retrieval.retrieval_model import AttributeBranch, ModelPlaces, RetrievalModel
from pipeline.retrieval.run_sets import photographs_of_run, proxies_of_run
from pipeline.training.attribute_heads import AttributeHeads
from pipeline.training.attribute_model import AttributeModel
from pipeline.training.identity_model import IdentityModel
from pipeline.training.projection import AsymmetricProjections
from pipeline.training.run_faces import RunFaces
from stylize.decode import decode_image
from stylize.fit import cover
from tests.labelled_run import write_labelled_run
from tests.tiny_embedder import tiny_embedder

PLACES = ModelPlaces(identity="models/identity", attributes="models/attributes")


def tiny_model(seed=0, attributes=ATTRIBUTES, crop=None, own_crop=None):
    """A model without files; with attributes of a network of their own if own_crop is given."""
    identity = IdentityModel(tiny_embedder(seed, crop=crop), AsymmetricProjections(8))
    branch = None
    if attributes:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            heads = AttributeHeads(8, len(attributes), widths=(6, 5, 4)).eval()
        untrained = ("Blurry",) if "Blurry" in attributes else ()
        known = AttributeModel(heads, tuple(attributes), untrained, "joint", "tiny", "random", 0, "d", (0, 0, 1, 1))
        branch = AttributeBranch(known, None if own_crop is None else tiny_embedder(seed, crop=own_crop))
    digest = f"digest {seed} {len(attributes)}"
    return RetrievalModel(identity, branch, branch, title=f"tiny {seed}", digest=digest).eval()


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFaces.open(write_labelled_run(tmp_path_factory.mktemp("index"), {"train": [3, 2], "test": [4, 2]}))


def proxies(run, count=None):
    return proxies_of_run(run, np.arange(len(run) if count is None else count))


def update(place, faces, model, **options):
    return update_index(place, faces, PLACES, model, quiet=True, **options)


def folder_set(folder, count=4, size=(12, 15), versions=None):
    """Pictures of a folder, larger than the size networks see."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 30, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    names = [f"{number}.png" for number in range(count)]
    columns = {
        "id": pa.array(names),
        "source_id": pa.array(names),
        "identity": pa.nulls(count, pa.string()),
        "locator": pa.array(names),
        "version": pa.array(versions or [str((folder / name).stat().st_size) for name in names]),
        **{name: pa.nulls(count, pa.bool_()) for name in ATTRIBUTES},
    }
    source = ImageSource("folder", str(folder))

    def load(indices):
        pictures = [cover(decode_image(source.read(names[int(at)])), *size) for at in indices]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)

    return FaceSet(f"faces of {folder}", pa.table(columns).cast(FACE_SET_SCHEMA), source, size, load)


def test_what_was_described_comes_back(run, model, tmp_path):
    faces = proxies(run)
    assert update(tmp_path / "index", faces, model, batch_size=4) == IndexUpdate(11, 0, 11)
    index = open_index(tmp_path / "index")
    expected = describe(model, faces, "art", batch_size=4, quiet=True)
    assert index.gallery.table.equals(faces.table)
    assert index.gallery.table.schema == FACE_SET_SCHEMA
    assert torch.equal(index.gallery.embeddings, expected.embeddings)
    assert torch.equal(index.gallery.probabilities, expected.probabilities)
    assert torch.equal(index.gallery.bits, expected.bits)
    assert torch.equal(index.gallery.labels, expected.labels)
    assert (len(index), index.dim, index.title, index.document.digest) == (11, 8, "tiny 0", "digest 0 40")
    assert (index.attributes, index.untrained, index.size) == (ATTRIBUTES, ("Blurry",), run.size)
    assert index.crop == model.crop
    assert index.contents == (faces.title,)
    assert index.places == ModelPlaces.from_dict(PLACES.as_dict())
    assert os.path.isabs(str(index.places.identity))
    index.check_model(model)
    for item in (0, 7, 10, -1):
        assert np.array_equal(index.thumbnail(item), faces.load([item % 11])[0].permute(1, 2, 0).numpy())
    with pytest.raises(IndexError):
        index.thumbnail(11)


def test_parts_can_be_read_by_others(run, model, tmp_path):
    update(tmp_path / "index", proxies(run), model)
    (path,) = (tmp_path / "index").glob("items-*.parquet")
    table = pq.read_table(path)
    assert table.column_names == [*FACE_SET_SCHEMA.names, "embedding", "probabilities", "bits"]
    gallery = open_index(tmp_path / "index").gallery
    for row in range(len(gallery)):
        embedding = np.frombuffer(table["embedding"][row].as_py(), "<f4")
        assert np.array_equal(embedding, gallery.embeddings[row].numpy())
        assert table["probabilities"][row].as_py() == gallery.probabilities[row].tolist()
        bits = np.frombuffer(table["bits"][row].as_py(), np.uint8)
        assert len(bits) == 5
        assert np.array_equal(np.unpackbits(bits).astype(bool), gallery.bits[row].numpy())
    document = json.loads((tmp_path / "index" / "index.json").read_text())
    assert (document["kind"], document["format"], document["attributes"]) == ("index", 1, list(ATTRIBUTES))
    assert (document["digest"], document["size"]) == ("digest 0 40", list(run.size))


def test_a_model_without_attributes(run, tmp_path):
    bare = tiny_model(attributes=())
    update(tmp_path / "index", proxies(run), bare)
    index = open_index(tmp_path / "index")
    assert index.gallery.probabilities.shape == (11, 0)
    assert index.gallery.bits.shape == (11, 0)
    assert index.attributes == ()
    index.check_model(bare)


def test_a_number_of_attributes_that_fills_no_byte(run, tmp_path):
    three = tiny_model(attributes=ATTRIBUTES[:3])
    update(tmp_path / "index", proxies(run), three)
    expected = describe(three, proxies(run), "art", quiet=True)
    assert torch.equal(open_index(tmp_path / "index").gallery.probabilities, expected.probabilities)


def described_ids(monkeypatch):
    """Ids of the faces that are described from now on."""
    ids = []

    def counted(model, faces, domain, **options):
        assert domain == "art"
        ids.extend(faces.table["id"].to_pylist())
        return describe(model, faces, domain, **options)

    monkeypatch.setattr(index_module, "describe", counted)
    return ids


def test_new_images_only(run, model, tmp_path, monkeypatch):
    ids = described_ids(monkeypatch)
    place = tmp_path / "index"
    assert update(place, proxies(run, 4), model) == IndexUpdate(4, 0, 4)
    assert update(place, proxies(run), model) == IndexUpdate(7, 4, 11)
    assert update(place, proxies(run), model) == IndexUpdate(0, 11, 11)
    everyone = proxies(run).table["id"].to_pylist()
    assert ids == everyone
    index = open_index(place)
    assert index.gallery.table["id"].to_pylist() == everyone
    torch.testing.assert_close(index.gallery.embeddings, describe(model, proxies(run), "art", quiet=True).embeddings)
    assert sorted(path.name for path in place.iterdir()) == [
        "index.json",
        "items-00000.parquet",
        "items-00001.parquet",
    ]


def test_updates_in_words():
    assert IndexUpdate(1200, 0, 1200).lines() == ["1,200 faces added; 1,200 in the index"]
    assert IndexUpdate(1, 1, 2).lines() == ["1 face added, 1 was there already; 2 in the index"]
    assert IndexUpdate(0, 3, 5).lines() == ["0 faces added, 3 were there already; 5 in the index"]
    some = tuple((f"{at}.png", "too small") for at in range(7))
    assert IndexUpdate(1, 0, 1, some[:1]).lines()[1:] == [
        "1 face left out, as it cannot be used:",
        "  0.png: too small",
    ]
    assert IndexUpdate(1, 0, 1, some).lines()[1:] == [
        "7 faces left out, as they cannot be used:",
        *(f"  {at}.png: too small" for at in range(5)),
        "  and 2 more",
    ]
    assert IndexUpdate(1, 2, 3, some).as_dict() == {
        "added": 1,
        "already": 2,
        "total": 3,
        "skipped": {"count": 7, "first": [{"id": f"{at}.png", "reason": "too small"} for at in range(5)]},
    }


def test_several_sources_each_with_their_pictures(run, model, tmp_path):
    place = tmp_path / "index"
    faces = folder_set(tmp_path / "pictures", size=run.size)
    update(place, faces, model)
    update(place, proxies(run, 3), model)
    index = open_index(place)
    assert index.contents == (faces.title, proxies(run).title)
    assert np.array_equal(index.thumbnail(2), faces.load([2])[0].permute(1, 2, 0).numpy())  # fitted, as networks see it
    assert np.array_equal(index.thumbnail(5), proxies(run).load([1])[0].permute(1, 2, 0).numpy())
    (tmp_path / "pictures" / "2.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r'the picture "2.png" in .* cannot be read any more'):
        index.thumbnail(2)
    shutil.rmtree(tmp_path / "pictures")
    with pytest.raises(InputError, match=r'the picture "0.png" in .*pictures" cannot be read any more'):
        index.thumbnail(0)


def test_parts_of_a_few_faces_each_and_an_interruption(run, model, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "FACES_PER_PART", 3)
    place, faces = tmp_path / "index", proxies(run)
    read: list[np.ndarray] = []

    def interrupted(indices):
        if len(read) == 2:
            raise KeyboardInterrupt
        read.append(indices)
        return faces.load(indices)

    with pytest.raises(KeyboardInterrupt):
        update(place, dataclasses.replace(faces, load=interrupted), model)
    assert len(open_index(place)) == 6
    ids = described_ids(monkeypatch)
    assert update(place, faces, model) == IndexUpdate(5, 6, 11)
    assert ids == faces.table["id"].to_pylist()[6:]
    assert len(list(place.glob("items-*"))) == 4
    assert open_index(place).gallery.table.equals(faces.table)


def test_a_picture_that_cannot_be_read_leaves_no_index(run, model, tmp_path):
    def broken(indices):
        raise InputError("no such picture")

    with pytest.raises(InputError, match="no such picture"):
        update(tmp_path / "index", dataclasses.replace(proxies(run), load=broken), model)
    assert not (tmp_path / "index").exists()
    update(tmp_path / "index", proxies(run), tiny_model(seed=1))  # not bound to a model by the failure


def spoilt_folder(folder):
    """Eight pictures, of which four cannot be used: no image, cut short, too small, gone."""
    folder_set(folder, 8)
    for name in ("1.png", "3.png", "6.png", "7.png"):
        data = (folder / name).read_bytes()
        (folder / name).unlink()
        if name == "1.png":
            (folder / name).write_text("no image")
        elif name == "3.png":
            (folder / name).write_bytes(data[: len(data) // 2])
        elif name == "6.png":
            Image.new("RGB", (31, 60)).save(folder / name)
    for name in ("0.png", "2.png", "4.png", "5.png"):
        Image.open(folder / name).resize((40, 50)).save(folder / name)
    names = [f"{number}.png" for number in range(8)]
    return faces_of_files("drawn faces", "drawn", ImageSource("folder", str(folder)), files(names), (12, 15))


def files(names):
    return [FaceFile(name, "1") for name in names]


@pytest.mark.parametrize(("per_part", "batch_size"), [(4096, 64), (3, 64), (4096, 2), (1, 1)])
def test_pictures_that_cannot_be_used_are_left_out(model, tmp_path, monkeypatch, per_part, batch_size):
    monkeypatch.setattr(index_module, "FACES_PER_PART", per_part)
    place, faces = tmp_path / "index", spoilt_folder(tmp_path / "pictures")
    found = update(place, faces, model, batch_size=batch_size)
    assert (found.added, found.already, found.total) == (4, 0, 4)
    assert [name for name, _ in found.skipped] == ["1.png", "3.png", "6.png", "7.png"]
    reasons = dict(found.skipped)
    assert "31x60 pixels are too small to show a face" in reasons["6.png"]
    assert "vanished" in reasons["7.png"]
    gallery = open_index(place).gallery
    assert gallery.table["id"].to_pylist() == ["0.png", "2.png", "4.png", "5.png"]
    alone = describe(model, faces.take([0, 2, 4, 5]), "art", quiet=True)
    torch.testing.assert_close(gallery.embeddings, alone.embeddings)
    torch.testing.assert_close(gallery.probabilities, alone.probabilities)
    # The next update tries them again, and a picture that was mended comes in.
    Image.open(tmp_path / "pictures" / "0.png").save(tmp_path / "pictures" / "6.png")
    again = update(place, faces, model, batch_size=batch_size)
    assert (again.added, again.already, again.total, len(again.skipped)) == (1, 4, 5, 3)


def test_a_folder_without_any_picture_that_can_be_used(model, tmp_path):
    faces = spoilt_folder(tmp_path / "pictures").take([1, 3, 6])
    with pytest.raises(InputError, match=r"none of the drawn faces can be used \(1\.png: .*give pictures that can be"):
        update(tmp_path / "index", faces, model)
    assert not (tmp_path / "index").exists()


def test_a_disk_that_fails_is_no_fault_of_a_picture(model, tmp_path, monkeypatch):
    """Else a folder would be left out for a cable."""
    faces = spoilt_folder(tmp_path / "pictures")

    def failing(self, locator):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ImageSource, "read", failing)
    with pytest.raises(InputError, match=r'"0\.png" in .* cannot be read: .*Input/output error') as raised:
        update(tmp_path / "index", faces, model)
    assert not isinstance(raised.value, PictureError)


def test_a_home_folder(run, model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    update("~/index", proxies(run, 2), model)
    assert len(open_index("~/index")) == len(open_index(tmp_path / "index")) == 2


def test_two_updates_at_once(run, model, tmp_path, monkeypatch):
    """While the first describes faces 0 to 7, a second adds 5 to 10, and then a third 0 to 1."""
    place, faces = tmp_path / "index", proxies(run)
    rivals = [faces.take(np.arange(5, 11)), faces.take(np.arange(2))]

    def meanwhile(*arguments, **options):
        found = describe(*arguments, **options)
        if rivals:
            update(place, rivals.pop(0), model)
        return found

    monkeypatch.setattr(index_module, "describe", meanwhile)
    # The rival's own update meets its rival too: the innermost is done first.
    assert update(place, faces.take(np.arange(8)), model) == IndexUpdate(3, 5, 11)
    index = open_index(place)
    assert sorted(index.gallery.table["id"].to_pylist()) == faces.table["id"].to_pylist()
    order = [faces.table["id"].to_pylist().index(name) for name in index.gallery.table["id"].to_pylist()]
    expected = describe(model, faces, "art", quiet=True).take(order)
    torch.testing.assert_close(index.gallery.embeddings, expected.embeddings)


def test_a_part_never_replaces_another(run, model, tmp_path, monkeypatch):
    """The same number is taken in the very moment between looking and writing."""
    place, faces = tmp_path / "index", proxies(run)
    update(place, faces.take([0]), model)
    raced: list[os.PathLike[str]] = []

    def late(path, *arguments):
        if not raced:
            raced.append(path)
            update(place, faces.take([1, 2]), model)
        return index_file.write_part(path, *arguments)

    monkeypatch.setattr(index_module, "write_part", late)
    assert update(place, faces.take([2, 3]), model) == IndexUpdate(1, 1, 4)
    ids = open_index(place).gallery.table["id"].to_pylist()
    assert ids == [faces.table["id"][at].as_py() for at in (0, 1, 2, 3)]


def test_models_are_not_mixed(run, model, tmp_path):
    place = tmp_path / "index"
    update(place, proxies(run, 4), model)
    before = {path.name: path.read_bytes() for path in place.iterdir()}
    cropped = tiny_model(crop=(0.1, 0.1, 0.9, 0.9))
    attributes_cropped = tiny_model(own_crop=(0.1, 0.1, 0.9, 0.9))
    for other, told in (
        (tiny_model(seed=1), r'index ".*" was made with another model \(tiny 0; this is tiny 1\)'),
        (tiny_model(attributes=ATTRIBUTES[:3]), "was made with another model"),
        (cropped, r"another part of the pictures \(crop 0,0,1,1\)"),
        (attributes_cropped, "another part of the pictures"),
    ):
        with pytest.raises(InputError, match=told):
            update(place, proxies(run), other)
        with pytest.raises(InputError, match=told):
            open_index(place).check_model(other)
    twin = tiny_model(seed=1)
    twin.title = model.title  # trained twice, say
    with pytest.raises(InputError, match=r"\(tiny 0, digest 0…; this is tiny 0, digest 1…\)"):
        update(place, proxies(run), twin)
    with pytest.raises(InputError, match="made of pictures of 16x20, and these are 12x15"):
        update(place, folder_set(tmp_path / "pictures"), model)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == before


def with_column(faces, name, row, value):
    values = faces.table[name].to_pylist()
    values[row] = value
    at = faces.table.column_names.index(name)
    table = faces.table.set_column(at, FACE_SET_SCHEMA.field(name), pa.array(values, FACE_SET_SCHEMA.field(name).type))
    return dataclasses.replace(faces, table=table)


@pytest.mark.parametrize(
    ("name", "value"),
    [("version", "another"), ("identity", "77"), ("identity", None), ("Smiling", None), ("source_id", "x")],
)
def test_what_has_changed_is_refused(run, model, tmp_path, name, value):
    place = tmp_path / "index"
    update(place, proxies(run, 4), model)
    what = "picture" if name == "version" else name
    with pytest.raises(InputError, match=f"the {what} of 000002.png is not what it was .*make the index again"):
        update(place, with_column(proxies(run), name, 2, value), model)
    assert len(open_index(place)) == 4


def test_pictures_of_the_same_names_elsewhere_are_refused(model, tmp_path):
    update(tmp_path / "index", folder_set(tmp_path / "a"), model)
    with pytest.raises(InputError, match=r'has 0.png from ".*a", and here it is in ".*b"; make another index'):
        update(tmp_path / "index", folder_set(tmp_path / "b"), model)


def test_faces_that_cannot_be_indexed(run, model, tmp_path):
    with pytest.raises(InputError, match="there are no proxies of"):
        update(tmp_path / "index", proxies(run, 0), model)
    with pytest.raises(InputError, match=r"have the id 000000.png; give every face an id of its own"):
        update(tmp_path / "index", with_column(proxies(run), "id", 3, "000000.png"), model)
    with pytest.raises(InputError, match=r"not known where the picture of 000000.png lies; index a folder or a run"):
        update(tmp_path / "index", photographs_of_run(run, np.arange(2)), model)
    assert not (tmp_path / "index").exists()


def test_folders_that_are_no_place_for_an_index(run, model, tmp_path):
    faces = folder_set(tmp_path / "pictures")
    for place in (tmp_path / "pictures", tmp_path / "pictures" / "index"):
        with pytest.raises(InputError, match="among the faces; make the index outside"):
            update(place, faces, model)
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files and no index"):
        update(full, faces, model)
    with pytest.raises(InputError, match=r"is a file; give a folder"):
        update(full / "notes.txt", faces, model)
    assert (full / "notes.txt").read_text() == "mine"
    (full / "notes.txt").rename(full / f"items-00000.parquet.{'0' * 32}.tmp")  # left by an update that died
    assert update(full, faces, model).total == 4
    assert len(open_index(full)) == 4


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_index_that_cannot_be_written(run, model, tmp_path):
    (tmp_path / "index").mkdir(mode=0o500)
    with pytest.raises(RunError, match="cannot be written"):
        update(tmp_path / "index", proxies(run), model)


def test_a_full_disk(run, model, tmp_path, monkeypatch):
    update(tmp_path / "index", proxies(run, 3), model)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_file, "publish", full)
    with pytest.raises(RunError, match=r'cannot be written to ".*index": No space left on device'):
        update(tmp_path / "index", proxies(run), model)
    assert len(open_index(tmp_path / "index")) == 3


def test_what_is_no_index(tmp_path):
    with pytest.raises(InputError, match=r"is no index, for it has no index.json; make one with stylize index"):
        open_index(tmp_path / "missing")
    with pytest.raises(InputError, match="is no index"):
        open_index(tmp_path)
    (tmp_path / "index.json").write_text('{"kind": "identity", "format": 1}')
    with pytest.raises(InputError, match="is not that of an index of format 1"):
        open_index(tmp_path)
    (tmp_path / "index.json").write_text('{"kind": "index", "format": 2}')
    with pytest.raises(InputError, match="is not that of an index of format 1"):
        open_index(tmp_path)


def test_an_empty_index(run, model, tmp_path):
    update(tmp_path, proxies(run, 2), model)
    (tmp_path / "items-00000.parquet").unlink()
    with pytest.raises(InputError, match=r"is empty; add faces to it with stylize index"):
        open_index(tmp_path)
    assert update(tmp_path, proxies(run, 2), model).total == 2


def two_parts(place, run, model):
    update(place, proxies(run, 4), model)
    update(place, proxies(run), model)
    return place / "items-00000.parquet"


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("damage", ["truncated", "embedding", "empty", "foreign", "rows", "bits", "lost"])
def test_damage_names_the_file_and_is_mended_by_an_update(run, model, tmp_path, damage):
    path = two_parts(tmp_path / "index", run, model)
    data = path.read_bytes()
    told = f'"{path}" is damaged'
    if damage == "truncated":
        path.write_bytes(data[:-100])
    elif damage == "embedding":
        embedding = open_index(path.parent).gallery.embeddings[0].numpy().tobytes()
        path.write_bytes(flipped(data, data.index(embedding) + 3))
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        pq.write_table(pa.table({"a": [1]}), path)
        told = f'"{path}" is a part of another index'
    elif damage == "rows":
        table = pq.read_table(path)
        pq.write_table(table.drop_columns(["embedding"]), path)
    elif damage == "bits":  # which do not follow from the probabilities
        table = pq.read_table(path)
        other = pa.array([bytes([byte ^ 1 for byte in row]) for row in table["bits"].to_pylist()], table["bits"].type)
        pq.write_table(table.set_column(table.column_names.index("bits"), "bits", other), path)
    else:
        path.unlink()
        told = f'"{path}" is missing'
    with pytest.raises(RunError, match=told):
        open_index(path.parent)
    path.unlink(missing_ok=True)
    assert update(path.parent, proxies(run), model) == IndexUpdate(4, 7, 11)
    index = open_index(path.parent)
    assert index.gallery.table.equals(proxies(run).table)
    assert path.exists()


def test_the_last_part_that_is_lost_is_made_again(run, model, tmp_path):
    """Its loss cannot be noticed: so many faces may never have been added."""
    path = two_parts(tmp_path / "index", run, model)
    (path.parent / "items-00001.parquet").unlink()
    assert len(open_index(path.parent)) == 4
    assert update(path.parent, proxies(run), model) == IndexUpdate(7, 4, 11)


def test_opening_warns_of_nothing_and_its_gallery_may_be_written_to(run, model, tmp_path, recwarn):
    two_parts(tmp_path / "index", run, model)
    gallery = open_index(tmp_path / "index").gallery
    gallery.embeddings[0, 0] = 0.5
    gallery.probabilities[0, 0] = 0.5
    assert not recwarn.list


def test_a_part_of_another_index_is_refused(run, model, tmp_path):
    two_parts(tmp_path / "one", run, model)
    two_parts(tmp_path / "two", run, tiny_model(seed=1))
    shutil.copy(tmp_path / "two" / "items-00001.parquet", tmp_path / "one" / "items-00002.parquet")
    with pytest.raises(RunError, match=r'items-00002.parquet" is a part of another index; take it out of the folder'):
        open_index(tmp_path / "one")
    with pytest.raises(RunError, match="is a part of another index"):
        update(tmp_path / "one", proxies(run), model)


def test_the_same_part_twice_is_refused(run, model, tmp_path):
    path = two_parts(tmp_path / "index", run, model)
    shutil.copy(path, path.parent / "items-00002.parquet")
    with pytest.raises(RunError, match=r'items-00002.parquet" has 000000.png, which another part has too'):
        open_index(path.parent)


@pytest.mark.parametrize(
    "text", ["", "{", '{"kind": "index", "format": 1}', "[]", '{"kind": "index", "format": 1, "x": 2}']
)
def test_a_damaged_document(run, model, tmp_path, text):
    update(tmp_path, proxies(run, 2), model)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises((RunError, InputError), match=r"index.json"):
        open_index(tmp_path)


def test_the_index_does_not_hold_pictures(run, model, tmp_path):
    update(tmp_path, proxies(run), model)
    encoded = io.BytesIO()
    Image.fromarray(proxies(run).load([0])[0].permute(1, 2, 0).numpy()).save(encoded, "PNG")
    assert encoded.getvalue() not in (tmp_path / "items-00000.parquet").read_bytes()
