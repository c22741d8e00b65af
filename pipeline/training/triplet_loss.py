"""The hinge triplet ranking loss with maximum violation (Cornia et al., TOMM 2022, Eq. 7; Faghri et al., VSE++)."""

import torch
from torch import Tensor

MARGIN = 0.1
"""The margin of the paper's Sec. 5."""


def max_violation_hinge(real: Tensor, art: Tensor, identities: Tensor, margin: float = MARGIN) -> Tensor:
    """Return the mean over a batch's pairs of ℓ(I^R, I^A), both directions of Eq. 7.

    With s_ij = real_i · art_j, pair i contributes

        max_j [α − s_ii + s_ij]_+  +  max_j [α − s_ii + s_ji]_+,   j over the pairs of other identities.

    Our choices: the paper does not say over what the batch is reduced; we take the mean, so that an embedding that maps
    everything to one point has the loss 2α whatever the batch (`collapse_value`). Negatives are all pairs of *another
    identity*, not all but the diagonal: with two pictures of one person in the batch their proxies are no negatives. A
    pair without a negative in the batch contributes zero. Where several negatives are equally bad, they share the
    gradient.

    Args:
        real: unit embeddings of photographs, float [B, D].
        art: of proxies, float [B, D]; row i shows the person of ``real``'s row i.
        identities: who that is, integers [B].
        margin: α, in cosine similarity.

    Returns:
        float32 scalar (float64 for float64 embeddings), at least 0.

    """
    dtype = torch.float64 if real.dtype == torch.float64 else torch.float32
    similarities = real.to(dtype) @ art.to(dtype).T
    matching = similarities.diagonal()
    same = identities[:, None] == identities[None, :]
    negatives = similarities.masked_fill(same, -torch.inf)
    from_real = (margin - matching + negatives.amax(dim=1)).clamp(min=0)
    from_art = (margin - matching + negatives.amax(dim=0)).clamp(min=0)
    return (from_real + from_art).mean()


def collapse_value(margin: float = MARGIN) -> float:
    """Return the loss per pair of an embedding that tells nothing apart: α in each direction."""
    return 2 * margin
