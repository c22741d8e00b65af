"""Photographs for Izadi's experiment: who takes part, who is in the test set, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.training.fusion_data import IDENTITY_ATTRIBUTES, read_fusion_faces, split_person

SETTINGS = {
    "attributes": (),
    "min_images": 2,
    "identities": 20,
    "test_share": 0.2,
    "seed": 0,
    "size": 8,
}


def read(path, **options):
    return read_fusion_faces(path, **{**SETTINGS, **options})


def write_celeba(root, counts):
    """Celeb-A's official layout: `counts` photographs of each identity; the identity is told by the colour."""
    (root / "img_align_celeba").mkdir(parents=True)
    bits = np.random.default_rng(0).choice([-1, 1], size=(sum(counts.values()), len(ATTRIBUTES)))
    identities = [identity for identity, count in counts.items() for _ in range(count)]
    names = [f"{number:06d}.jpg" for number in range(1, len(identities) + 1)]
    for name, identity in zip(names, identities, strict=True):
        Image.new("RGB", (16, 20), (identity, 100, 150)).save(root / "img_align_celeba" / name, quality=95)
    rows = [f"{name} " + " ".join(map(str, row)) for name, row in zip(names, bits, strict=True)]
    (root / "list_attr_celeba.txt").write_text("\n".join([str(len(names)), " ".join(ATTRIBUTES), *rows]) + "\n")
    lines = [f"{name} {identity}\n" for name, identity in zip(names, identities, strict=True)]
    (root / "identity_CelebA.txt").write_text("".join(lines))
    return bits == 1


def write_people(root, counts):
    for person, count in counts.items():
        for number in range(count):
            path = root / person / f"{person}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (10, 10), (number, 0, 0)).save(path)
    return root


# --- attributes -----------------------------------------------------------------------------------


def test_twenty_one_identity_attributes():
    assert len(IDENTITY_ATTRIBUTES) == len(set(IDENTITY_ATTRIBUTES)) == 21
    assert set(IDENTITY_ATTRIBUTES) <= set(ATTRIBUTES)
    # Those that the paper itself names, in its tables and its text.
    assert {"Bald", "Big_Lips", "Big_Nose", "Chubby", "Male", "Black_Hair", "Blond_Hair", "Oval_Face"} <= set(
        IDENTITY_ATTRIBUTES
    )
    # Those that it names as changing.
    assert not {"Eyeglasses", "Mustache", "No_Beard", "Goatee"} & set(IDENTITY_ATTRIBUTES)


def test_labels_are_those_of_the_catalogue(tmp_path):
    bits = write_celeba(tmp_path, {1: 3, 2: 3})
    faces = read(tmp_path, attributes=("Male", "Bald"))
    columns = [ATTRIBUTES.index("Male"), ATTRIBUTES.index("Bald")]
    assert faces.attributes.tolist() == bits[:, columns].astype(int).tolist()
    assert read(tmp_path).attributes.shape == (6, 0)


def test_unknown_labels(tmp_path):
    path = tmp_path / "faces.parquet"
    picture = tmp_path / "face.png"
    Image.new("RGB", (4, 4)).save(picture)
    count = 4
    table = {
        "image": [{"bytes": picture.read_bytes(), "path": f"{number}.png"} for number in range(count)],
        "image_id": [f"{number}.png" for number in range(count)],
        "identity": [1, 1, 2, 2],
        "Male": [True, None, False, None],
    }
    pq.write_table(pa.table(table), path)
    assert read(path, attributes=("Male", "Bald")).attributes.tolist() == [[1, -1], [-1, -1], [0, -1], [-1, -1]]
    with pytest.raises(InputError, match=r"no attribute labels .* choose case none"):
        read(path, attributes=("Bald", "Young"))


# --- choice of people -----------------------------------------------------------------------------


def test_people_with_most_photographs_first(tmp_path):
    write_celeba(tmp_path, {9: 3, 4: 5, 30: 3, 7: 2, 5: 4})
    assert read(tmp_path, min_images=3).people == ("4", "5", "9", "30")
    assert read(tmp_path, min_images=3).notes == ("4 people have at least 3 photographs; 20 were asked for",)
    few = read(tmp_path, identities=3)
    assert few.people == ("4", "5", "9")
    assert not few.notes
    counts = np.bincount(few.classes.numpy()).tolist()
    assert counts == [5, 4, 3]
    reds = few.images[:, 0].float().mean(dim=(1, 2))
    for index, identity in enumerate((4, 5, 9)):
        assert reds[few.classes == index].tolist() == pytest.approx([identity] * counts[index], abs=2)


def test_a_folder_of_people(tmp_path):
    write_people(tmp_path, {"Ann": 3, "Bob": 4, "Cy": 2})
    Image.new("RGB", (4, 4)).save(tmp_path / "contact_sheet.png")
    (tmp_path / "Ann" / "more").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "Ann" / "more" / "x.png")
    faces = read(tmp_path, identities=2)
    assert faces.people == ("Ann", "Bob")
    assert faces.image_ids[:2] == ("Ann/Ann_0000.png", "Ann/Ann_0001.png")
    assert faces.notes == (f'1 images of "{tmp_path}" are in no person\'s sub-folder and are left out',)
    with pytest.raises(InputError, match="no attribute labels"):
        read(tmp_path, attributes=("Male",))


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({1: 5}, r"1 of 1 people .* at least 2 photographs \(there is one person in all\)"),
        ({1: 5, 2: 1}, r"1 of 2 people .* at least 2 photographs \(the second largest has 1\), .* lower --min-images"),
    ],
)
def test_too_few_people(tmp_path, counts, message):
    write_celeba(tmp_path, counts)
    with pytest.raises(InputError, match=message):
        read(tmp_path)


