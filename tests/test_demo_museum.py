"""The demo's museum, on a stand-in of what `stylize demo` makes: same folders, fewer and smaller pictures."""

import shutil
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError, RunError
from manifests.faces import read_faces
from manifests.run import RunDirectory
from manifests.shard import write_shard
from pipeline.demo import demo
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.demo.procedural_paintings import STYLES
from pipeline.exhibition import demo_museum as module
from pipeline.exhibition.demo_museum import DemoMuseum, demo_museum
from pipeline.exhibition.demo_pictures import enlarged
from pipeline.exhibition.demo_works import DemoPicture, demo_rooms, demo_works
from pipeline.exhibition.museum import LANGUAGES
from pipeline.retrieval.index import open_index
from pipeline.retrieval.search import search
from pipeline.training import attribute_trainer
from pipeline.training.attribute_heads import AttributeHeads
from pipeline.training.attributes import RESULTS_FILE, AttributesConfig, train_attributes
from tests.labelled_run import shard_row
from tests.small_run import run_content
from tests.trained_models import WIDTHS, register_tiny, write_attributes, write_identity

PEOPLE, EACH = 3, 2
ARTISTS = sorted(style.artist for style in STYLES.values())


def write_demo(root: Path) -> None:
    """Write what `run_demo` leaves: drawn faces, a run of them, an identity model, and the report at last."""
    root.mkdir(parents=True, exist_ok=True)
    (root / demo.MARKER_FILE).touch()
    draw_celeba(root / demo.FACES_FOLDER, identities=PEOPLE, images_per_identity=EACH, size=(32, 40))
    faces = read_faces(root / demo.FACES_FOLDER)
    rows = faces.table.to_pylist()
    content = run_content(dict(Counter(row["split"] for row in rows)), 8)
    content["inputs"]["faces"]["digest"] = faces.digest
    content["paths"] = {"faces": str(root / demo.FACES_FOLDER)}
    run = RunDirectory.create(root / demo.DATASET_FOLDER, content)
    for name in run.planned():
        own = [(at, row) for at, row in enumerate(rows) if row["split"] == name.split]
        bits = [np.array([row[attribute] for attribute in ATTRIBUTES]) for _, row in own]
        written = [
            replace(shard_row((row["image_id"], row["split"], row["identity"], at), labels, True), artist=ARTISTS[at])
            for (at, row), labels in zip(own, bits, strict=True)
        ]
        write_shard(run, name, written)
    run.finish()
    write_identity(root / demo.IDENTITY_FOLDER)
    (root / demo.REPORT_FILE).touch()


def untrained_heads(config: AttributesConfig, **_: object) -> None:
    """Write what a training leaves, at once."""
    write_attributes(Path(config.out))
    (Path(config.out) / RESULTS_FILE).touch()


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("template") / "demo"
    with pytest.MonkeyPatch.context() as patch:
        register_tiny(patch)
        write_demo(folder)
    return folder


@pytest.fixture
def made(tmp_path, monkeypatch, template) -> tuple[Path, list[str]]:
    """Return an empty folder, and a list of what is done, which grows."""
    register_tiny(monkeypatch)
    done: list[str] = []

    def run_demo(out, **_: object) -> None:
        done.append("demo")
        if Path(out).exists() and any(Path(out).iterdir()) and not (Path(out) / demo.MARKER_FILE).exists():
            raise InputError(f'"{out}" holds something else')
        shutil.copytree(template, out, dirs_exist_ok=True)

    def noted(name):
        original = getattr(module, name)

        def call(*args, **options):
            done.append(name)
            return original(*args, **options)

        return call

    monkeypatch.setattr(demo, "run_demo", run_demo)
    monkeypatch.setattr(demo, "IDENTITIES", PEOPLE)
    monkeypatch.setattr(demo, "IMAGES_PER_IDENTITY", EACH)
    monkeypatch.setattr(module, "BACKBONE", "tiny")
    monkeypatch.setattr(module, "EPOCHS", 1)
    monkeypatch.setattr(module, "train_attributes", untrained_heads)
    for name in ("enlarge_proxies", "train_attributes", "make_index"):
        monkeypatch.setattr(module, name, noted(name))
    return tmp_path / "demo", done


def opened(folder: Path) -> DemoMuseum:
    return demo_museum(folder, device="cpu")


def test_a_fresh_machine_gets_a_museum_of_all_splits(made, monkeypatch):
    folder, done = made
    monkeypatch.setattr(module, "train_attributes", train_attributes)
    monkeypatch.setattr(attribute_trainer, "AttributeHeads", partial(AttributeHeads, widths=WIDTHS))
    found = opened(folder)
    assert done == ["demo", "enlarge_proxies", "make_index"]
    museum, index = found.museum, open_index(found.index)
    names = {f"{number:06d}.jpg" for number in range(1, PEOPLE * EACH + 1)}
    assert set(museum.works) == names == set(index.gallery.table["id"].to_pylist())
    assert museum.unmatched([(name, name) for name in names]) == []
    for name, work in museum.works.items():
        assert museum.work_of(name, name) is work
        assert work.picture is not None
        with Image.open(work.picture) as picture:
            assert picture.size == (4 * 16, 4 * 20)  # of the run's own pictures
        assert museum.room_of(work) is not None
        assert museum.place_of(work) is not None
        assert {*work.title} == {*(work.text or {})} == {*LANGUAGES}
    assert museum.plan is not None
    assert len(museum.rooms) == 5
    hits = search(folder / "celeba" / "img_align_celeba" / "000001.jpg", found.index, k=3, places=found.places).hits
    assert len(hits) == 3


