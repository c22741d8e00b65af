"""Train the joint identity space on a built run (Cornia et al., TOMM 2022, Sec. 3.2, 5 and 6.1).

Two regimes, the two lines of each row of the paper's Table 1: the projections alone, on embeddings that are computed
once and kept beside the run; or the backbone with them (``finetune``), from pictures.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from manifests.errors import InputError
from pipeline.backbones.embedder import load_embedder
from pipeline.training import ranks
from pipeline.training.best_checkpoint import read_best
from pipeline.training.device import training_device
from pipeline.training.embedding_cache import Precision, embeddings_of_all_ranks
from pipeline.training.identity_data import identity_data
from pipeline.training.identity_features import BackboneFeatures, CachedFeatures, Features
from pipeline.training.identity_model import model_document
from pipeline.training.identity_result import IdentityResult
from pipeline.training.identity_trainer import IdentityTrainer
from pipeline.training.loop import fit
from pipeline.training.model_file import MODEL_FILE
from pipeline.training.pair_sampler import Positives, batch_bounds
from pipeline.training.projection import AsymmetricProjections, Form
from pipeline.training.run_faces import UNKNOWN, RunFaces
from pipeline.training.setting_checks import check_choices, check_least, check_optimisation
from pipeline.training.split_overlap import overlap_remark, people_in_several_splits
from pipeline.training.tensorboard_log import require_tensorboard
from pipeline.training.training_run import TrainingRun
from pipeline.training.triplet_loss import MARGIN

RESULTS_FILE: Final = "results.json"
EMBEDDINGS_FOLDER: Final = "embeddings"
STAGE: Final = "identity"
"""What config.json calls a run of this kind."""

LR: Final = 1e-5
FINETUNING_LR: Final = 1e-6
"""Adam's learning rates of the paper's Sec. 5."""

_PLATEAU_STEPS: Final = 5000
_PLATEAU_EPOCHS: Final = 2
_CHOICES: Final = {"form": Form, "positives": Positives, "precision": Precision}


@dataclass(frozen=True)
class IdentityConfig:
    """What to train, and how. Defaults are the paper's where it has them.

    Attributes:
        run: the built run, a folder or any fsspec URL.
        out: local folder of the training run.
        backbone: name of the face recognition network; "timm:<model>" for one of timm's.
        weights: its checkpoint, or "random".
        form: of the projections: "residual", "literal" or "linear" (see `Projection`).
        positives: a photograph's partner is the proxy of "other" photographs of the person, or its "own".
        margin: α of Eq. 7.
        lr: of Adam, at first, 1 at most; None is the paper's: 1e-5, and 1e-6 with ``finetune``.
        batch_size: pairs in a step, of all processes together.
        epochs: to train at most; the best on the validation split is kept. The paper gives none; 300 is ours.
        plateau: epochs in a row without a better one after which the learning rate falls to a tenth. None is as many as
            5,000 steps take, two at least: that is what one epoch of all of Celeb-A has, while one of a few hundred
            faces has twenty, in which neither the weights nor the few queries for validation can move. Ours.
        patience: stop after so many epochs in a row without a better one; None is three times ``plateau``. Ours.
        seed: of partners, order, people held out for validation, and weights "random".
        finetune: train the backbone, too, all weights with the same learning rate.
        crop: what the network sees of a picture: left, top, right, bottom as fractions; None is the card's.
        precision: of the backbone: "fp32", or "bf16" (autocast).
        device: "cpu", "cuda" or "cuda:N"; None takes CUDA if there is any (see `training_device`).

    Raises:
        InputError: a value is out of range.
    """

    run: str
    out: str
    backbone: str
    weights: str
    form: Form = "residual"
    positives: Positives = "other"
    margin: float = MARGIN
    lr: float | None = None
    batch_size: int = 32
    epochs: int = 300
    plateau: int | None = None
    patience: int | None = None
    seed: int = 0
    finetune: bool = False
    crop: tuple[float, float, float, float] | None = None
    precision: Precision = "fp32"
    device: str | None = None

    def __post_init__(self) -> None:
        check_choices(self, _CHOICES)
        check_least(self, {"batch_size": 2, "epochs": 1, "patience": 1, "plateau": 1})
        if not 0 < self.margin < math.inf:
            raise InputError(f"margin must be a number above 0, not {self.margin}")
        check_optimisation(self.lr, self.seed, self.device)

    @property
    def learning_rate(self) -> float:
        """The one in use."""
        return self.lr if self.lr is not None else FINETUNING_LR if self.finetune else LR

    def plateau_epochs(self, steps: int) -> int:
        """Return the ``plateau`` in use for epochs of so many steps."""
        return self.plateau if self.plateau is not None else max(_PLATEAU_EPOCHS, -(-_PLATEAU_STEPS // steps))

    def document(self) -> dict[str, Any]:
        """Return the settings that decide the result, apart from data and weights, as JSON has them."""
        return {
            "stage": STAGE,
            "backbone": self.backbone,
            "form": self.form,
            "positives": self.positives,
            "margin": self.margin,
            "lr": self.learning_rate,
            "batch_size": self.batch_size,
            "plateau": self.plateau,
            "seed": self.seed,
            "finetune": self.finetune,
            "crop": self.crop,
            "precision": self.precision,
        }


def train_identity(
    config: IdentityConfig,
    *,
    faces: str | os.PathLike[str] | None = None,
    partial: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> IdentityResult:
    """Train, or go on training; then score the best epoch's model and write results.json into OUT.

    OUT also gets model.json, from which `load_identity_model` makes a model, as soon as there is a best epoch.

    Args:
        config: what and how.
        faces: where the photographs are now, if not where run.json says.
        partial: take what is there of an unfinished run.
        quiet: show no progress.
        tensorboard: write metrics for TensorBoard, too.
        notify: called with sentences the user should see.

    Raises:
        InputError: wrong input: no such run or checkpoint, no identities, people that cannot be told apart (see
            `identity_data`), another run in OUT.
        RunError: training failed.
        Interrupted: Ctrl-C; the same command goes on.
        OSError: OUT cannot be written.
    """
    if tensorboard:
        require_tensorboard()
    ranks.initialise(config.device)
    tell = notify if ranks.rank() == 0 else _ignore
    if config.batch_size < 2 * ranks.world_size():
        raise InputError(
            f"batch_size {config.batch_size} is too small for {ranks.world_size()} processes; give two pairs to each"
        )
    device = training_device(config.device)
    run_faces = RunFaces.open(config.run, faces=faces, partial=partial)
    run_faces.refuse_folder_inside(config.out)
    data = identity_data(run_faces, config.positives, config.batch_size, config.seed, tell)
    shared = people_in_several_splits(data.identities, data.splits)
    if remark := overlap_remark(shared, "recall"):
        tell(remark)
    embedder = load_embedder(config.backbone, config.weights, crop=config.crop, seed=config.seed, device=device)
    run = TrainingRun.create_or_resume(
        config.out,
        config.document(),
        {
            "faces": run_faces.fingerprint,
            "weights": embedder.digest,
            "crop": embedder.face_input.crop,
            "counts": {split: len(indices) for split, indices in data.splits.items()},
        },
        notify=tell,
    )
    document = model_document(
        embedder,
        weights=config.weights,
        seed=config.seed,
        form=config.form,
        finetuned=config.finetune,
        margin=config.margin,
    )
    ranks.on_first_rank(lambda: run.write_json(MODEL_FILE, document))
    features: Features
    if config.finetune:
        features = BackboneFeatures(run_faces, embedder, config.precision)
    else:
        folder = run.path(EMBEDDINGS_FOLDER)
        features = CachedFeatures(
            embeddings_of_all_ranks(run_faces, embedder, folder, precision=config.precision, quiet=quiet), device
        )
    plateau = config.plateau_epochs(len(batch_bounds(data.pairs, config.batch_size)) - 1)
    patience = config.patience if config.patience is not None else 3 * plateau
    trainer = IdentityTrainer(
        data,
        features,
        AsymmetricProjections(embedder.card.embedding, config.form),
        margin=config.margin,
        lr=config.learning_rate,
        batch_size=config.batch_size,
        plateau=plateau,
        positives=config.positives,
        seed=config.seed,
    )
    evaluated = [split for split in data.splits if split != "train"]
    before = {split: trainer.recall(split, bare=True) for split in evaluated}
    fitted = fit(
        trainer,
        run,
        epochs=config.epochs,
        patience=patience,
        quiet=quiet,
        tensorboard=tensorboard,
        notify=tell,
    )
    trainer.load_weights(read_best(run).weights)
    what = f"{config.form} projections" + (" and the backbone" if config.finetune else "")
    result = IdentityResult(
        title=f"{what} on {config.backbone}, epoch {fitted.best_epoch} of {len(fitted.metrics)}",
        config=config.document() | {"plateau": plateau, "patience": patience},
        faces={split: len(indices) for split, indices in data.splits.items()},
        people={split: _people(data.identities[indices]) for split, indices in data.splits.items()},
        pairs=data.pairs,
        left_out=data.left_out,
        epochs=len(fitted.metrics),
        best_epoch=fitted.best_epoch,
        before=before,
        after={split: trainer.recall(split) for split in evaluated},
        people_in_several_splits=shared,
    )

    def finish() -> None:
        run.write_json(RESULTS_FILE, result.as_dict())
        run.tidy()

    ranks.on_first_rank(finish)
    return result


def _ignore(sentence: str) -> None:
    pass


def _people(identities: np.ndarray[Any, np.dtype[np.int64]]) -> int:
    return int(np.unique(identities[identities != UNKNOWN]).size)
