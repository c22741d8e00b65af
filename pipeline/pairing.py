"""Pairing: which paintings a face is repainted in, and in which order.

``painting = f(seed, image_id, attempt)`` by a hash used as a counter-based generator, so that the answer depends on no
shard, worker, batch, order or restart. Cornia et al. (TOMM 2022, Sec. 3) draw a random painting per face; how is ours.
"""

from hashlib import blake2b

_PERSON = b"stylize/pairing1"  # 16 bytes, the longest BLAKE2b takes; changing it changes every data set


def draws(seed: int, image_id: str, catalogue_size: int, count: int) -> list[int]:
    """Return the first ``count`` paintings drawn for one face, as row numbers of the painting catalogue.

    The k-th draw is the k-th distinct value of ``BLAKE2b-128(seed, image_id, counter) mod catalogue_size``: uniform
    (128 bits leave a modulo bias below 2⁻¹⁰⁰ for any real catalogue), without replacement within one face, and
    independent between faces. ``draws(…, k)`` is a prefix of ``draws(…, k + 1)``.

    Args:
        seed: the run's seed; any integer.
        image_id: the face's id; any string.
        catalogue_size: number of paintings N, at least 1.
        count: how many draws are wanted, at least 0; min(count, N) are returned.

    Raises:
        ValueError: ``catalogue_size`` below 1 or ``count`` below 0.
    """
    if catalogue_size < 1:
        raise ValueError(f"catalogue_size must be at least 1, not {catalogue_size}")
    if count < 0:
        raise ValueError(f"count must not be negative, not {count}")
    # surrogatepass: file names that are not UTF-8 reach us as lone surrogates.
    face = image_id.encode("utf-8", "surrogatepass")
    # The client does this while a worker waits: what the messages share is digested once.
    digest_seed = blake2b(b"%d:" % seed, digest_size=16, person=_PERSON).copy
    end = b":" + face
    wanted = min(count, catalogue_size)
    chosen: dict[int, None] = {}
    counter = 0
    while len(chosen) < wanted:
        state = digest_seed()
        state.update(b"%d%b" % (counter, end))
        chosen[int.from_bytes(state.digest(), "big") % catalogue_size] = None
        counter += 1
    return list(chosen)
