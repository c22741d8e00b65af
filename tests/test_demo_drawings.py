"""The drawn faces and paintings of the demonstration: official layouts, true labels, people and styles that differ."""

import hashlib
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from pipeline.demo.cartoon_faces import draw_celeba, draw_face
from pipeline.demo.face_parameters import FaceParameters, attributes_of, sample_person, sample_sitting
from pipeline.demo.procedural_paintings import STYLES, draw_wikiart

SIZE = (89, 109)


def face(seed: int, number: int, occasion: int = 0) -> FaceParameters:
    person = sample_person(np.random.default_rng((seed, 1, number)), number)
    return FaceParameters(person, sample_sitting(np.random.default_rng((seed, 2, number, occasion)), person))


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("celeba")
    draw_celeba(folder, identities=6, images_per_identity=2, seed=3)
    return folder


@pytest.fixture(scope="module")
def wikiart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wikiart")
    draw_wikiart(folder, count=2 * len(STYLES) + 1, size=(128, 160), seed=3)
    return folder


def test_celeba_has_the_official_layout(celeba: Path) -> None:
    names = sorted(path.name for path in (celeba / "img_align_celeba").iterdir())
    assert names == [f"{k:06d}.jpg" for k in range(1, 13)]
    for name in names:
        with Image.open(celeba / "img_align_celeba" / name) as image:
            image.load()
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZE)

    count, header, *rows = (celeba / "list_attr_celeba.txt").read_text().splitlines()
    assert int(count) == len(rows) == 12
    labels = header.split()
    assert (len(labels), labels[0], labels[20], labels[-1]) == (40, "5_o_Clock_Shadow", "Male", "Young")
    assert labels == sorted(labels, key=str.lower)
    for name, row in zip(names, rows, strict=True):
        # Official rows have fixed columns: a width of two for each value, so that 1 and -1 line up.
        assert len(row) == len(name) + 3 * 40
        assert row.split()[0] == name
        assert set(row.split()[1:]) <= {"1", "-1"}
    table = np.array([row.split()[1:] for row in rows], dtype=int)
    assert (table.std(0) > 0).sum() >= 15


def test_identities_are_disjoint_over_three_splits(celeba: Path) -> None:
    def pairs(name: str) -> list[tuple[str, int]]:
        return [(key, int(value)) for key, value in (line.split() for line in (celeba / name).read_text().splitlines())]

    identity, partition = pairs("identity_CelebA.txt"), pairs("list_eval_partition.txt")
    assert [key for key, _ in identity] == [key for key, _ in partition]
    people: dict[int, set[int]] = defaultdict(set)
    for (_, person), (_, split) in zip(identity, partition, strict=True):
        people[split].add(person)
    assert [len(people[split]) for split in (0, 1, 2)] == [4, 1, 1]
    assert set.union(*people.values()) == set(range(1, 7))
    assert sum(map(len, people.values())) == 6
    splits = [split for _, split in partition]
    assert splits == sorted(splits)


def test_celeba_depends_on_the_seed_alone(celeba: Path, tmp_path: Path) -> None:
    draw_celeba(tmp_path / "again", identities=6, images_per_identity=2, seed=3)
    assert digests(tmp_path / "again") == digests(celeba)
    draw_celeba(tmp_path / "other", identities=3, images_per_identity=1, seed=4)
    ours = digests(celeba)
    assert all(ours.get(name) != digest for name, digest in digests(tmp_path / "other").items())


@pytest.mark.parametrize("seed", [0, 1])
def test_pictures_of_one_person_look_alike(seed: int) -> None:
    def look(params: FaceParameters) -> NDArray[np.float64]:
        """The head, coarsely, without hat, backdrop and part of the day's light."""
        params = replace(params, sitting=replace(params.sitting, hat="none"))
        small = Image.fromarray(draw_face(params, SIZE)).crop((22, 18, 67, 88)).resize((9, 14), Image.Resampling.BOX)
        colours = np.asarray(small, dtype=np.float64)
        centred: NDArray[np.float64] = colours - colours.mean() * 0.5
        return centred.ravel()

    looks = np.stack([[look(face(seed, number, occasion)) for occasion in range(2)] for number in range(8)])
    flat = looks.reshape(16, -1)
    distance = np.sqrt(((flat[:, None] - flat[None]) ** 2).mean(-1))
    person = np.repeat(np.arange(8), 2)
    same = (person[:, None] == person) & ~np.eye(16, dtype=bool)
    assert distance[same].mean() < 0.7 * distance[person[:, None] != person].mean()
    nearest = person[(distance + 1e9 * np.eye(16)).argmin(1)]
    assert (nearest == person).mean() > 0.5  # by chance: one in fifteen


def changed(before: FaceParameters, after: FaceParameters) -> NDArray[np.float64]:
    """Mean change of each pixel, in 0…255."""
    first, second = draw_face(before, SIZE), draw_face(after, SIZE)
    change: NDArray[np.float64] = np.abs(first.astype(float) - second.astype(float)).mean(2)
    return change


