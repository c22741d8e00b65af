"""Izadi's "modified AdaMax" (Algorithm 1): two AdaMax optimisers take turns on weights that they share."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

Loss = Callable[[], Tensor]
"""Runs the network anew and returns a scalar."""

Reduce = Callable[[Iterable[Parameter]], None]
"""Called between a backward pass and its update; averages gradients over ranks."""


class TwoStepAdamax:
    """One iteration of Algorithm 1, lines 11–21: θ₁ ← AdaMax(∇L₁), then θ₂ ← AdaMax(∇L₂).

    θ₁ = [W₁, W₂,₁] (trunk and attribute branch), θ₂ = [W₁, W₂,₁, W₂,₂] (and identity branch). Each step has moments m
    and u of its own for every weight of its θ, also for the shared ones, and L₂ is computed after the first update, by
    a fresh forward pass. AdaMax as in Kingma & Ba (2015), Algorithm 2, by ``torch.optim.Adamax``:

        m ← β₁ m + (1 − β₁) g,    u ← max(β₂ u, |g| + eps),    θ ← θ − α / (1 − β₁ᵗ) · m / u

    ``eps`` is PyTorch's: Kingma & Ba have none, and divide 0 by 0 for a weight whose gradient was never anything else.
    A weight that a loss does not depend on has no gradient, is left alone by that step, and its t does not advance;
    with g = 0 the formula would do the same, as long as g was 0 from the beginning.

    Args:
        trunk, attributes, identity: the weights W₁, W₂,₁ and W₂,₂. ``attributes`` may be empty: then there is no first
            step.
        lr: α.
        betas: β₁, β₂.
        eps: see above.
    """

    def __init__(
        self,
        trunk: Iterable[Parameter],
        attributes: Iterable[Parameter],
        identity: Iterable[Parameter],
        *,
        lr: float = 0.002,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        shared, upper = list(trunk), list(attributes)
        self._theta1 = [*shared, *upper] if upper else []
        self._theta2 = [*shared, *upper, *identity]
        self._first = torch.optim.Adamax(self._theta1, lr=lr, betas=betas, eps=eps) if upper else None
        self._second = torch.optim.Adamax(self._theta2, lr=lr, betas=betas, eps=eps)

    def step(
        self, attribute_loss: Loss | None, identity_loss: Loss, *, reduce: Reduce | None = None
    ) -> tuple[Tensor | None, Tensor]:
        """Take both steps.

        Args:
            attribute_loss: L₁; None skips the first step: nothing is known of the attributes of this batch.
            identity_loss: L₂; called after the first step has changed the weights.
            reduce: see ``Reduce``.

        Returns:
            L₁ (None where skipped) and L₂ as they were before their steps, detached.
        """
        first = None
        if self._first is not None and attribute_loss is not None:
            first = _descend(self._first, self._theta1, attribute_loss, reduce)
        return first, _descend(self._second, self._theta2, identity_loss, reduce)

    def state_dict(self) -> dict[str, Any]:
        """Both optimisers' states; tensors, numbers and containers only."""
        return {
            "first": None if self._first is None else self._first.state_dict(),
            "second": self._second.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned.

        Raises:
            ValueError: it is of other groups of weights.
        """
        if (self._first is None) != (state["first"] is None):
            raise ValueError("the state is of an optimiser with another number of steps")
        if self._first is not None:
            self._first.load_state_dict(state["first"])
        self._second.load_state_dict(state["second"])


def _descend(
    optimiser: torch.optim.Optimizer, parameters: list[Parameter], loss: Loss, reduce: Reduce | None
) -> Tensor:
    # None, not 0: a weight that this loss does not depend on is to be left alone, not to be moved by its old moments.
    optimiser.zero_grad(set_to_none=True)
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    if reduce is not None:
        reduce(parameters)
    optimiser.step()
    return value.detach()
