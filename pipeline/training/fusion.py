"""Train and test Izadi's network in one of his three cases (Sec. 4); docs/fusion.md has what the paper leaves open."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

import numpy as np

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.backbones.loading import RANDOM, weights_digest
from pipeline.backbones.state_dict import read_state_dict
from pipeline.config import canonical_json
from pipeline.training import ranks
from pipeline.training.attribute_accuracy import AttributeAccuracy, attribute_accuracy, majority_class
from pipeline.training.best_checkpoint import read_best
from pipeline.training.device import check_device, training_device
from pipeline.training.embedding_cache import Precision
from pipeline.training.fusion_data import IDENTITY_ATTRIBUTES, Crop, FusionFaces, read_fusion_faces
from pipeline.training.fusion_network import CASES, MINIMUM_SIZE, Case, FusionNetwork
from pipeline.training.fusion_result import FusionResult
from pipeline.training.fusion_trainer import FusionTrainer
from pipeline.training.loop import fit
from pipeline.training.tensorboard_log import require_tensorboard
from pipeline.training.training_run import TrainingRun

RESULTS_FILE: Final = "results.json"
STAGE: Final = "fusion"
"""What config.json calls a run of this kind."""


@dataclass(frozen=True)
class FusionConfig:
    """What to train, and how. Defaults are the paper's where it has them.

    Attributes:
        faces: a catalogue with identities and, but for case "none", attributes; or, for case "none", a folder with one
            sub-folder per person. Photographs alone are used, of all splits.
        out: local folder of the training run.
        case: what of the attributes the identity branch sees; see `pipeline.training.fusion_network.Case`.
        weights: a checkpoint with VGG-16's convolutions under torchvision's names, for the trunk to begin with; or
            "random".
        epochs: to train; the paper trains until the training error converges, 50 is ours.
        patience: stop after so many epochs in a row without a higher training likelihood; None does not.
        seed: of the split, the initial weights, the order of training, mirroring and dropout. The same seed gives the
            three cases the same split, the same trunk and the same order.
        min_images: photographs that a person has at least; the paper's "more than 30".
        identities: people at most, those with most photographs.
        test_share: of each person's photographs.
        attributes: the facial attributes that are learned; not read in case "none".
        size: side of the square input in pixels; not in the paper, VGG-16's is 224.
        crop: left, top, right, bottom of what is used of each photograph, as fractions of its sides.
        width: factor on the trunk's channels.
        hidden: width of each branch's first fully connected layer.
        batch_norm, dropout: see `pipeline.training.fusion_network.FusionNetwork`; neither is in the paper.
        batch_size: images per step; not in the paper.
        lr: α of AdaMax; β₁ = 0.9 and β₂ = 0.999 are fixed.
        flip: mirror training photographs at random; not in the paper.
        precision: "fp32" or "bf16" (autocast).
        device: as PyTorch names it; None takes CUDA if there is any.

    Raises:
        InputError: a value is out of range.
    """

    faces: str
    out: str
    case: Case
    weights: str = RANDOM
    epochs: int = 50
    patience: int | None = None
    seed: int = 0
    min_images: int = 31
    identities: int = 20
    test_share: float = 0.2
    attributes: tuple[str, ...] = IDENTITY_ATTRIBUTES
    size: int = 224
    crop: Crop | None = None
    width: float = 1.0
    hidden: int = 4096
    batch_norm: bool = False
    dropout: float = 0.0
    batch_size: int = 32
    lr: float = 0.002
    flip: bool = False
    precision: Precision = "fp32"
    device: str | None = None

    def __post_init__(self) -> None:
        if self.case not in CASES:
            raise InputError(f'case "{self.case}" is unknown; choose from {", ".join(CASES)}')
        if self.precision not in get_args(Precision):
            raise InputError(f'precision "{self.precision}" is unknown; choose from {", ".join(get_args(Precision))}')
        check_device(self.device)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"the seed must lie in [0, 2^63), not {self.seed}")
        for name, value, least in (
            ("minimum of photographs per person", self.min_images, 2),
            ("number of identities", self.identities, 2),
            ("size", self.size, MINIMUM_SIZE),
            ("hidden width", self.hidden, 1),
            ("batch size", self.batch_size, 1),
            ("number of epochs", self.epochs, 1),
            ("patience", 1 if self.patience is None else self.patience, 1),
        ):
            if value < least:
                raise InputError(f"the {name} must be at least {least}, not {value}")
        if not 0 < self.test_share < 1:
            raise InputError(f"the share of test photographs must lie between 0 and 1, not {self.test_share}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must lie in [0, 1), not {self.dropout}")
        if not 0 < self.width < math.inf:
            raise InputError(f"the width must be above 0 and finite, not {self.width}")
        if not 0 < self.lr <= 1:
            raise InputError(f"the learning rate must be above 0 and at most 1, not {self.lr}")
        if self.crop is not None:
            left, top, right, bottom = self.crop
            if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
                raise InputError(
                    f"the crop must be left, top, right, bottom as fractions of the photograph, not {self.crop}"
                )
        self._check_attributes()

    def _check_attributes(self) -> None:
        unknown = [name for name in self.attributes if name not in ATTRIBUTES]
        if unknown:
            raise InputError(f'attribute "{unknown[0]}" is unknown; choose from {", ".join(ATTRIBUTES)}')
        if not self.attributes or len(set(self.attributes)) < len(self.attributes):
            raise InputError("name at least one attribute, and each of them once")

    def document(self) -> dict[str, Any]:
        """Return the settings that decide the result, apart from data and weights, as JSON has them."""
        elsewhere = {"faces", "out", "weights", "epochs", "patience", "device"}
        settings = {name: value for name, value in dataclasses.asdict(self).items() if name not in elsewhere}
        document: dict[str, Any] = json.loads(canonical_json({"stage": STAGE, **settings}))
        return document


def train_fusion(
    config: FusionConfig,
    *,
    quiet: bool = False,
    tensorboard: bool = False,
    notify: Callable[[str], None] = lambda sentence: None,
) -> FusionResult:
    """Train one case, or go on training it; test the best epoch's network and write results.json into OUT.

    Args:
        config: what and how.
        quiet: show no progress.
        tensorboard: write metrics for TensorBoard, too.
        notify: called with sentences the user should see.

    Raises:
        InputError: wrong input: faces or weights do not fit what is asked for; another run in OUT.
        RunError: training failed.
        Interrupted: Ctrl-C; the same command goes on.
        OSError: OUT cannot be written.
    """
    ranks.initialise(config.device)
    if tensorboard:
        require_tensorboard()
    device = training_device(config.device)
    wanted = () if config.case == "none" else config.attributes
    faces = read_fusion_faces(
        config.faces,
        attributes=wanted,
        min_images=config.min_images,
        identities=config.identities,
        test_share=config.test_share,
        seed=config.seed,
        size=config.size,
        crop=config.crop,
    )
    _check_batches(len(faces.train), config.batch_size)
    network = FusionNetwork(
        people=len(faces.people),
        attributes=len(wanted),
        case=config.case,
        size=config.size,
        width=config.width,
        hidden=config.hidden,
        batch_norm=config.batch_norm,
        dropout=config.dropout,
        seed=config.seed,
    )
    if config.weights != RANDOM:
        network.load_trunk(read_state_dict(config.weights), config.weights)
    run = TrainingRun.create_or_resume(config.out, config.document(), _fingerprint(faces, network), notify=notify)
    if ranks.rank() == 0:
        for sentence in faces.notes:
            notify(sentence)
    trainer = FusionTrainer(
        network,
        faces,
        batch_size=config.batch_size,
        lr=config.lr,
        flip=config.flip,
        seed=config.seed,
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
        notify=notify,
    )
    trainer.load_weights(read_best(run).weights)
    test = trainer.scores(faces.test)
    result = FusionResult(
        config=config.document(),
        people=faces.people,
        train_images=len(faces.train),
        test_images=len(faces.test),
        accuracy=test.accuracy,
        chance=_chance(faces),
        curve=tuple(metrics["train/accuracy"] for metrics in fitted.metrics),
        best_epoch=fitted.best_epoch,
        attributes=wanted,
        attribute_accuracy=None if test.predicted is None else _attribute_accuracy(test.predicted, faces),
    )

    def finish() -> None:
        run.write_json(RESULTS_FILE, result.as_dict())
        run.tidy()

    ranks.on_first_rank(finish)
    return result


def _check_batches(images: int, batch_size: int) -> None:
    processes = ranks.world_size()
    smallest = images // -(-images // batch_size)
    if smallest < processes:
        raise InputError(
            f"a batch has {smallest} of {images} training photographs and is shared by {processes} processes; "
            f"give a batch size of at least {2 * processes}, or fewer processes"
        )


def _fingerprint(faces: FusionFaces, network: FusionNetwork) -> dict[str, Any]:
    return {
        "faces": faces.digest,
        "people": len(faces.people),
        "train": len(faces.train),
        "test": len(faces.test),
        # Random ones, too: they are as the seed and this version of PyTorch make them.
        "trunk": weights_digest(network.features),
    }


def _chance(faces: FusionFaces) -> float:
    most = faces.classes[faces.train].bincount().argmax()
    return float((faces.classes[faces.test] == most).double().mean())


def _attribute_accuracy(predicted: np.ndarray[Any, np.dtype[np.bool_]], faces: FusionFaces) -> AttributeAccuracy:
    labels = faces.attributes.numpy()
    return attribute_accuracy(
        predicted, labels[faces.test], majority_class(labels[faces.train]), faces.classes[faces.test].numpy()
    )
