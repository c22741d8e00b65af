"""A backbone with its weights: from a checkpoint whose keys tell the format, or random."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from manifests.errors import InputError
from pipeline.backbones import zoo
from pipeline.backbones.card import BackboneCard
from pipeline.backbones.registry import Backbone, backbone_names, find_backbone
from pipeline.backbones.state_dict import read_state_dict, shown

RANDOM: Final = "random"
"""In place of a path: seeded fresh weights, for smoke runs. A file of this name is "./random"."""

PREFIXES: Final = ("module.", "model.", "backbone.", "network.")
"""What wrappers put before every key: DataParallel, Lightning, and this project's own modules."""

_COUNTER: Final = "num_batches_tracked"  # of batch normalisation; absent from old checkpoints and without effect


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready to embed.

    Attributes:
        card: what it wants and gives.
        network: on the CPU, float32, in evaluation mode.
        digest: SHA-256 (hex) over its tensors: equal weights have equal digests, whatever file they came from.
    """

    card: BackboneCard
    network: nn.Module
    digest: str


def load_network(name: str, weights: str | os.PathLike[str], *, seed: int = 0) -> LoadedNetwork:
    """Build a backbone and fill it.

    The checkpoint may be of any format that `read_state_dict` knows. Its keys may be ours, may carry `PREFIXES`
    (keys without the prefix, such as those of a classification head beside the model, are then left out), and may be
    in any of the backbone's foreign formats, whose renamings drop what belongs to a classifier; the first reading that
    fits exactly is taken: all keys of the network, of its shapes, and no other. Numbers are converted to float32.

    Args:
        name: of the backbone, as `pipeline.backbones.zoo.backbone` takes it.
        weights: path of the checkpoint, or "random".
        seed: of random weights; otherwise unused. The global random state is left alone.

    Raises:
        InputError: an unknown backbone; a file that cannot be read safely or is damaged; a checkpoint of another
            network, with the keys and shapes that do not fit; a weight that is not finite.
    """
    backbone = zoo.backbone(name)
    network = _built(backbone, seed)
    if weights != RANDOM:
        state = read_state_dict(weights)
        fit = _best_fit(state, backbone, _shapes(network))
        if not fit.exact:
            raise InputError(_complaint(fit, name, weights, fitting_backbones(state)))
        network.load_state_dict(fit.state, strict=False)  # counters apart, nothing is missing: see _fit
        _check_finite(network, weights)
    return LoadedNetwork(backbone.card, network.eval(), weights_digest(network))


def fitting_backbones(state: Mapping[str, Tensor]) -> list[str]:
    """Name the registered backbones that a state dict fits. Their weights are not made, so it costs no memory."""
    names = []
    for name in backbone_names():
        backbone = find_backbone(name)
        with torch.device("meta"):
            shapes = _shapes(backbone.build())
        if _best_fit(state, backbone, shapes).exact:
            names.append(name)
    return names


def weights_digest(network: nn.Module) -> str:
    """SHA-256 (hex) over names, types, shapes and values of a network's weights, in order of their names.

    The counters of batch normalisation do not count: many checkpoints lack them, and no output depends on them.
    """
    sha = hashlib.sha256()
    state = network.state_dict()
    for name in sorted(state):
        if name.endswith(_COUNTER):
            continue
        tensor = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return sha.hexdigest()


def _built(backbone: Backbone, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs, too
        return backbone.build()


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items() if not name.endswith(_COUNTER)}


@dataclass(frozen=True)
class _Fit:
    """How a state dict, its keys renamed somehow, fits a network."""

    state: Mapping[str, Tensor]  # what fits
    missing: list[str]
    unexpected: list[str]
    reshaped: list[str]  # "name [its shape], expected [the network's shape]"

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.reshaped)


def _best_fit(state: Mapping[str, Tensor], backbone: Backbone, shapes: Mapping[str, torch.Size]) -> _Fit:
    """Find the reading of the keys that fits exactly, or, to complain about, the one that fits the most tensors."""
    best: _Fit | None = None
    for candidate in _readings(state, backbone):
        fit = _fit(candidate, shapes)
        if fit.exact:
            return fit
        if best is None or len(fit.state) > len(best.state):
            best = fit
    assert best is not None
    return best


def _readings(state: Mapping[str, Tensor], backbone: Backbone) -> Iterator[Mapping[str, Tensor]]:
    for stripped in _without_prefixes(state):
        yield stripped
        for rename in backbone.renamings:
            renamed = rename(stripped)
            if renamed is not None:
                yield renamed


def _without_prefixes(state: Mapping[str, Tensor], depth: int = 3) -> Iterator[Mapping[str, Tensor]]:
    yield state
    if depth == 0:
        return
    for prefix in PREFIXES:
        inner = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if inner:
            yield from _without_prefixes(inner, depth - 1)


def _fit(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> _Fit:
    fitting: dict[str, Tensor] = {}
    unexpected, reshaped = [], []
    for name, tensor in state.items():
        if name in shapes and tensor.shape == shapes[name]:
            fitting[name] = tensor
        elif name in shapes:
            reshaped.append(f"{name} {list(tensor.shape)}, expected {list(shapes[name])}")
        elif not name.endswith(_COUNTER):
            unexpected.append(name)
    return _Fit(fitting, [name for name in shapes if name not in state], unexpected, reshaped)


def _complaint(fit: _Fit, name: str, weights: str | os.PathLike[str], others: list[str]) -> str:
    findings = (
        ("missing", fit.missing),
        ("not of this network", fit.unexpected),
        ("of another shape", fit.reshaped),
    )
    counts = [
        f"{len(keys)} keys {what} ({'; '.join(map(shown, keys[:3]))}{'; …' if len(keys) > 3 else ''})"
        for what, keys in findings
        if keys
    ]
    remedy = f"they fit {' and '.join(others)}" if others else "give another file or another backbone"
    return f'weights "{os.fspath(weights)}" do not fit {name}: {", ".join(counts)}; {remedy}'


def _check_finite(network: nn.Module, weights: str | os.PathLike[str]) -> None:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(
                f'weights "{os.fspath(weights)}" hold a value in {name} that is not finite: '
                "the training that they come from diverged, or the file is damaged; give another"
            )