def test_faces_of_nobody(tmp_path):
    write_people(tmp_path / "lfw", {"Ann": 3})
    with pytest.raises(InputError, match="one sub-folder per person"):
        read(tmp_path / "lfw" / "Ann")
    with pytest.raises(InputError, match="one person in all"):
        read(tmp_path)
    write_celeba(tmp_path / "celeba", {1: 3, 2: 3})
    (tmp_path / "celeba" / "identity_CelebA.txt").unlink()
    with pytest.raises(InputError, match="does not say who its faces are"):
        read(tmp_path / "celeba")


def test_an_image_that_cannot_be_read(tmp_path):
    write_people(tmp_path, {"Ann": 3, "Bob": 3})
    (tmp_path / "Bob" / "Bob_0001.png").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r'"Bob/Bob_0001.png" .* cannot be read'):
        read(tmp_path)


# --- split ----------------------------------------------------------------------------------------

IMAGE_IDS = st.sets(st.text(min_size=1, max_size=6), min_size=2, max_size=60)


@given(IMAGE_IDS, st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_a_share_of_each_person(image_ids, share, seed):
    rows = {image_id: row for row, image_id in enumerate(image_ids)}
    held_out = split_person(rows, test_share=share, seed=seed)
    assert len(held_out) == len(set(held_out))
    assert set(held_out) <= set(rows.values())
    assert 1 <= len(held_out) < len(rows)
    wanted = share * len(rows)
    assert abs(len(held_out) - wanted) <= 0.5 + 1e-9 or len(held_out) in (1, len(rows) - 1)
    other_order = dict(reversed(rows.items()))
    assert split_person(other_order, test_share=share, seed=seed) == held_out


@pytest.mark.parametrize(("images", "test"), [(2, 1), (4, 1), (5, 1), (7, 1), (8, 2), (10, 2), (30, 6), (31, 6)])
def test_eighty_to_twenty(images, test):
    assert len(split_person({str(row): row for row in range(images)}, test_share=0.2, seed=0)) == test


def test_every_photograph_may_be_held_out():
    rows = {f"{row}.jpg": row for row in range(10)}
    drawn = [row for seed in range(400) for row in split_person(rows, test_share=0.2, seed=seed)]
    assert np.bincount(drawn, minlength=10).tolist() == pytest.approx([80] * 10, abs=35)


def test_the_split_of_a_person_is_his_own(tmp_path):
    write_people(tmp_path / "few", {"Ann": 9, "Bob": 9})
    write_people(tmp_path / "many", {"Ann": 9, "Bob": 9, "Cy": 12, "Abe": 3})

    def test_ids(faces):
        return {faces.image_ids[row] for row in faces.test.tolist() if faces.image_ids[row][:3] in ("Ann", "Bob")}

    few, many = read(tmp_path / "few"), read(tmp_path / "many")
    assert test_ids(few) == test_ids(many)
    assert test_ids(read(tmp_path / "few", seed=1)) != test_ids(few)
    assert sorted([*many.train.tolist(), *many.test.tolist()]) == list(range(33))
    for part in (many.train, many.test):
        assert set(many.classes[part].tolist()) == {0, 1, 2, 3}


# --- pixels ---------------------------------------------------------------------------------------


def test_photographs_are_cropped_and_fitted(tmp_path):
    write_people(tmp_path, {"Ann": 2, "Bob": 2})
    left, right = (255, 0, 0), (0, 0, 255)
    picture = Image.new("RGB", (40, 20), left)
    picture.paste(right, (20, 0, 40, 20))
    picture.save(tmp_path / "Ann" / "Ann_0000.png")
    whole = read(tmp_path).images[0]
    assert whole.shape == (3, 8, 8)
    assert whole[:, 4, 0].tolist() == list(left)
    assert whole[:, 4, -1].tolist() == list(right)
    assert read(tmp_path, crop=(0.5, 0, 1, 1)).images[0].unique(dim=1).flatten().unique().tolist() == [0, 255]
    cut = read(tmp_path, crop=(0.5, 0, 1, 1)).images[0]
    assert (cut[2] == 255).all()
    assert (cut[0] == 0).all()
    assert read(tmp_path, crop=(0.999, 0.999, 1, 1)).images[0][2].min() == 255


@pytest.mark.data
def test_the_real_subsets():
    root = os.environ.get("STYLIZE_TEST_DATA")
    if not root:
        pytest.skip("STYLIZE_TEST_DATA is not set")
    celeba = read(Path(root) / "celeba", attributes=IDENTITY_ATTRIBUTES, min_images=5, identities=20, size=32)
    assert (len(celeba.people), len(celeba.train), len(celeba.test)) == (20, 98, 22)
    assert celeba.attributes.min() == 0
    lfw = read(Path(root) / "lfw", min_images=10, identities=40, size=32)
    assert (len(lfw.people), len(lfw.train), len(lfw.test)) == (40, 320, 80)
    with pytest.raises(InputError, match=r"0 of 250 people .* lower --min-images"):
        read(Path(root) / "celeba", min_images=31)
