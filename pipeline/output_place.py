"""A file that is to be written after long work: whether it can be is asked before."""

import os

from manifests.errors import RunError


def check_place(path: str | os.PathLike[str], what: str) -> None:
    """Refuse a place that cannot be written; RunError naming what was to be there, such as "histogram"."""
    folder = os.path.dirname(os.path.abspath(path))
    if os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise RunError(f'the {what} "{os.fspath(path)}" cannot be written; give another place with -o')
