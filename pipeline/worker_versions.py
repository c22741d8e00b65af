"""What runs on a worker before our package is known to be there: sent as source text, without any import of ours.

As text, because a function that is pickled by value is byte code, which crashes another version of Python.
"""

from typing import Any

DISTRIBUTIONS = {"stylize": "stylize", "PyTorch": "torch"}
CHECK_SECONDS = 120.0  # reading half a gigabyte of weights from a slow disk is within it


def look() -> dict[str, Any]:
    """Return {"host": name of this machine, "versions": by name}, of PyTorch's major and minor version alone."""
    import socket  # noqa: PLC0415
    import sys  # noqa: PLC0415
    from importlib import metadata  # noqa: PLC0415

    versions = {"Python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    for name, distribution in DISTRIBUTIONS.items():
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            version = "none"
        versions[name] = ".".join(version.split(".")[:2]) if distribution == "torch" else version
    return {"host": socket.gethostname(), "versions": versions}


def checked(wanted: dict[str, str], check: bytes, task: bytes) -> Any:
    """Do a task if this worker is fit for it; else return {"unfit": why, "host": …, "versions": …, "worker": address}.

    Not fit is also a worker on which our code cannot be imported, on which the check takes over `CHECK_SECONDS`
    (storage hangs), or which cannot load the weights: the others go on.

    Args:
        wanted: versions, as `look` has them; where they differ, "unfit" is None.
        check: pickled (function, arguments) that returns what is wrong, or None.
        task: pickled (function, arguments), unpickled last.
    """
    import pickle  # noqa: PLC0415
    import threading  # noqa: PLC0415

    import distributed  # noqa: PLC0415

    found = look()
    found["unfit"] = None
    found["worker"] = distributed.get_worker().address
    if found["versions"] != wanted:
        return found
    work = []
    answers = []

    def prepare() -> None:
        try:
            function, arguments = pickle.loads(check)
            answers.append(function(*arguments))
            work.append(pickle.loads(task))
        except Exception as error:
            said = (str(error).splitlines() or [""])[0]
            answers[:] = [f"cannot run our code ({type(error).__name__}: {said})"]

    thread = threading.Thread(target=prepare, daemon=True)
    thread.start()
    thread.join(CHECK_SECONDS)
    if thread.is_alive():
        answers[:] = [f"has not answered within {CHECK_SECONDS:.0f} s; see whether storage that it waits for hangs"]
    if answers[0] is not None:
        found["unfit"] = answers[0]
        return found
    function, arguments = work[0]
    try:
        return function(*arguments)
    except Exception as error:
        if type(error).__name__ != "WeightsError":
            raise
        found["unfit"] = f"cannot use the weights ({error})"
        return found
