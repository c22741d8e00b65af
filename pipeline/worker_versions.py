"""What runs on a worker before our package is known to be there: sent as source text, without any import of ours.

As text, because a function that is pickled by value is byte code, which crashes another version of Python.
"""

from typing import Any

DISTRIBUTIONS = {"stylize": "stylize", "PyTorch": "torch"}


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

    Args:
        wanted: versions, as `look` has them; where they differ, "unfit" is None.
        check: pickled (function, arguments) that returns what is wrong, or None.
        task: pickled (function, arguments), unpickled last.
    """
    import pickle  # noqa: PLC0415

    import distributed  # noqa: PLC0415

    found = look()
    if found["versions"] == wanted:
        function, arguments = pickle.loads(check)
        unfit = function(*arguments)
        if unfit is None:
            function, arguments = pickle.loads(task)
            return function(*arguments)
        found["unfit"] = unfit
    else:
        found["unfit"] = None
    found["worker"] = distributed.get_worker().address
    return found
