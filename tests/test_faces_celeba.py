"""Celeb-A copies in the layouts that people have, and what happens where their parts disagree."""

import os
import shutil
import tracemalloc
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests import celeba
from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from manifests.face_rows import FACE_SCHEMA
from manifests.faces import read_faces
from manifests.image_files import ImageListing

NAMES = [f"{number:06d}.jpg" for number in range(1, 7)]
SPLIT = dict(zip(NAMES, [2, 0, 1, 0, 0, 2], strict=True))
IDENTITY = dict(zip(NAMES, [10, 20, 30, 20, 10, 30], strict=True))


def draw(folder: Path, names: Iterable[str] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (4, 5), (number * 9, 100, 200)).save(folder / name)


def is_true(name: str, attribute: str) -> bool:
    return (int(name[:6]) + ATTRIBUTES.index(attribute)) % 3 == 0


def write_attributes(folder: Path, names: Iterable[str] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{name} {' '.join(' 1' if is_true(name, a) else '-1' for a in ATTRIBUTES)}" for name in names]
    text = "\n".join([str(len(rows)), " ".join(ATTRIBUTES) + " ", *rows]) + "\n"
    (folder / "list_attr_celeba.txt").write_text(text)


def write_pairs(folder: Path, file: str, pairs: Iterable[tuple[str, int]], head: str = "", mark: str = " ") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(head + "".join(f"{name}{mark}{value}\n" for name, value in pairs))


def annotate(attributes: Path, identities: Path | None = None, partition: Path | None = None) -> None:
    write_attributes(attributes)
    write_pairs(identities or attributes, "identity_CelebA.txt", IDENTITY.items())
    write_pairs(partition or attributes, "list_eval_partition.txt", SPLIT.items())


def pack(path: Path, names: Iterable[str] = NAMES, prefix: str = "img_align_celeba/") -> None:
    draw(path.parent / "drawn", names)
    with zipfile.ZipFile(path, "w") as archive:
        if prefix:
            archive.writestr(prefix, "")
        archive.writestr("__MACOSX/img_align_celeba/._000001.jpg", b"junk")
        for name in names:
            archive.write(path.parent / "drawn" / name, prefix + name)
    shutil.rmtree(path.parent / "drawn")


def one_folder(root: Path) -> tuple[list[Path], str]:
    draw(root / "img_align_celeba")
    annotate(root)
    return [root, root / "img_align_celeba"], "celeba"


def official(root: Path) -> tuple[list[Path], str]:
    draw(root / "Img" / "img_align_celeba")
    annotate(root / "Anno", root / "Anno", root / "Eval")
    return [root, root / "Img", root / "Img" / "img_align_celeba"], "celeba"


def torchvision_root(root: Path) -> tuple[list[Path], str]:
    draw(root / "celeba" / "img_align_celeba")
    annotate(root / "celeba")
    return [root], "celeba-torchvision"


def torchvision_folder(root: Path) -> tuple[list[Path], str]:
    torchvision_root(root)
    return [root / "celeba"], "celeba"


def kaggle(root: Path) -> tuple[list[Path], str]:
    inner = root / "img_align_celeba" / "img_align_celeba"
    draw(inner)
    rows = [f"{name},{','.join('1' if is_true(name, a) else '-1' for a in ATTRIBUTES)}" for name in NAMES]
    (root / "list_attr_celeba.csv").write_text("\n".join([f"image_id,{','.join(ATTRIBUTES)}", *rows]) + "\n")
    write_pairs(root, "list_eval_partition.csv", SPLIT.items(), "image_id,partition\n", ",")
    return [root, inner.parent, inner], "celeba-kaggle"


def zip_in_place(root: Path) -> tuple[list[Path], str]:
    root.mkdir(parents=True)
    pack(root / "img_align_celeba.zip")
    annotate(root)
    return [root, root / "img_align_celeba.zip"], "celeba-zip"


def official_zip(root: Path) -> tuple[list[Path], str]:
    (root / "Img").mkdir(parents=True)
    pack(root / "Img" / "img_align_celeba.zip", prefix="")
    annotate(root / "Anno", root / "Anno", root / "Eval")
    return [root, root / "Img" / "img_align_celeba.zip"], "celeba-zip"


LAYOUTS = [one_folder, official, torchvision_root, torchvision_folder, kaggle, zip_in_place, official_zip]


@pytest.mark.parametrize("build", LAYOUTS, ids=lambda build: build.__name__)
def test_every_layout_gives_the_same_faces(
    tmp_path: Path, build: Callable[[Path], tuple[list[Path], str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, layout = build(tmp_path / "here")
    digests = set()
    for path in paths:
        faces = read_faces(path, strict=True)
        assert faces.layout == layout
        assert faces.table.schema == FACE_SCHEMA
        order = sorted(NAMES, key=lambda name: (SPLIT[name], name))
        assert faces.table["image_id"].to_pylist() == order
        assert faces.table["split"].to_pylist() == [("train", "valid", "test")[SPLIT[name]] for name in order]
        identities = [None] * 6 if build is kaggle else [IDENTITY[name] for name in order]
        assert faces.table["identity"].to_pylist() == identities
        assert len(faces.notes) == (build is kaggle)
        for attribute in ATTRIBUTES:
            assert faces.table[attribute].to_pylist() == [is_true(name, attribute) for name in order]
        for row in faces.table.select(["locator", "size"]).to_pylist():
            data = faces.source.read(row["locator"])
            assert len(data) == row["size"]
            assert data.startswith(b"\xff\xd8")
        digests.add(faces.digest)
    shutil.copytree(tmp_path / "here", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    moved = read_faces(paths[0].relative_to(tmp_path / "here"))
    assert os.path.isabs(moved.source.root)
    assert digests == {moved.digest}


def test_the_unpacked_folder_goes_before_the_archive_unless_it_is_empty(tmp_path: Path) -> None:
    zip_in_place(tmp_path / "c")
    (tmp_path / "c" / "img_align_celeba").mkdir()
    assert read_faces(tmp_path / "c").layout == "celeba-zip"
    draw(tmp_path / "c" / "img_align_celeba")
    assert read_faces(tmp_path / "c").layout == "celeba"


def test_without_a_partition_all_is_train_and_without_identities_there_is_a_problem(tmp_path: Path) -> None:
    one_folder(tmp_path)
    (tmp_path / "list_eval_partition.txt").unlink()
    faces = read_faces(tmp_path, strict=True)
    assert set(faces.table["split"].to_pylist()) == {"train"}
    assert "list_eval_partition.txt" in faces.notes[0]
    (tmp_path / "identity_CelebA.txt").unlink()
    faces = read_faces(tmp_path)
    assert faces.table["identity"].null_count == 6
    assert "no identity_CelebA.txt" in faces.problems[0]
    with pytest.raises(InputError, match="no identity_CelebA"):
        read_faces(tmp_path, strict=True)


def test_every_disagreement_is_one_sentence_with_its_count_and_first_offenders(tmp_path: Path) -> None:
    images = [f"{number:06d}.jpg" for number in range(1, 11)]
    draw(tmp_path / "img_align_celeba", images)
    # 5 images lack attributes; 11 and 12 have no image; 3 and 4 come twice.
    write_attributes(tmp_path, [*images[:5], "000011.jpg", "000012.jpg", "000003.jpg", "000004.jpg"])
    write_pairs(tmp_path, "identity_CelebA.txt", [(name, 1) for name in images if name != "000002.jpg"])
    pairs = [(name, 0) for name in images if name != "000005.jpg"]
    write_pairs(tmp_path, "list_eval_partition.txt", [*pairs, ("000001.jpg", 2)])
    faces = read_faces(tmp_path)
    assert faces.table["image_id"].to_pylist() == ["000001.jpg", "000002.jpg", "000003.jpg", "000004.jpg"]
    assert faces.table["identity"].to_pylist() == [1, None, 1, 1]
    assert set(faces.table["split"].to_pylist()) == {"train"}, "the first of two rows counts"
    told = [problem.replace(str(tmp_path), "HERE") for problem in faces.problems]
    assert told == [
        "2 rows in HERE/list_attr_celeba.txt repeat an earlier id and are left out (first: 000003.jpg, 000004.jpg).",
        "1 row in HERE/list_eval_partition.txt repeats an earlier id and is left out (000001.jpg).",
        "2 rows in HERE/list_attr_celeba.txt have no image in HERE/img_align_celeba and are left out "
        "(first: 000011.jpg, 000012.jpg).",
        "5 images have no row in HERE/list_attr_celeba.txt and are left out "
        "(first: 000006.jpg, 000007.jpg, 000008.jpg).",
        "1 image has no row in HERE/list_eval_partition.txt and is left out (000005.jpg).",
        "1 image has no row in HERE/identity_CelebA.txt and keeps a null identity (000002.jpg).",
    ]
    with pytest.raises(InputError) as caught:
        read_faces(tmp_path, strict=True)
    assert str(caught.value) == " ".join(faces.problems)


IDS = st.lists(st.sampled_from([f"{number}.jpg" for number in range(8)]), max_size=10)


@settings(max_examples=60, deadline=None)
@given(images=IDS, attributes=IDS, identities=IDS, partition=IDS)
def test_the_join_keeps_what_a_plain_loop_keeps(
    images: list[str],
    attributes: list[str],
    identities: list[str],
    partition: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    root = tmp_path_factory.mktemp("c")
    (root / "img_align_celeba").mkdir()
    for name in images:
        (root / "img_align_celeba" / name).write_bytes(b"x" * (1 + int(name[0])))
    rows = [f"{name} {1 if at % 2 else -1}" + " -1" * 39 for at, name in enumerate(attributes)]
    (root / "list_attr_celeba.txt").write_text("\n".join([" ".join(ATTRIBUTES), *rows]))
    write_pairs(root, "identity_CelebA.txt", [(name, at) for at, name in enumerate(identities)])
    write_pairs(root, "list_eval_partition.txt", [(name, at % 3) for at, name in enumerate(partition)])

    expected = []
    for name in sorted(set(images)):
        if name in attributes and name in partition:
            identity = identities.index(name) if name in identities else None
            shadow = attributes.index(name) % 2 == 1
            expected.append((partition.index(name) % 3, name, identity, shadow, 1 + int(name[0])))
    expected.sort(key=lambda row: row[:2])
    if not (expected and identities):
        with pytest.raises(InputError):
            read_faces(root)
        return
    table = read_faces(root).table
    columns = ["split", "image_id", "identity", "5_o_Clock_Shadow", "size"]
    got = zip(*(table[name].to_pylist() for name in columns), strict=True)
    assert list(got) == [(("train", "valid", "test")[row[0]], *row[1:]) for row in expected]


@pytest.mark.parametrize("missing", ["list_attr_celeba.txt", "img_align_celeba"])
def test_a_copy_without_attributes_or_images_says_what_to_put_where(tmp_path: Path, missing: str) -> None:
    one_folder(tmp_path)
    shutil.rmtree(tmp_path / missing) if missing == "img_align_celeba" else (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=missing):
        read_faces(tmp_path)


def test_no_common_image_is_an_error_and_tells_why(tmp_path: Path) -> None:
    draw(tmp_path / "img_align_celeba", ["a.png"])
    annotate(tmp_path)
    with pytest.raises(InputError, match=r"1 image has no row in .*list_attr_celeba.txt"):
        read_faces(tmp_path)


def test_an_empty_image_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    annotate(tmp_path)
    with pytest.raises(InputError, match="holds no images"):
        read_faces(tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut", "no annotation"])
def test_a_bad_archive_is_an_error(tmp_path: Path, damage: str) -> None:
    paths, _ = zip_in_place(tmp_path / "c")
    path = paths[1]
    if damage == "no annotation":
        path = Path(shutil.copy(path, tmp_path))
    else:
        path.write_bytes(b"not a zip" if damage == "text" else path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"no list_attr_celeba" if damage == "no annotation" else "not a readable zip"):
        read_faces(path)


def test_the_digest_changes_with_every_input(tmp_path: Path) -> None:
    one_folder(tmp_path)
    digests = [read_faces(tmp_path).digest]
    Image.new("RGB", (40, 50)).save(tmp_path / "img_align_celeba" / NAMES[0])
    digests.append(read_faces(tmp_path).digest)
    write_pairs(tmp_path, "identity_CelebA.txt", [(name, 7) for name in NAMES])
    digests.append(read_faces(tmp_path).digest)
    write_pairs(tmp_path, "list_eval_partition.txt", [(name, 1) for name in NAMES])
    digests.append(read_faces(tmp_path).digest)
    head, _, last = (tmp_path / "list_attr_celeba.txt").read_text().rstrip().rpartition(" ")
    (tmp_path / "list_attr_celeba.txt").write_text(f"{head} {-int(last)}\n")
    digests.append(read_faces(tmp_path).digest)
    (tmp_path / "img_align_celeba" / NAMES[0]).unlink()
    digests.append(read_faces(tmp_path).digest)
    assert len(set(digests)) == 6


def test_the_full_celeba_is_planned_without_a_loop_over_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 202_599
    names = [f"{number:06d}.jpg" for number in range(1, count + 1)]
    values = np.random.default_rng(0).integers(0, 2, (count, 40))
    words = np.where(values == 1, " 1", "-1")
    rows = np.char.add(np.array(names), " ")
    body = "\r\n".join(f"{name}{' '.join(row)}" for name, row in zip(rows, words.tolist(), strict=True))
    (tmp_path / "list_attr_celeba.txt").write_text(f"{count}\r\n{' '.join(ATTRIBUTES)} \r\n{body}\r\n", newline="")
    write_pairs(tmp_path, "identity_CelebA.txt", zip(names, range(count), strict=True))
    write_pairs(tmp_path, "list_eval_partition.txt", ((name, int(name[:6]) % 3) for name in names))
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "img_align_celeba" / "000001.jpg").touch()
    listing = pa.table({"locator": names, "size": pa.array(range(count), pa.int64())})
    del names, words, rows, body

    monkeypatch.setattr(celeba, "list_image_files", lambda folder, recursive: ImageListing(listing))
    tracemalloc.start()
    faces = read_faces(tmp_path, strict=True)
    blocks = len(tracemalloc.take_snapshot().traces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert faces.table.num_rows == count
    first = faces.table.slice(0, 1).to_pylist()[0]
    assert first["image_id"] == "000003.jpg"
    assert [first[name] for name in ATTRIBUTES] == [bool(value) for value in values[2]]
    # One Python object per row would leave or peak at hundreds of megabytes; the text itself is 26 MB.
    assert blocks < 5_000
    assert peak < 150e6


@pytest.mark.data
def test_the_real_subset() -> None:
    root = os.environ.get("STYLIZE_TEST_DATA")
    if not root:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    faces = read_faces(Path(root) / "celeba", strict=True)
    table = faces.table
    assert table.num_rows == 1094
    assert len(set(table["identity"].to_pylist())) == 250
    assert [table["split"].to_pylist().count(name) for name in ("train", "valid", "test")] == [696, 115, 283]
    assert faces.problems == faces.notes == ()
    assert faces.source.read(table["locator"][0].as_py())[:2] == b"\xff\xd8"
