"""Renamings of state dicts, made of a table: which module of a foreign port is which of ours."""

from collections.abc import Mapping

from torch import Tensor

from pipeline.backbones.registry import Renaming


def rename_modules(table: Mapping[str, str], *, classifier: tuple[str, ...] = ()) -> Renaming:
    """Make a renaming that moves the tensors of whole modules.

    With ``{"conv1_1": "stages.0.0"}``, "conv1_1.weight" becomes "stages.0.0.weight". Where several names of the table
    are prefixes of a key, the longest counts.

    Args:
        table: foreign name of a module → our name.
        classifier: foreign names of modules whose keys are dropped.

    Returns:
        A renaming. It takes a state dict for one in this format if it has more than half of the table's modules and
        no two keys would get the same name. Keys that the table does not know stay as they are, so that loading can
        name them.
    """

    def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        renamed: dict[str, Tensor] = {}
        seen: set[str] = set()
        kept = 0
        for key, tensor in state.items():
            if any(key.startswith(f"{name}.") for name in classifier):
                continue
            module = _longest_prefix(key, table)
            if module is not None:
                seen.add(module)
            renamed[key if module is None else table[module] + key[len(module) :]] = tensor
            kept += 1
        return renamed if 2 * len(seen) > len(table) and len(renamed) == kept else None

    return rename


def _longest_prefix(key: str, table: Mapping[str, str]) -> str | None:
    prefix = key
    while "." in prefix:
        prefix = prefix.rpartition(".")[0]
        if prefix in table:
            return prefix
    return None
