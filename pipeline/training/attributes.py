"""Train attribute heads on a built run and score them beside the majority class (PersonArt, Sec. 3.3, 5, 6.2).

The paper's Table 2 has six cells: trained on photographs, on proxies or on both ("joint"), scored on photographs and on
proxies. One training gives the two cells of its row, on the validation and on the test split.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.backbones.embedder import load_embedder
from pipeline.training import ranks
from pipeline.training.attribute_accuracy import majority_class
from pipeline.training.attribute_model import model_document
from pipeline.training.attribute_result import AttributesResult
from pipeline.training.attribute_trainer import AttributeData, AttributeTrainer, Criterion, TrainingSet
from pipeline.training.best_checkpoint import read_best
from pipeline.training.device import training_device
from pipeline.training.embedding_cache import DOMAINS, Precision, embeddings_of_all_ranks
from pipeline.training.loop import fit
from pipeline.training.model_file import MODEL_FILE
from pipeline.training.run_faces import UNKNOWN, RunFaces
from pipeline.training.setting_checks import check_choices, check_least, check_optimisation
from pipeline.training.split_overlap import overlap_remark, people_in_several_splits
from pipeline.training.tensorboard_log import require_tensorboard
from pipeline.training.training_run import TrainingRun

RESULTS_FILE: Final = "results.json"
TABLE_FILE: Final = "attributes.md"
EMBEDDINGS_FOLDER: Final = "embeddings"
STAGE: Final = "attributes"
"""What config.json calls a run of this kind."""

_CHOICES: Final = {"train_on": TrainingSet, "optimise_for": Criterion, "precision": Precision}


@dataclass(frozen=True)
class AttributesConfig:
    """What to train, and how. Defaults are the paper's where it has them.

    Attributes:
        run: the built run, a folder or any fsspec URL.
        out: local folder of the training run.
        backbone: name of the face recognition network; "timm:<model>" for one of timm's.
        weights: its checkpoint, or "random".
        train_on: "real" (photographs), "art" (proxies) or "joint" (both, so twice the pictures).
        epochs: to train; the best on the validation split is kept. The paper gives none; 30 is ours.
        patience: stop after so many epochs in a row without a better one; None does not.
        batch_size: pictures in a step, of all processes together.
        lr: Adam's learning rate at first, 1 at most; ×0.8 every 3 epochs.
        seed: of the heads' start, the order, dropout, and weights "random".
        crop: what the network sees of a picture: left, top, right, bottom as fractions; None is the card's.
        optimise_for: "accuracy": the paper's cross-entropy, best epoch by mean accuracy over the domains trained on.
            "balanced": both classes of an attribute count the same, best epoch by mean balanced accuracy.
        precision: of the heads' training: "fp32", or "bf16" (autocast).
        device: "cpu", "cuda" or "cuda:N"; None takes CUDA if there is any (see `training_device`).

    Raises:
        InputError: a value is out of range.
    """

    run: str
    out: str
    backbone: str
    weights: str
    train_on: TrainingSet = "joint"
    epochs: int = 30
    patience: int | None = None
    batch_size: int = 32
    lr: float = 1e-4
    seed: int = 0
    crop: tuple[float, float, float, float] | None = None
    optimise_for: Criterion = "accuracy"
    precision: Precision = "fp32"
    device: str | None = None

    def __post_init__(self) -> None:
        check_choices(self, _CHOICES)
        check_least(self, {"epochs": 1, "batch_size": 1, "patience": 1})
        check_optimisation(self.lr, self.seed, self.device)

    def document(self) -> dict[str, Any]:
        """Return the settings that decide the result, apart from data and weights, as JSON has them."""
        return {
            "stage": STAGE,
            "backbone": self.backbone,
            "train_on": self.train_on,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "seed": self.seed,
            "crop": self.crop,
            "optimise_for": self.optimise_for,
            "precision": self.precision,
        }


def train_attributes(
    config: AttributesConfig,
    *,
    faces: str | os.PathLike[str] | None = None,
    partial: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> AttributesResult:
    """Train, or go on training; then score the best epoch's heads and write results.json and attributes.md into OUT.

    OUT also gets model.json, from which `load_attribute_heads` makes a model as soon as there is a best epoch.

    Args:
        config: what and how.
        faces: where the photographs are now, if not where run.json says.
        partial: take what is there of an unfinished run.
        quiet: show no progress.
        tensorboard: write metrics for TensorBoard, too.
        notify: called with sentences the user should see.

    Raises:
        InputError: wrong input: no such run or checkpoint, no labels, no validation faces, another run in OUT.
        RunError: training failed.
        Interrupted: Ctrl-C; the same command goes on.
        OSError: OUT cannot be written.
    """
    if tensorboard:
        require_tensorboard()
    ranks.initialise(config.device)
    tell = notify if ranks.rank() == 0 else _ignore
    device = training_device(config.device)
    run_faces = RunFaces.open(config.run, faces=faces, partial=partial)
    run_faces.refuse_folder_inside(config.out)
    if "valid" not in run_faces.splits:
        raise InputError(
            f'"{run_faces.url}" has no accepted proxy in split valid, by which the best epoch is chosen (it has '
            f"{', '.join(run_faces.splits)}); build it with split valid, too, from faces that have one "
            "(Celeb-A: list_eval_partition.txt)"
        )
    splits = ("train", "valid", "test") if "test" in run_faces.splits else ("train", "valid")
    indices = {split: run_faces.indices(split) for split in splits}
    unlabelled = _check_labels(run_faces, config.optimise_for)
    if unlabelled:
        tell(f"no face of the training split has a label for {', '.join(unlabelled)}; means leave them out")
    shared = people_in_several_splits(run_faces.identities, indices)
    if remark := overlap_remark(shared, "accuracy"):
        tell(remark)
    embedder = load_embedder(config.backbone, config.weights, crop=config.crop, seed=config.seed, device=device)
    run = TrainingRun.create_or_resume(
        config.out,
        config.document(),
        {
            "faces": run_faces.fingerprint,
            "weights": embedder.digest,
            "crop": embedder.face_input.crop,
            "counts": {split: len(rows) for split, rows in indices.items()},
            "unlabelled": unlabelled,
        },
        notify=tell,
    )
    document = model_document(
        embedder,
        weights=config.weights,
        seed=config.seed,
        train_on=config.train_on,
        attributes=ATTRIBUTES,
        untrained=unlabelled,
    )
    ranks.on_first_rank(lambda: run.write_json(MODEL_FILE, document))
    # People whose name is not known are told apart by their photograph.
    persons = np.where(run_faces.identities == UNKNOWN, -1 - run_faces.sources, run_faces.identities)
    data = AttributeData(
        embeddings_of_all_ranks(run_faces, embedder, run.path(EMBEDDINGS_FOLDER), quiet=quiet),
        run_faces.attributes,
        persons,
        indices,
    )
    del embedder  # its memory is the heads'
    trainer = AttributeTrainer(
        data,
        train_on=config.train_on,
        batch_size=config.batch_size,
        lr=config.lr,
        seed=config.seed,
        optimise_for=config.optimise_for,
        precision=config.precision,
        device=device,
    )
    fitted = fit(
        trainer,
        run,
        epochs=config.epochs,
        patience=config.patience,
        quiet=quiet,
        tensorboard=tensorboard,
        notify=tell,
    )
    trainer.heads.load_state_dict(dict(read_best(run).weights))
    pictures = {"real": "photographs", "art": "proxies", "joint": "photographs and proxies"}[config.train_on]
    result = AttributesResult(
        title=f"attribute heads on {config.backbone}, trained on {pictures} of {len(indices['train'])} faces, "
        f"epoch {fitted.best_epoch} of {len(fitted.metrics)}",
        config=config.document(),
        faces={split: len(rows) for split, rows in indices.items()},
        epochs=len(fitted.metrics),
        best_epoch=fitted.best_epoch,
        majority=data.majority,
        cells={
            split: {domain: data.accuracy(trainer.heads, split, domain) for domain in DOMAINS} for split in splits[1:]
        },
        people_in_several_splits=shared,
    )

    def finish() -> None:
        run.write_json(RESULTS_FILE, result.as_dict())
        run.write(TABLE_FILE, result.markdown().encode())
        run.tidy()

    ranks.on_first_rank(finish)
    return result


def _ignore(sentence: str) -> None:
    pass


def _check_labels(faces: RunFaces, criterion: Criterion) -> list[str]:
    """Return the attributes without a label in training; InputError where there is nothing to train or to choose by."""
    train, valid = (faces.attributes[faces.indices(split)] for split in ("train", "valid"))
    majority = majority_class(train)
    advice = "build it from faces that have them (Celeb-A: list_attr_celeba.txt)"
    if (majority < 0).all():
        raise InputError(f'split train of "{faces.url}" has no attribute labels; {advice}')
    yes, no = (valid == 1).any(0), (valid == 0).any(0)
    usable = (yes & no) if criterion == "balanced" else (yes | no)
    if not (usable & (majority >= 0)).any():
        kind = "no attribute with both answers" if criterion == "balanced" else "no attribute labels"
        raise InputError(f'split valid of "{faces.url}" has {kind} to choose the best epoch by; {advice}')
    return [name for name, answer in zip(ATTRIBUTES, majority, strict=True) if answer < 0]