def test_what_is_there_is_not_made_again(made):
    folder, done = made
    first = opened(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    done.clear()
    again = opened(folder)
    assert done == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before
    assert again.museum.works == first.museum.works
    assert (again.index, again.places) == (first.index, first.places)


def test_a_folder_that_was_moved_is_indexed_anew(made, tmp_path):
    folder, done = made
    opened(folder)
    shutil.move(folder, tmp_path / "elsewhere")
    done.clear()
    found = opened(tmp_path / "elsewhere")
    assert done == ["make_index"]
    assert open_index(found.index).picture(0).shape == (80, 64, 3)
    assert str(tmp_path / "elsewhere") in str(found.places.attributes)


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("museum/pictures", ["enlarge_proxies"]),
        ("museum/attributes/results.json", ["train_attributes"]),
        ("museum/index", ["make_index"]),
        ("museum/index/index.json", ["make_index"]),
        ("report.html", ["demo"]),
        ("museum/made-of.json", ["enlarge_proxies", "train_attributes", "make_index"]),
    ],
)
def test_an_interrupted_call_goes_on(made, lost, again):
    folder, done = made
    before = opened(folder).museum
    path = folder / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done.clear()
    if again == ["demo"]:  # the stand-in cannot resume
        shutil.rmtree(folder / "dataset")
    after = opened(folder)
    assert done == again
    assert after.museum.works == before.works
    assert len(open_index(after.index)) == PEOPLE * EACH
    assert not [*(folder / "museum").glob(".*")]


def test_another_data_set_gets_another_museum(made):
    folder, done = made
    opened(folder)
    note = folder / "museum" / "made-of.json"
    note.write_text('{"faces": "other"}\n')
    (folder / "museum" / "mine.txt").touch()
    done.clear()
    opened(folder)
    assert done == ["enlarge_proxies", "train_attributes", "make_index"]
    assert (folder / "museum" / "mine.txt").exists()


def test_somebody_elses_folder_is_left_alone(made):
    folder, _ = made
    folder.mkdir()
    (folder / "thesis.txt").touch()
    (folder / "report.html").touch()
    with pytest.raises(InputError, match="holds something else"):
        opened(folder)
    assert {path.name for path in folder.iterdir()} == {"thesis.txt", "report.html"}


def test_a_full_disk_is_said_in_a_sentence(made, monkeypatch):
    folder, _ = made

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "enlarge_proxies", full)
    with pytest.raises(RunError, match=r"museum. cannot be written \(No space left on device\)"):
        opened(folder)


def pictures(count: int, artist: int = 0, labels: tuple[str, ...] = ()) -> list[DemoPicture]:
    return [
        DemoPicture(f"{at:03d}", at // 3, labels, ARTISTS[(at + artist) % len(ARTISTS)], Path(f"{at}.jpg"))
        for at in range(count)
    ]


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sets(st.sampled_from(["Male", "Eyeglasses", "Smiling", "Wearing_Hat", "Mustache", "Young"])),
            st.sampled_from([*ARTISTS, "somebody-else", None]),
        ),
        max_size=60,
    )
)
def test_no_two_pictures_have_one_title_or_hang_in_one_place(given_pictures):
    made = [
        DemoPicture(f"{at:03d}", person, labels, artist, Path("x.jpg"))
        for at, (person, labels, artist) in enumerate(given_pictures)
    ]
    works = demo_works(made)
    assert [*works] == [picture.id for picture in made]
    for language in LANGUAGES:
        assert len({work.title[language] for work in works.values()}) == len(works)
    assert len({(work.x, work.y) for work in works.values()}) == len(works)
    assert all(work.room in demo_rooms() for work in works.values())
    assert demo_works([*reversed(made)]) == works


def test_titles_say_what_is_seen_and_who_sat():
    works = [*demo_works(pictures(3, labels=("Male", "Eyeglasses", "Smiling"))).values()]
    assert [work.title for work in works] == [
        {
            "en": "Portrait of Astolfo Pennello with spectacles",
            "it": "Ritratto di Astolfo Pennello con gli occhiali",
        },
        {"en": "Astolfo Pennello with spectacles", "it": "Astolfo Pennello con gli occhiali"},
        {"en": "Study of Astolfo Pennello with spectacles", "it": "Studio di Astolfo Pennello con gli occhiali"},
    ]
    assert demo_works(pictures(1))["000"].title["en"] == "Portrait of Alda Cornice looking straight ahead"


def test_every_painter_of_the_demo_has_a_name_and_a_room_and_every_room_a_painter():
    works = demo_works(pictures(len(ARTISTS)))
    assert len({work.artist for work in works.values()} - {None}) == len(ARTISTS) == 10
    assert Counter(work.room for work in works.values()) == dict.fromkeys(("I", "II", "III", "IV", "V"), 2)
    assert demo_works([DemoPicture("a", 1, (), None, Path("x"))])["a"].artist is None


def test_an_enlarged_proxy_is_the_proxy_when_it_is_reduced_again():
    large = np.asarray(Image.effect_noise((64, 80), 40).convert("RGB"))
    coarse = np.asarray(Image.fromarray(large).resize((16, 20), Image.Resampling.BOX))
    ramp = np.linspace(60, 200, 16)[None, :, None] + np.linspace(-40, 40, 20)[:, None, None]
    proxy = np.broadcast_to(ramp, (20, 16, 3)).round().astype(np.uint8)
    made = enlarged(proxy, large)
    assert made.shape == (80, 64, 3)
    assert made.dtype == np.uint8
    back = np.asarray(Image.fromarray(made).resize((16, 20), Image.Resampling.BOX)).astype(int)
    inner = np.s_[1:-1, 1:-1]
    assert np.abs(back - proxy)[inner].mean() < 4
    assert np.array_equal(enlarged(coarse, large), large)  # nothing was restyled: it is the drawing
