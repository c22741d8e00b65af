"""The demo's museum: what `stylize exhibit --demo` opens on a machine that has nothing else."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from manifests import schema
from manifests.attributes import ATTRIBUTES
from manifests.commit import publish
from manifests.errors import InputError, RunError
from manifests.run import RunDirectory
from pipeline.config import ExecutionConfig
from pipeline.demo import demo
from pipeline.exhibition.demo_pictures import ENLARGED, enlarge_proxies
from pipeline.exhibition.demo_works import TITLE, DemoPicture, demo_rooms, demo_works
from pipeline.exhibition.floor_plan import draw_floor_plan
from pipeline.exhibition.museum import Museum
from pipeline.retrieval.index import open_index
from pipeline.retrieval.make_index import make_index
from pipeline.retrieval.retrieval_model import ModelPlaces
from pipeline.training.attributes import RESULTS_FILE, AttributesConfig, train_attributes
from pipeline.training.run_faces import RunFaces
from pipeline.training.training_run import STATE_FILE

DEFAULT_FOLDER: Final = "stylize-demo"
MUSEUM_FOLDER: Final = "museum"
PICTURES_FOLDER, HEADS_FOLDER, INDEX_FOLDER = "pictures", "attributes", "index"

# The demo's own heads sit on MobileFaceNet, whose untrained embeddings are 2e-4 long, and give everybody the same
# answers: no switch would leave or take anything. SphereFace's untrained ones are 0.4 long and differ between faces.
BACKBONE: Final = "sphereface20"
EPOCHS, BATCH_SIZE, LEARNING_RATE = 15, 16, 2e-3

_MADE_OF: Final = "made-of.json"


@dataclass(frozen=True, eq=False)
class DemoMuseum:
    """What `pipeline.exhibition.exhibit.exhibit` takes.

    Attributes:
        index: folder of the index.
        museum: rooms, plan and works.
        places: of the model, where it is now.
    """

    index: Path
    museum: Museum
    places: ModelPlaces


def demo_museum(
    folder: str | os.PathLike[str] | None = None,
    *,
    execution: ExecutionConfig | None = None,
    device: str | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> DemoMuseum:
    """Make the demo if it is not there, and of it a museum; what is there stays, and an interrupted call goes on.

    The collection is all of the demo's accepted proxies, of all splits: 72 pictures of 24 people. Twelve of a split
    would all be on the first page of results, with nothing left for likes and switches to bring up; and a split guards
    figures against flattery, where a visit has no figures. Pictures are the proxies, enlarged (`demo_pictures`), and
    described as `stylize index` describes a folder. Attribute heads of its own are trained for the switches, on
    photographs and proxies, with classes balanced. On the faces that they were trained with they are right in 92 % of
    all answers, on the others in 73 % (**measured**; of the 72, Wearing_Hat is right for 67, Smiling for 54), so most
    switches do what they say; what they say of a visitor's photograph means nothing.

    Args:
        folder: of `stylize demo`, made if need be; None is "stylize-demo".
        execution: where and how fast a demo is built that is not there.
        device: of training and describing, as for `training_device`.
        notify: called with what is being done.

    Raises:
        InputError: the folder holds something else.
        RunError: something failed on the way, or a file is damaged or cannot be written.
    """
    try:
        root = Path(DEFAULT_FOLDER if folder is None else folder).expanduser()
    except RuntimeError:
        raise InputError(f'"{folder}" begins with a user whom nobody knows here; write the whole path') from None
    if not (root / demo.REPORT_FILE).is_file() or not (root / demo.MARKER_FILE).is_file():
        notify(f"making the demo under {root} first; once, a few minutes")
        demo.run_demo(root, execution=execution, notify=notify)
    run = RunFaces.open(root / demo.DATASET_FOLDER, faces=root / demo.FACES_FOLDER)
    place = root / MUSEUM_FOLDER
    pictures, heads, index = (place / name for name in (PICTURES_FOLDER, HEADS_FOLDER, INDEX_FOLDER))
    places = ModelPlaces(identity=str(root / demo.IDENTITY_FOLDER), attributes=str(heads))
    try:
        _prepare(place, run)
        if not pictures.is_dir():
            notify(f"drawing {len(run)} pictures for the museum, {pictures}")
            enlarge_proxies(run, pictures)
    except OSError as error:
        raise RunError(f'"{place}" cannot be written ({error.strerror or error}); choose another folder') from error
    if not (heads / RESULTS_FILE).is_file():
        notify(f"training the switches of the museum, {EPOCHS} epochs, with {BACKBONE} as it is without training")
        _train(root, heads, device)
    if not _up_to_date(index, places, pictures, len(run)):
        shutil.rmtree(index, ignore_errors=True)
        make_index(pictures, index, places, device=device, quiet=True, notify=notify)
    museum = Museum(TITLE, plan=draw_floor_plan(), rooms=demo_rooms(), works=demo_works(_pictures(run, pictures)))
    return DemoMuseum(index, museum, places)


def _prepare(place: Path, run: RunFaces) -> None:
    """Make the museum's folder, and empty it of what was made of another data set, or otherwise than now."""
    place.mkdir(exist_ok=True)
    settings = [ENLARGED, BACKBONE, EPOCHS, BATCH_SIZE, LEARNING_RATE]
    made_of = json.dumps({"faces": run.fingerprint, "settings": settings}) + "\n"
    record = place / _MADE_OF
    if record.is_file() and record.read_text(encoding="utf-8") == made_of:
        return
    for name in (PICTURES_FOLDER, HEADS_FOLDER, INDEX_FOLDER):
        if (place / name).exists():
            shutil.rmtree(place / name)
    publish(LocalFileSystem(), str(record), made_of.encode(), journal=str(place))