# Bands of rows of a picture 109 high, with room for tilt and shift.
HAT, EYES, CHEEKS, MOUTH, CHEST = slice(2, 42), slice(43, 64), slice(50, 76), slice(64, 84), slice(84, 109)


@pytest.mark.parametrize(
    ("label", "trait", "off", "on", "band"),
    [
        ("Eyeglasses", "glasses", False, True, EYES),
        ("Wearing_Hat", "hat", "none", "beanie", HAT),
        ("Wearing_Hat", "hat", "none", "brim", HAT),
        ("Smiling", "smile", 0.0, 1.0, MOUTH),
        ("Mouth_Slightly_Open", "mouth_open", 0.0, 1.0, MOUTH),
        ("Wearing_Lipstick", "lipstick", False, True, MOUTH),
        ("Rosy_Cheeks", "rosy", False, True, CHEEKS),
        ("Heavy_Makeup", "makeup", False, True, EYES),
        ("Wearing_Earrings", "earrings", False, True, CHEEKS),
        ("Wearing_Necklace", "necklace", False, True, CHEST),
        ("Wearing_Necktie", "necktie", False, True, CHEST),
    ],
)
@pytest.mark.parametrize("number", [0, 3])
def test_attributes_of_the_day_are_visible(
    label: str, trait: str, off: object, on: object, *, band: slice, number: int
) -> None:
    base = face(5, number)
    plain = replace(base.sitting, glasses=False, hat="none", makeup=False, lipstick=False, rosy=False, softness=0.0)
    plain = replace(plain, earrings=False, necklace=False, necktie=False, tilt=0.0, shift=(0.0, 0.0))
    before = FaceParameters(base.person, replace(plain, **{trait: off}))  # type: ignore[arg-type]
    after = FaceParameters(base.person, replace(plain, **{trait: on}))  # type: ignore[arg-type]
    assert (attributes_of(before)[label], attributes_of(after)[label]) == (False, True)
    change = changed(before, after)
    assert change[band].max() > 25
    # Half, not all: a smile also lifts cheeks and lids.
    assert change[band].sum() > 0.5 * change.sum()


@pytest.mark.parametrize(
    ("label", "trait", "off", "on", "band"),
    [
        ("Mustache", "facial_hair", "none", "moustache", MOUTH),
        ("5_o_Clock_Shadow", "facial_hair", "none", "stubble", slice(56, 92)),
        ("Goatee", "facial_hair", "none", "goatee", slice(64, 92)),
        ("Bald", "hair_style", "crop", "bald", slice(8, 60)),
        ("Receding_Hairline", "hair_style", "crop", "receding", slice(8, 60)),
        ("Bangs", "bangs", False, True, slice(16, 52)),
        ("Sideburns", "sideburns", False, True, slice(38, 68)),
        ("Bushy_Eyebrows", "brow_thickness", 0.2, 0.9, slice(38, 58)),
        ("Arched_Eyebrows", "brow_arch", 0.1, 0.9, slice(38, 58)),
        ("Bags_Under_Eyes", "bags", False, True, slice(50, 66)),
        ("Big_Lips", "lips", 0.2, 1.0, MOUTH),
        ("Big_Nose", "nose_width", 0.3, 1.0, slice(44, 72)),
        ("Narrow_Eyes", "eye_opening", 0.8, 0.1, EYES),
        ("Double_Chin", "double_chin", False, True, slice(70, 92)),
        ("High_Cheekbones", "high_cheekbones", False, True, slice(50, 80)),
    ],
)
def test_lasting_attributes_are_visible(label: str, trait: str, off: object, on: object, band: slice) -> None:
    base = face(5, 1)
    sitting = replace(base.sitting, glasses=False, hat="none", softness=0.0, tilt=0.0, shift=(0.0, 0.0), smile=0.0)
    person = replace(base.person, hair_style="crop", bangs=False, facial_hair="none", sideburns=False, skin=0.3)
    person = replace(person, hair_colour="brown", double_chin=False, high_cheekbones=False, bags=False)
    before = FaceParameters(replace(person, **{trait: off}), sitting)  # type: ignore[arg-type]
    after = FaceParameters(replace(person, **{trait: on}), sitting)  # type: ignore[arg-type]
    assert (attributes_of(before)[label], attributes_of(after)[label]) == (False, True)
    change = changed(before, after)
    assert change[band].max() > 10
    assert change[band].sum() > 0.6 * change.sum()


def test_waves_are_visible_in_long_hair() -> None:
    base = face(5, 1)
    long = replace(base.person, hair_style="long", wavy=False)
    before, after = FaceParameters(long, base.sitting), FaceParameters(replace(long, wavy=True), base.sitting)
    assert (attributes_of(before)["Wavy_Hair"], attributes_of(after)["Wavy_Hair"]) == (False, True)
    change = changed(before, after)
    assert change[40:].max() > 40
    assert change[:, 32:57].sum() < 0.5 * change.sum()


