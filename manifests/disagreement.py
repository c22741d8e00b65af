"""Disagreements between inputs, told in one sentence each with a count and the first offenders."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

SHOWN = 3


def disagreement(offenders: pa.Array, one: str, many: str) -> str:
    """Return a sentence such as ``"4 images have no row in X and are left out (first: a.jpg, b.jpg, c.jpg)."``.

    Args:
        offenders: ids, at least one, in the order in which they occur.
        one: the words after "1".
        many: the words after any other count.
    """
    count = len(offenders)
    shown = ", ".join(str(value) for value in offenders.slice(0, SHOWN).to_pylist())
    if count == 1:
        return f"1 {one} ({shown})."
    return f"{count:,} {many} (first: {shown})."


def without_duplicates(table: pa.Table, key: str, one: str, many: str, problems: list[str]) -> pa.Table:
    """Keep the first row of every id, and append a sentence on the others to ``problems``.

    Args:
        table: rows with their ids in the column ``key``.
        key: name of the column.
        one, many: as for `disagreement`.
        problems: where the sentence goes, if there is a duplicate.
    """
    ids = table[key].combine_chunks()
    first = first_occurrences(ids)
    if first.all():
        return table
    problems.append(disagreement(ids.filter(pa.array(~first)), one, many))
    return table.filter(pa.array(first))


def first_occurrences(ids: pa.Array) -> npt.NDArray[np.bool_]:
    """Mark the first occurrence of every id: bool [len(ids)], False where the same id came before."""
    first = np.zeros(len(ids), dtype=np.bool_)
    if len(ids):
        codes = ids.dictionary_encode().indices.to_numpy(zero_copy_only=False)
        first[np.unique(codes, return_index=True)[1]] = True
    return first
