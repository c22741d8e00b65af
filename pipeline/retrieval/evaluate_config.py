"""What `stylize evaluate` is asked for."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from manifests.attributes import ATTRIBUTES
from manifests.errors import InputError
from pipeline.retrieval import paper_results as paper
from pipeline.retrieval.attribute_agreement import Agreement
from pipeline.retrieval.feedback_settings import STRATEGIES, Draws, FeedbackSettings, simulation_choices, with_choices
from pipeline.retrieval.retrieval_model import Crop
from pipeline.retrieval.scoring import WEIGHT, check_weight
from pipeline.training.setting_checks import check_choices, check_least, check_optimisation

_TABLES: Final = (1, 2, 3, 4, 5)
_FIGURES: Final = (7,)
_BY_LAMBDA: Final = (3, 4)
_FEEDBACK_TABLE: Final = 5


@dataclass(frozen=True)
class EvaluateConfig:
    """A test set, models to search it with, and what of the paper to make.

    Attributes:
        test_set: a built run, or a test set in its published layout, as `pipeline.retrieval.test_set` opens it.
        out: local folder for the results, made if it is not there; files of an earlier evaluation that have the same
            names are replaced. None writes nothing.
        layout: of the test set; None recognises it.
        split: of a run.
        faces: where a run's photographs are now, if not where run.json says.
        queries: a run whose photographs (of `split`) search a set that has none, such as WikiArt Faces.
        models: folders of `stylize train identity`, each of which searches.
        backbone: instead of them, a bare network.
        weights: its checkpoint or "random"; for `models`, where their checkpoint is now.
        attributes: folder of `stylize train attributes`, in a tuple; several for Table 2 alone.
        art_attributes: another such folder, for art; by default `attributes` serves both domains.
        attribute_weights: where the checkpoint of the heads' network is now.
        crop: what the networks see of a picture, instead of what they were trained with.
        table: 1 to 5 makes that table of the paper alone.
        figure: 7 makes that figure of the paper alone. With neither of them everything is made that the test set and
            the models allow, and a report.
        lambdas: λ of Eq. 9. None is the paper's seven with attributes and 0 without; simulated feedback then takes the
            paper's 0.2, or 0, and Table 5 and Figure 7 otherwise take the one given.
        agreement: how attributes of a query and its first item are compared, see `attribute_agreement`.
        rounds: of feedback; 0 leaves it out where everything is made.
        feedback: choices of it as "NAME=VALUE", NAME a field of FeedbackSettings or "draws" (see `simulate_feedback`):
            they replace what each row of Table 5 has, and what Figure 7 is made with.
        seed: of the simulated user, and of random weights.
        batch_size: pictures at a time.
        device: "cpu", "cuda" or "cuda:N"; None takes CUDA if there is any (see `training_device`).

    Raises:
        InputError: a value is out of range, or values do not go together.
    """

    test_set: str
    out: str | None = None
    layout: str | None = None
    split: str = "test"
    faces: str | None = None
    queries: str | None = None
    models: tuple[str, ...] = ()
    backbone: str | None = None
    weights: str | None = None
    attributes: tuple[str, ...] = ()
    art_attributes: str | None = None
    attribute_weights: str | None = None
    crop: Crop | None = None
    table: int | None = None
    figure: int | None = None
    lambdas: tuple[float, ...] | None = None
    agreement: Agreement = "auto"
    rounds: int = 10
    feedback: tuple[str, ...] = ()
    seed: int = 0
    batch_size: int = 64
    device: str | None = None

    def __post_init__(self) -> None:
        check_choices(self, {"agreement": Agreement})
        check_least(self, {"batch_size": 1, "rounds": 0})
        check_optimisation(None, self.seed, self.device)
        self._check_work()
        self._check_models()
        self._check_lambdas()

    @property
    def everything(self) -> bool:
        """Whether neither a table nor a figure is asked for alone."""
        return self.table is None and self.figure is None

    @property
    def search_weights(self) -> tuple[float, ...]:
        """λ to search with."""
        if self.table == 1 or not self.attributes:
            return (0.0,)
        return self.lambdas or paper.WEIGHTS

    @property
    def feedback_weight(self) -> float:
        """λ of simulated feedback."""
        if not self.attributes:
            return 0.0
        return self.lambdas[0] if self.lambdas and not self.everything else WEIGHT

    @property
    def strategies(self) -> dict[str, FeedbackSettings]:
        """The rows of Table 5, under the choices."""
        choices, _ = simulation_choices(self.feedback)
        return {name: with_choices(settings, choices) for name, settings in STRATEGIES.items()}

    @property
    def draws(self) -> Draws:
        """How simulated users draw what they judge."""
        return simulation_choices(self.feedback)[1]

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        return asdict(self)

    def _check_work(self) -> None:
        if self.table is not None and self.table not in _TABLES:
            raise InputError(f"there is no table {self.table} to make; give 1 to 5")
        if self.figure is not None and self.figure not in _FIGURES:
            raise InputError(f"there is no figure {self.figure} to make; give 7")
        if self.table is not None and self.figure is not None:
            raise InputError("a table alone or a figure alone can be made; give one of them, or neither for everything")
        if (self.table == _FEEDBACK_TABLE or self.figure) and not self.rounds:
            raise InputError("feedback of 0 rounds has no curve; give rounds of 1 or more")
        if self.feedback:
            if self.table in (1, 2, 3, 4):
                raise InputError(f"Table {self.table} is made without feedback; leave its choices out")
            if not self.rounds:
                raise InputError("feedback of 0 rounds has nothing to choose; give rounds of 1 or more")
            _ = self.strategies  # refuses what is no choice

    def _check_models(self) -> None:
        _check_repeated("identity model", self.models)
        _check_repeated("set of heads", self.attributes)
        if self.agreement == "predictions" and (self.table == 1 or not self.attributes):
            raise InputError(
                "Table 1 is of faces alone, and compares no predictions of attributes; leave the agreement out"
                if self.table == 1
                else "there are no predictions of attributes to compare; give heads (--attributes), or compare labels"
            )
        if self.art_attributes and not self.attributes:
            raise InputError("heads for art alone compare with nothing; give heads for photographs, too (--attributes)")
        if self.table == 2:
            if not self.attributes:
                raise InputError("Table 2 is of attribute heads; give folders of `stylize train attributes`")
            if self.models or self.backbone or self.art_attributes:
                raise InputError(
                    "Table 2 tries each set of heads on photographs and on art, over the network it was trained on; "
                    "give --attributes alone, one or several"
                )
            return
        if bool(self.models) == (self.backbone is not None):
            raise InputError(
                "give either trained identity models (--identity, folders of `stylize train identity`) or a bare "
                "network (--backbone and --weights)"
            )
        if len(self.attributes) > 1:
            raise InputError(
                f"{len(self.attributes)} sets of heads are given, and searching takes one; several are for Table 2"
            )
        if self.table in _BY_LAMBDA and not self.attributes:
            raise InputError(f"Table {self.table} weighs attributes; give heads (--attributes)")

    def _check_lambdas(self) -> None:
        if self.lambdas is None:
            return
        if not self.lambdas:
            raise InputError("give at least one weight of the attributes (lambda)")
        if self.table in (1, 2):
            raise InputError(f"Table {self.table} is not weighted by lambda; leave it out")
        if (self.table == _FEEDBACK_TABLE or self.figure) and len(self.lambdas) > 1:
            raise InputError(f"feedback is simulated for one lambda, and {len(self.lambdas)} are given")
        for weight in self.lambdas:
            check_weight(weight, len(ATTRIBUTES) if self.attributes else 0)


def _check_repeated(what: str, folders: Sequence[str]) -> None:
    seen: set[str] = set()
    for folder in folders:
        place = os.path.realpath(os.path.expanduser(folder))
        if place in seen:
            raise InputError(f"{what} {folder} is given twice; give it once")
        seen.add(place)
