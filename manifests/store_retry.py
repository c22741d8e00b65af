"""The retry rule of storage behind a network: which failures pass, how long to wait, and what to say in the end."""

import errno
import random
import time
from collections.abc import Callable
from typing import Final, TypeVar

from manifests.redaction import redact

Answer = TypeVar("Answer")

PAUSES: Final = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
"""Seconds between one try and the next, shortened at random by up to half, lest all workers come back at once."""
PATIENCE: Final = 60.0
"""Seconds after which no other try is begun: clients of stores retry by themselves, and a stalled one for minutes."""

# Of clients that have exceptions of their own, by name, because none of them need be installed.
_REFUSED = {"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
_SENSELESS = {"ParamValidationError", "InvalidRegionError", "NoRegionError", "ProfileNotFound", "InvalidURL"}
_KEPT: Final = {
    FileNotFoundError: errno.ENOENT,
    FileExistsError: errno.EEXIST,
    IsADirectoryError: errno.EISDIR,
    NotADirectoryError: errno.ENOTDIR,
}
_PERMANENT = {
    errno.EINVAL,
    errno.ENOSYS,
    errno.EPERM,
    errno.ENAMETOOLONG,
    errno.EMSGSIZE,
    errno.ENOTEMPTY,
    getattr(errno, "EREMCHG", errno.EINVAL),  # the bucket is elsewhere
}
_CLIENTS_ERROR, _SERVERS_ERROR = 400, 500
_REFUSALS = {401, 403, 407}
_TRANSIENT_STATUS = {408, 425, 429}


def steadily(operation: Callable[[], Answer]) -> Answer:
    """Return what a harmlessly repeatable operation returns, tried again after failures that may pass.

    Raises:
        FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError: as the store says; never tried again.
        PermissionError: credentials are missing, wrong or expired, or do not suffice.
        OSError: anything else: EIO where it was tried in vain, other numbers where trying again would be. Each has
            ``errno`` and, as ``strerror``, words without credentials.
        TypeError: a wrong argument.
    """
    begun = time.monotonic()
    tries = 0
    while True:
        tries += 1
        try:
            return operation()
        except TypeError:
            raise
        except Exception as error:  # the client of a store may raise anything
            failure = _failure(error)
            if failure is None:
                if tries > len(PAUSES) or time.monotonic() - begun > PATIENCE:
                    times = "once" if tries == 1 else f"{tries} times"
                    raise OSError(errno.EIO, f"{_reason(error)}; tried {times}") from None
            else:
                raise failure from None
        time.sleep(PAUSES[tries - 1] * random.uniform(0.5, 1.0))


def _failure(error: Exception) -> OSError | None:
    """Return what to raise at once; None for what may pass."""
    for kind, number in _KEPT.items():
        if isinstance(error, kind):
            return OSError(number, _reason(error))  # which Python makes one of this kind
    status = getattr(error, "status", None)
    name = type(error).__name__
    if isinstance(error, PermissionError) or name in _REFUSED or status in _REFUSALS:
        return PermissionError(errno.EACCES, f"access refused ({_reason(error)}); check the credentials here")
    if isinstance(error, (ValueError, NotImplementedError, ImportError)) or name in _SENSELESS:
        return OSError(errno.EINVAL, _reason(error))
    if isinstance(status, int) and _CLIENTS_ERROR <= status < _SERVERS_ERROR and status not in _TRANSIENT_STATUS:
        return OSError(errno.EINVAL, _reason(error))
    if isinstance(error, OSError) and error.errno in _PERMANENT:
        assert error.errno is not None
        return OSError(error.errno, _reason(error))
    return None


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    line = (text.strip().splitlines() or [""])[0].rstrip(".")
    if isinstance(error, TimeoutError) and not line:
        line = "no answer in time"
    elif not line:
        line = type(error).__name__
    elif not isinstance(error, OSError):
        line = f"{type(error).__name__}: {line}"
    return redact(line)
