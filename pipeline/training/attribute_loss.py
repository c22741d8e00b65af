"""Cross-entropy of attribute heads where some labels are unknown."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attribute_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Return Σ weight · cross-entropy over a batch's labels, float32.

    Args:
        logits: float [B, n, 2], of "no" and "yes".
        labels: integers [B, n]: 1 yes, 0 no, -1 unknown.
        weights: float32 [B, n], as `label_weights` gives them; where 0, the label plays no part.
    """
    target = labels.clamp(min=0).long()
    each = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
    return (each.view_as(target) * weights).sum()


def label_weights(labels: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return what each label of a batch counts: float32 [B, n] with sum 1, or all 0 where nothing is known.

    With them the cross-entropy is the mean over the known labels of a batch, all attributes together. The paper says
    only that each branch has a categorical cross-entropy; their sum instead of their mean would scale all gradients by
    40, which Adam cancels up to its epsilon.

    Args:
        labels: integers [B, n]: 1 yes, 0 no, -1 unknown; an unknown label counts nothing.
        classes: float32 [n, 2], relative weights of each attribute's "no" and "yes"; None is 1.
    """
    weights = (labels >= 0).float()
    if classes is not None:
        chosen = labels.clamp(min=0).long()[..., None]
        weights = weights * classes.expand(len(labels), -1, -1).gather(2, chosen)[..., 0]
    total = weights.sum()
    return weights / torch.where(total > 0, total, 1)


def balancing_weights(labels: Tensor) -> Tensor:
    """Return weights of classes under which "no" and "yes" of every attribute count the same in ``labels``.

    Args:
        labels: integers [N, n] as above, of the training set.

    Returns:
        float32 [n, 2]: known / (2 · of this class); 0 for a class that does not occur.
    """
    counts = torch.stack([(labels == 0).sum(0), (labels == 1).sum(0)], dim=1).float()
    return torch.where(counts > 0, counts.sum(1, keepdim=True) / (2 * counts.clamp(min=1)), 0.0)
