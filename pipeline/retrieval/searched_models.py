"""The models that an evaluation searches with, from the folders and files that a user names."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pipeline.backbones.loading import RANDOM
from pipeline.retrieval.evaluate_config import EvaluateConfig
from pipeline.retrieval.retrieval_model import ModelPlaces
from pipeline.retrieval.tables import Trained
from pipeline.training import attribute_model, identity_model
from pipeline.training.model_file import read_document

SHOWN: Final[dict[Trained, str]] = {"nothing": "bare", "projections": "projections trained", "all": "all trained"}


@dataclass(frozen=True)
class SearchedModel:
    """One model.

    Attributes:
        name: of its row: that of its network, with as much of its folder as it takes to tell it from the others.
        backbone: name of its network's card.
        trained: what of it was.
        places: to open it.
        random: its network was never trained, so that its figures mean nothing.
        detail: what else tells it from the others, in a word or two; no row of a table needs it.
    """

    name: str
    backbone: str
    trained: Trained
    places: ModelPlaces
    random: bool
    detail: str = ""

    @property
    def title(self) -> str:
        """Return its name and what of it was trained; no two models of an evaluation have the same."""
        return f"{self.name}, {self.detail or SHOWN[self.trained]}"


def searched_models(config: EvaluateConfig) -> list[SearchedModel]:
    """Return the identity models or the bare network of an evaluation, for Table 1 without attributes.

    For Table 1 every network comes bare, too, before the first model that was trained on it, where its checkpoint is
    still there: the paper has no such row, and without it nobody sees what training the projections has changed.

    Raises:
        InputError: a folder holds no identity model.
        RunError: its model.json is damaged.
    """
    places = ModelPlaces(
        weights=config.weights,
        attributes=config.attributes[0] if config.attributes and config.table != 1 else None,
        art_attributes=config.art_attributes if config.table != 1 else None,
        attribute_weights=config.attribute_weights,
        seed=config.seed,
        crop=config.crop,
    )
    if config.backbone is not None:
        bare = replace(places, backbone=config.backbone)
        return [SearchedModel(config.backbone, config.backbone, "nothing", bare, config.weights == RANDOM)]
    documents = [read_document(Path(folder), identity_model.KIND, ("finetuned",)) for folder in config.models]
    trained = [
        SearchedModel(
            document["backbone"],
            document["backbone"],
            "all" if document["finetuned"] else "projections",
            replace(places, identity=folder),
            document["weights"] == RANDOM and not document["finetuned"],
        )
        for folder, document in zip(config.models, documents, strict=True)
    ]
    models: list[SearchedModel] = []
    folders: list[str] = []
    seen = set()
    for model, folder, document in zip(trained, config.models, documents, strict=True):
        network = (document["digest"], config.crop or tuple(document["crop"]))
        if config.table == 1 and network not in seen and (bare_model := _bare(document, config)):
            models.append(bare_model)
            folders.append(folder)
        seen.add(network)
        models.append(model)
        folders.append(folder)
    return _told_apart(models, folders)


def heads_alone(config: EvaluateConfig) -> list[SearchedModel]:
    """Return attribute heads over the bare network that they were trained on, for Table 2.

    Raises:
        InputError: a folder holds no attribute heads.
        RunError: its model.json is damaged.
    """
    documents = [read_document(Path(folder), attribute_model.KIND, ("train_on",)) for folder in config.attributes]
    models = [
        SearchedModel(
            document["backbone"],
            document["backbone"],
            "nothing",
            ModelPlaces(
                backbone=document["backbone"],
                weights=config.attribute_weights or config.weights or document["weights"],
                attributes=folder,
                attribute_weights=config.attribute_weights or config.weights,
                seed=document["seed"],
                crop=config.crop or document["crop"],
            ),
            document["weights"] == RANDOM,
            f"heads trained on {document['train_on']}",
        )
        for folder, document in zip(config.attributes, documents, strict=True)
    ]
    return _told_apart(models, config.attributes)


def heads_trained_on(folder: str) -> str:
    """Return what attribute heads were trained on, "real", "art" or "joint"; raises as `heads_alone`."""
    return str(read_document(Path(folder), attribute_model.KIND, ("train_on",))["train_on"])


def _bare(document: dict[str, Any], config: EvaluateConfig) -> SearchedModel | None:
    weights = config.weights or document["weights"]
    if weights != RANDOM and not os.path.exists(os.path.expanduser(weights)):
        return None
    name = document["backbone"]
    places = ModelPlaces(
        backbone=name, weights=weights, seed=document["seed"], crop=config.crop or tuple(document["crop"])
    )
    return SearchedModel(name, name, "nothing", places, weights == RANDOM)


def _told_apart(models: Sequence[SearchedModel], folders: Sequence[str]) -> list[SearchedModel]:
    """Add folders to names of models of one title; to a bare one's that of the model trained on it."""
    titles = [model.title for model in models]
    short = {folder: os.path.basename(os.path.abspath(folder)) for folder in folders}
    unique = len(set(short.values())) == len(short)
    return [
        replace(model, name=f"{model.name} ({short[folder] if unique else folder})")
        if titles.count(model.title) > 1
        else model
        for model, folder in zip(models, folders, strict=True)
    ]
