"""The main job on an embedded default: draw faces and paintings, build a data set, show it, train on it, search it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from manifests.commit import publish
from manifests.errors import InputError, RunError
from pipeline.build import BuildSummary, build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.demo.procedural_paintings import draw_wikiart
from pipeline.inspection import Report, preview, verify_run
from pipeline.retrieval.evaluate_set import EvaluateConfig, SetEvaluation, evaluate_set
from pipeline.training.attribute_result import AttributesResult
from pipeline.training.attributes import AttributesConfig, train_attributes
from pipeline.training.identity import IdentityConfig, train_identity
from pipeline.training.identity_result import IdentityResult
from stylize.settings import TransferSettings

IDENTITIES, IMAGES_PER_IDENTITY, PAINTINGS = 24, 3, 12
EVALUATIONS = 20
# Of the drawn faces with random weights, after 20 evaluations: a few of the 72 need a second painting.
THRESHOLD = 80.0

BACKBONE = "mobilefacenet"
EPOCHS, BATCH_SIZE = 20, 16
LEARNING_RATE = 1e-3  # a hundred times the paper's: twenty epochs of a few steps have to show something
ATTRIBUTE_EPOCHS = 4  # the heads are 27 million weights; on random features more epochs find nothing more

FACES_FOLDER, PAINTINGS_FOLDER, DATASET_FOLDER, SHEET_FILE = "celeba", "wikiart", "dataset", "contact-sheet.png"
IDENTITY_FOLDER, ATTRIBUTES_FOLDER, EVALUATION_FOLDER, REPORT_FILE = (
    "identity",
    "attributes",
    "evaluation",
    "report.html",
)
MARKER_FILE = ".stylize-demo"


@dataclass(frozen=True)
class Demo:
    """Where everything is, and what came of it.

    Attributes:
        dataset, sheet: the run, and pictures of it.
        summary, report: of building it, and of verifying it.
        identity, attributes: of training on it.
        evaluation: of searching its test split.
        page: the evaluation's report, HTML.
    """

    dataset: Path
    sheet: Path
    summary: BuildSummary
    report: Report
    identity: IdentityResult
    attributes: AttributesResult
    evaluation: SetEvaluation
    page: Path


def run_demo(
    out: str | os.PathLike[str],
    *,
    weights: str = "random",
    execution: ExecutionConfig | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Demo:
    """Draw 72 faces of 24 people and 12 paintings under `out`; build, verify and preview a data set; train; evaluate.

    Running it again resumes it. Needs no download and no data: with "random" weights the proxies show that everything
    works and nothing more. So does the training, of identity and of attributes, on an untrained backbone, and so does
    the report that it ends with: the drawn people of the test split searched among their proxies, and simulated
    feedback.

    Args:
        out: new, empty, or of an earlier demo.
        weights: of VGG-19, as `stylize.weights.load_weights` takes them.
        execution: where and how fast.
        notify: called with what is being done.

    Raises:
        InputError: `out` holds something else.
        RunError: the build, a training or the evaluation failed, or the data set is not clean.
    """
    root = Path(out)
    entries = {entry.name for entry in root.iterdir()} if root.is_dir() else set()
    if root.exists() and not root.is_dir():
        raise InputError(f'"{root}" is a file; choose an empty or new folder')
    if entries and MARKER_FILE not in entries:  # somebody's own celeba/ must not be drawn into
        raise InputError(f'"{root}" holds something else ({min(entries)}); choose an empty or new folder')
    try:
        root.mkdir(parents=True, exist_ok=True)
        (root / MARKER_FILE).touch()
        notify(f"drawing {IDENTITIES * IMAGES_PER_IDENTITY} faces and {PAINTINGS} paintings under {root}")
        draw_celeba(root / FACES_FOLDER, identities=IDENTITIES, images_per_identity=IMAGES_PER_IDENTITY)
        draw_wikiart(root / PAINTINGS_FOLDER, count=PAINTINGS)
    except OSError as error:
        raise RunError(f'"{root}" cannot be written ({error.strerror}); choose another folder') from error
    if weights == "random":
        notify("random weights: a smoke run, the proxies mean nothing; give --weights imagenet for real ones")
    transfer = TransferSettings(evaluations=EVALUATIONS, threshold=THRESHOLD)
    summary = build(
        root / DATASET_FOLDER,
        root / FACES_FOLDER,
        root / PAINTINGS_FOLDER,
        BuildConfig(transfer, shard_size=8),
        execution,
        weights=weights,
        notify=notify,
    )
    report = verify_run(root / DATASET_FOLDER)
    if not report.clean:
        raise RunError(f"the demo's data set is not clean: {report.findings[0]}")
    preview(root / DATASET_FOLDER, root / SHEET_FILE)
    notify(f"training identity on it, {EPOCHS} epochs, with {BACKBONE} as it is without training")
    run = str(root / DATASET_FOLDER)
    config = IdentityConfig(
        run=run,
        out=str(root / IDENTITY_FOLDER),
        backbone=BACKBONE,
        weights="random",
        lr=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
    )
    # What it has to say is that to an untrained network all faces look alike.
    identity = train_identity(config, quiet=True)
    notify(f"training attributes on it, {ATTRIBUTE_EPOCHS} epochs")
    attributes = train_attributes(
        AttributesConfig(
            run=run,
            out=str(root / ATTRIBUTES_FOLDER),
            backbone=BACKBONE,
            weights="random",
            lr=LEARNING_RATE,
            batch_size=BATCH_SIZE,
            epochs=ATTRIBUTE_EPOCHS,
        ),
        quiet=True,
    )
    notify("searching its test split with both")
    evaluation = evaluate_set(
        EvaluateConfig(
            test_set=run,
            out=str(root / EVALUATION_FOLDER),
            models=(config.out,),
            attributes=(str(root / ATTRIBUTES_FOLDER),),
            agreement="labels",  # heads of an untrained network give everybody the same answers, and all would agree
        ),
        quiet=True,
    )
    return Demo(
        root / DATASET_FOLDER,
        root / SHEET_FILE,
        summary,
        report,
        identity,
        attributes,
        evaluation,
        _beside_the_sheet(root),
    )


def _beside_the_sheet(root: Path) -> Path:
    """Put a copy of the evaluation's report where it is seen; it is whole by itself."""
    page = root / REPORT_FILE
    try:
        publish(LocalFileSystem(), str(page), (root / EVALUATION_FOLDER / REPORT_FILE).read_bytes(), journal=str(root))
    except OSError as error:
        raise RunError(f'"{page}" cannot be written ({error.strerror}); choose another folder') from error
    return page
