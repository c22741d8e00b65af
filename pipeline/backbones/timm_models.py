"""Any model of timm as a backbone: "timm:<model>" or "timm:<model>.<tag>". Nothing is downloaded."""

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from manifests.errors import InputError
from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone

PREFIX = "timm:"


def timm_backbone(name: str) -> Backbone:
    """Look up a model of timm, without its classifier and with fresh weights.

    The card is timm's ``pretrained_cfg`` of the model and tag (the default tag where none is given), in our units;
    weights given later should be of that tag, as tags differ in mean and standard deviation. timm does not say what a
    face network wants to see of a face: the crop is the whole image.

    Args:
        name: "timm:" and a name that timm knows. Sources that timm would download from ("hf-hub:…") are not known.

    Raises:
        InputError: timm is not installed or knows no such model or tag; the model does not map images [B, 3 or 1, H, W]
            to vectors [B, D].
    """
    model = name.removeprefix(PREFIX)
    try:
        import timm  # noqa: PLC0415  # an extra, and seconds to import
    except ImportError as error:
        raise InputError(
            f'backbone "{name}" needs timm, which is not installed; install it with: pip install "stylize[timm]"'
        ) from error
    if not timm.is_model(model):
        near = difflib.get_close_matches(model.split(".")[0], timm.list_models(), n=1)
        hint = f' (did you mean "{PREFIX}{near[0]}"?)' if near else ""
        raise InputError(f'timm {timm.__version__} has no model "{model}"{hint}')
    try:
        config = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise InputError(f'timm {timm.__version__} has no such weights of a model: "{model}"') from error
    build = partial(_build, model)
    # On the meta device the shapes and sizes cost neither memory nor arithmetic nor random numbers.
    with torch.device("meta"):
        skeleton = build().eval()
    settings: dict[str, Any] = vars(skeleton)["pretrained_cfg"] if config is None else config.to_dict()
    channels, height, width = settings["input_size"]
    try:
        embedding = skeleton(torch.empty(1, channels, height, width, device="meta"))
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(f'timm\'s model "{model}" cannot be used as a backbone: {error}') from error
    if channels not in (1, 3) or not isinstance(embedding, Tensor) or embedding.ndim != 2:
        raise InputError(f'timm\'s model "{model}" does not turn a picture into one vector; choose another')
    card = BackboneCard(
        name=name,
        width=width,
        height=height,
        channels="rgb" if channels == 3 else "grey",
        mean=tuple(255.0 * value for value in settings["mean"]),
        std=tuple(255.0 * value for value in settings["std"]),
        crop=None,
        embedding=embedding.shape[1],
        parameters=sum(parameter.numel() for parameter in skeleton.parameters()),
        source=_source(settings, timm.__version__),
        licence=settings.get("license") or "not stated",
        note="Mean and standard deviation are those of the source named; the whole image is what it sees.",
    )
    return Backbone(card, build, (partial(without_classifier, classifier=_classifier(settings)),))


def _build(model: str) -> nn.Module:
    import timm  # noqa: PLC0415

    network: nn.Module = timm.create_model(model, pretrained=False, num_classes=0)
    return network


def without_classifier(state: Mapping[str, Tensor], classifier: Sequence[str]) -> dict[str, Tensor] | None:
    """Drop the modules named in ``classifier`` from a state dict in timm's own keys; None if it has none of them."""
    prefixes = tuple(f"{module}." for module in classifier)
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(prefixes)}
    return kept if len(kept) < len(state) else None


def _classifier(settings: Mapping[str, Any]) -> tuple[str, ...]:
    classifier = settings.get("classifier") or ()
    return (classifier,) if isinstance(classifier, str) else tuple(classifier)


def _source(settings: Mapping[str, Any], version: str) -> str:
    weights = settings.get("hf_hub_id") or settings.get("url")
    return f"timm {version}, {weights}" if weights else f"timm {version}, which has no weights for it"
