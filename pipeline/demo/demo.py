"""The main job on an embedded default: draw faces and paintings, build a data set, verify it, show it, train on it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import InputError, RunError
from pipeline.build import BuildSummary, build
from pipeline.config import BuildConfig, ExecutionConfig
from pipeline.demo.cartoon_faces import draw_celeba
from pipeline.demo.procedural_paintings import draw_wikiart
from pipeline.inspection import Report, preview, verify_run
from pipeline.training.identity import IdentityConfig, train_identity
from pipeline.training.identity_result import IdentityResult
from stylize.settings import TransferSettings

IDENTITIES, IMAGES_PER_IDENTITY, PAINTINGS = 16, 4, 12
EVALUATIONS = 20
# Of the drawn faces with random weights, after 20 evaluations: a few of the 64 need a second painting.
THRESHOLD = 80.0

BACKBONE = "mobilefacenet"
EPOCHS, BATCH_SIZE = 20, 16
LEARNING_RATE = 1e-3  # a hundred times the paper's: twenty epochs of three steps have to show something

FACES_FOLDER, PAINTINGS_FOLDER, DATASET_FOLDER, SHEET_FILE = "celeba", "wikiart", "dataset", "contact-sheet.png"
IDENTITY_FOLDER = "identity"
MARKER_FILE = ".stylize-demo"


@dataclass(frozen=True)
class Demo:
    """Where everything is, and what came of it."""

    dataset: Path
    sheet: Path
    summary: BuildSummary
    report: Report
    identity: IdentityResult


def run_demo(
    out: str | os.PathLike[str],
    *,
    weights: str = "random",
    execution: ExecutionConfig | None = None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Demo:
    """Draw 64 cartoon faces of 16 people and 12 paintings under `out`; build, verify and preview a data set; train.

    Running it again resumes it. Needs no download and no data: with "random" weights the proxies show that everything
    works and nothing more. So does the training: the projections of `pipeline.training.identity` on an untrained
    backbone, with recall on the drawn people held out, before and after.

    Args:
        out: new, empty, or of an earlier demo.
        weights: of VGG-19, as `stylize.weights.load_weights` takes them.
        execution: where and how fast.
        notify: called with what is being done.

    Raises:
        InputError: `out` holds something else.
        RunError: the build or the training failed, or the data set is not clean.
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
    config = IdentityConfig(
        run=str(root / DATASET_FOLDER),
        out=str(root / IDENTITY_FOLDER),
        backbone=BACKBONE,
        weights="random",
        lr=LEARNING_RATE,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
    )
    # What it has to say is that to an untrained network all faces look alike.
    identity = train_identity(config, quiet=True)
    return Demo(root / DATASET_FOLDER, root / SHEET_FILE, summary, report, identity)
