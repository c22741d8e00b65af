"""What the catalogue of extracted faces adds to a museum: whole pictures, and where in them the faces are."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.errors import RunError
from pipeline.exhibition.extracted_faces import with_extracted_faces
from pipeline.exhibition.museum import Box, Museum, Work, plain_museum
from pipeline.faces.crop_name import face_id
from pipeline.faces.face_catalogue import FACE_SCHEMA, FACES_FILE
from pipeline.retrieval.index import Index, open_index
from pipeline.retrieval.make_index import make_index
from pipeline.retrieval.retrieval_model import ModelPlaces
from tests.trained_models import register_tiny

PAINTINGS = {"guido-reni_a-saint.jpg": (400, 200), "duke.jpg": (200, 300)}


def row(painting: str, number: int, box: tuple[float, float, float, float], source: Path, **rest) -> dict[str, object]:
    name = face_id(painting, number, "png")
    width, height = PAINTINGS[painting]
    return {
        **dict.fromkeys(("title", "artist", "style", "genre", "landmarks", "reason")),
        "face": name,
        "crop": f"faces/{name}",
        "painting": painting,
        "source": str(source),
        "locator": painting,
        "picture_width": width,
        "picture_height": height,
        **dict(zip(("x", "y", "width", "height"), box, strict=True)),
        **dict(zip(("crop_x", "crop_y", "crop_width", "crop_height"), (0, 0, 48, 48), strict=True)),
        "score": 0.9,
        "detector": "test",
        "struck": False,
    } | rest


@pytest.fixture
def extraction(tmp_path: Path, monkeypatch) -> Path:
    """Two paintings and three faces of them, extracted and indexed."""
    register_tiny(monkeypatch)
    source = tmp_path / "paintings"
    source.mkdir()
    for name, size in PAINTINGS.items():
        Image.new("RGB", size).save(source / name)
    rows = [
        row("guido-reni_a-saint.jpg", 1, (100, 50, 40, 60), source),
        row("guido-reni_a-saint.jpg", 2, (380, -10, 40, 60), source, title="A saint and a lion", artist="G. Reni"),
        row("duke.jpg", 1, (50, 75, 100, 150), source),
    ]
    crops = tmp_path / "out" / "faces"
    crops.mkdir(parents=True)
    for each in rows:
        Image.new("RGB", (48, 48), (len(str(each["face"])), 90, 30)).save(crops / str(each["face"]))
    pq.write_table(pa.Table.from_pylist(rows, FACE_SCHEMA), tmp_path / "out" / FACES_FILE)
    make_index(crops, tmp_path / "index", ModelPlaces(backbone="tiny", weights="random"), quiet=True)
    return tmp_path


def indexed(place: Path) -> Index:
    return open_index(place / "index")


def test_a_museum_without_a_file_shows_whole_pictures_and_where_the_faces_are(extraction):
    index = indexed(extraction)
    museum = with_extracted_faces(plain_museum(index), index)
    saint, duke = (museum.works[name] for name in PAINTINGS)
    assert saint.picture == extraction / "paintings" / "guido-reni_a-saint.jpg"
    assert duke.picture == extraction / "paintings" / "duke.jpg"
    assert museum.boxes == {
        "guido-reni_a-saint.jpg.1.png": Box(0.25, 0.25, 0.1, 0.3),
        "guido-reni_a-saint.jpg.2.png": Box(0.95, 0.0, pytest.approx(0.05), 0.25),  # type: ignore[arg-type]
        "duke.jpg.1.png": Box(0.25, 0.25, 0.5, 0.5),
    }
    assert museum.work_of("duke.jpg.1.png", "duke.jpg.1.png") is duke
    assert museum.unmatched([("duke.jpg.1.png", "duke.jpg.1.png")]) == ["guido-reni_a-saint.jpg"]


def test_the_museums_own_words_and_pictures_come_first(extraction):
    copy, other = extraction / "copy.png", extraction / "other.png"
    Image.new("RGB", (100, 50)).save(copy)
    Image.new("RGB", (100, 60)).save(other)
    text = {"en": "Own", "it": "Proprio"}
    works = {name: Work(name, text) for name in ("guido-reni_a-saint", "duke")}
    works["guido-reni_a-saint"] = replace(works["guido-reni_a-saint"], picture=copy)
    museum = with_extracted_faces(Museum(text, works=works), indexed(extraction))
    assert [*museum.works] == [*works]
    assert all(work.title == text for work in museum.works.values())
    assert museum.works["guido-reni_a-saint"].picture == copy
    assert museum.works["duke"].picture == extraction / "paintings" / "duke.jpg"
    assert len(museum.boxes) == 3  # a smaller copy has the same proportions

    works["guido-reni_a-saint"] = replace(works["guido-reni_a-saint"], picture=other)
    museum = with_extracted_faces(Museum(text, works=works), indexed(extraction))
    assert [*museum.boxes] == ["duke.jpg.1.png"]  # where the face is in another photograph is not known


def test_works_that_the_museums_file_does_not_have_are_catalogued(extraction):
    museum = with_extracted_faces(Museum({"en": "T", "it": "T"}), indexed(extraction))
    found = museum.works["guido-reni_a-saint.jpg"]
    assert (found.title["it"], found.artist) == ("A saint", "Guido Reni")
    catalogued = [row("duke.jpg", 1, (0, 0, 9, 9), extraction, title="The Duke", artist="Anna Rossi")]
    pq.write_table(pa.Table.from_pylist(catalogued, FACE_SCHEMA), extraction / "out" / FACES_FILE)
    museum = with_extracted_faces(Museum({"en": "T", "it": "T"}), indexed(extraction))
    assert [*museum.works] == ["duke.jpg"]
    assert (museum.works["duke.jpg"].title["en"], museum.works["duke.jpg"].artist) == ("The Duke", "Anna Rossi")
    assert museum.works["duke.jpg"].picture is None  # the photograph is not there
    assert museum.boxes == {}


def test_an_index_of_other_pictures_leaves_the_museum_as_it_is(extraction, tmp_path):
    (tmp_path / "plain").mkdir()
    Image.new("RGB", (48, 48)).save(tmp_path / "plain" / "x.png")
    make_index(tmp_path / "plain", tmp_path / "index2", ModelPlaces(backbone="tiny", weights="random"), quiet=True)
    museum = Museum({"en": "T", "it": "T"})
    assert with_extracted_faces(museum, open_index(tmp_path / "index2")) is museum


def test_a_damaged_catalogue_is_named(extraction):
    (extraction / "out" / "catalogue.parquet").write_bytes(b"PAR1 no more")
    index = indexed(extraction)
    with pytest.raises(RunError, match=r"catalogue\.parquet"):
        with_extracted_faces(plain_museum(index), index)


def test_a_photograph_that_has_gone_is_done_without(extraction):
    (extraction / "paintings" / "duke.jpg").unlink()
    (extraction / "paintings" / "guido-reni_a-saint.jpg").write_bytes(b"damaged")
    index = indexed(extraction)
    museum = with_extracted_faces(plain_museum(index), index)
    assert museum.works["duke.jpg"].picture is None
    assert museum.boxes == {}