def test_a_hat_hides_what_is_under_it() -> None:
    base = face(5, 1)
    person = replace(base.person, hair_style="bald")
    hatted = attributes_of(FaceParameters(person, replace(base.sitting, hat="beanie")))
    assert hatted["Wearing_Hat"]
    assert not hatted["Bald"]
    assert attributes_of(FaceParameters(person, replace(base.sitting, hat="none")))["Bald"]


@given(seed=st.integers(0, 2**31), number=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_attributes_do_not_contradict_each_other(seed: int, number: int) -> None:
    attributes = attributes_of(face(seed, number))
    assert len(attributes) == 40
    hair = ("Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair")
    assert sum(attributes[name] for name in hair) <= 1
    if attributes["Bald"]:
        assert not any(attributes[name] for name in (*hair, "Bangs", "Straight_Hair", "Wavy_Hair", "Receding_Hairline"))
    assert not (attributes["Straight_Hair"] and attributes["Wavy_Hair"])
    assert not (attributes["No_Beard"] and (attributes["Goatee"] or attributes["Mustache"]))
    assert not (attributes["Big_Nose"] and attributes["Pointy_Nose"])


@pytest.mark.parametrize("size", [(178, 218), (64, 64), (32, 50), (120, 60)])
def test_faces_come_in_the_size_asked_for(size: tuple[int, int]) -> None:
    picture = draw_face(face(0, 2), size)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8
    assert picture.std() > 15


def test_wikiart_has_the_official_layout(wikiart: Path) -> None:
    files = sorted(wikiart.rglob("*.jpg"))
    assert len(files) == 2 * len(STYLES) + 1
    assert {path.parent.name for path in files} == set(STYLES)
    shapes = set()
    for path in files:
        assert path.parent.parent == wikiart
        artist, title = path.stem.split("_")
        assert artist.startswith("demo-")
        assert title
        with Image.open(path) as image:
            image.load()
            assert (image.format, image.mode) == ("JPEG", "RGB")
            shapes.add(image.size)
            assert 0.9 < image.width * image.height / (128 * 160) < 1.1
    assert len(shapes) >= 4
    assert len({path.stem.split("_")[0] for path in files}) == len(STYLES)


def test_paintings_depend_on_the_seed_alone(wikiart: Path, tmp_path: Path) -> None:
    draw_wikiart(tmp_path / "again", count=len(STYLES), size=(128, 160), seed=3)
    ours = digests(wikiart)
    again = digests(tmp_path / "again")
    assert len(again) == len(STYLES)
    assert all(ours[name] == digest for name, digest in again.items())
    draw_wikiart(tmp_path / "other", count=len(STYLES), size=(128, 160), seed=4)
    assert all(again[name] != digest for name, digest in digests(tmp_path / "other").items())


def statistics(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Log gradient energy at four scales, log number of coarse colours, saturation, mean colour, in like units."""
    image = Image.fromarray(picture)
    energy = []
    for factor in (1, 2, 4, 8):
        grey = np.asarray(image.convert("L").reduce(factor), dtype=np.float64)
        energy.append(np.log10(1 + np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean()))
    coarse, uses = np.unique((picture // 32).reshape(-1, 3), axis=0, return_counts=True)
    palette = np.log10(len(coarse[uses > picture.size / 3e4]))
    saturation = np.ptp(picture.astype(float), axis=2).mean() / 64
    return np.array([*energy, palette, saturation, *(picture.mean((0, 1)) / 64)])


def test_styles_differ_in_texture_and_palette() -> None:
    found = {
        name: np.stack([statistics(style.paint(np.random.default_rng(seed), (160, 200))) for seed in range(2)])
        for name, style in STYLES.items()
    }
    assert len(found) >= 6
    centres = np.stack([rows.mean(0) for rows in found.values()])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1) + 1e9 * np.eye(len(centres))
    assert gaps.min() > 0.3, dict(zip(found, gaps.min(1).round(2), strict=True))
    for name, rows in found.items():
        assert (rows[:, :4] > 0.8).all(), f"{name} has no texture at some scale: {rows[:, :4]}"


@pytest.mark.parametrize("name", list(STYLES))
@pytest.mark.parametrize("size", [(64, 64), (150, 97)])
def test_every_technique_takes_any_shape(name: str, size: tuple[int, int]) -> None:
    picture = STYLES[name].paint(np.random.default_rng(8), size)
    assert picture.shape == (size[1], size[0], 3)
    assert picture.dtype == np.uint8


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"identities": 2}, "identities is 2"),
        ({"images_per_identity": 0}, "images_per_identity is 0"),
        ({"size": (20, 109)}, "20x109 is too small"),
    ],
)
def test_bad_face_arguments(tmp_path: Path, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw_celeba(tmp_path / "faces", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "faces").exists()


@pytest.mark.parametrize(
    ("arguments", "words"), [({"count": 0}, "count is 0"), ({"size": (256, 40)}, "256x40 is too small")]
)
def test_bad_painting_arguments(tmp_path: Path, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw_wikiart(tmp_path / "paintings", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "paintings").exists()