def _train(root: Path, out: Path, device: str | None) -> None:
    config = AttributesConfig(
        run=str(root / demo.DATASET_FOLDER),
        out=str(out),
        backbone=BACKBONE,
        weights="random",
        lr=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        optimise_for="balanced",
        device=device,
    )
    try:
        train_attributes(config, faces=root / demo.FACES_FOLDER, quiet=True)
        (out / STATE_FILE).unlink(missing_ok=True)  # half a gigabyte, for a training that nobody will go on with
    except OSError as error:
        raise RunError(f'"{out}" cannot be written ({error.strerror or error}); choose another folder') from error


def _up_to_date(index: Path, places: ModelPlaces, pictures: Path, count: int) -> bool:
    """Return whether the index is whole and knows where everything is: the demo's folder may have been moved."""
    try:
        known = open_index(index)
    except (InputError, RunError):
        return False
    here = {os.path.abspath(pictures)}
    return (
        len(known) == count
        and known.places.as_dict() == places.as_dict()
        and {source.root for source in known.sources} == here
    )


def _pictures(run: RunFaces, folder: Path) -> list[DemoPicture]:
    artists = _artists(RunDirectory.open(run.url))
    ids = run.table[schema.IMAGE_ID].to_pylist()
    return [
        DemoPicture(
            id=name,
            person=int(person),
            labels=[attribute for attribute, bit in zip(ATTRIBUTES, bits, strict=True) if bit == 1],
            artist=artists.get(name),
            file=folder / name,
        )
        for name, person, bits in zip(ids, run.identities, run.attributes, strict=True)
    ]


def _artists(run: RunDirectory) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for name in run.committed():
        try:
            with run.parquet(name.manifest_file) as file:
                table = file.read(columns=[schema.IMAGE_ID, schema.ARTIST])
        except (OSError, pa.ArrowException, KeyError) as error:
            raise RunError(
                f'{name.manifest_file} of "{run.url}" cannot be read ({error}); run stylize verify'
            ) from error
        found |= dict(zip(*(table[column].to_pylist() for column in table.column_names), strict=True))
    return found
