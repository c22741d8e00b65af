"""Dask's performance report of a build: task stream, profiles and bandwidths as one HTML file."""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator

import distributed

from manifests.errors import InputError


def check_performance_report(path: str | os.PathLike[str]) -> None:
    """Refuse a report that could not be written, before hours of work.

    Raises:
        InputError: bokeh, which draws it, is not installed, or there is no folder to write to.
    """
    if importlib.util.find_spec("bokeh") is None:
        raise InputError(
            "a performance report is drawn by bokeh, which is not installed here; install stylize[report] on this "
            "machine, and on that of the scheduler if it is another"
        )
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or os.path.isdir(path) or not os.access(folder, os.W_OK):
        raise InputError(
            f'the performance report "{os.fspath(path)}" cannot be written; give a file in a folder of yours'
        )


@contextlib.contextmanager
def performance_report(
    client: distributed.Client,
    path: str | os.PathLike[str] | None,
    notify: Callable[[str], None] = lambda sentence: None,
) -> Iterator[None]:
    """Record what the cluster does meanwhile, and write the report at the end, also where the work failed.

    A report that cannot be made (the scheduler has gone, or has no bokeh) is told in a sentence, and harms nothing.

    Args:
        client: of the cluster.
        path: local HTML file, which loads nothing from anywhere; None records nothing.
        notify: is given the sentence.
    """
    if path is None:
        yield
        return
    # Its scripts within the page: a cluster's client may well have no internet.
    report = distributed.performance_report(filename=os.path.abspath(path), mode="inline")
    try:
        with client.as_current():
            report.__enter__()
    except Exception as error:
        notify(_sentence(path, error))
        yield
        return
    try:
        yield
    finally:
        try:
            with client.as_current():
                report.__exit__(None, None, None)
        except Exception as error:  # whatever the scheduler raises in drawing it
            notify(_sentence(path, error))


def _sentence(path: str | os.PathLike[str], error: Exception) -> str:
    reason = (str(error).splitlines() or [""])[0] or type(error).__name__
    return f'the performance report "{os.fspath(path)}" could not be made ({reason}); the run is not harmed'
