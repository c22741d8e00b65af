"""The kinds of errors that are a user's business: which exit code each means."""

from manifests.errors import InputError, RunError
from stylize.errors import DeviceMemoryError, WeightsError


class Interrupted(RunError):  # noqa: N818  # not an error of anybody's
    """The user stopped the build; the run can be resumed."""


USAGE_ERRORS = (InputError, WeightsError)
"""Wrong input or usage: exit code 2."""

FAILURES = (RunError, DeviceMemoryError, OSError)
"""The input was right and the work failed: exit code 1."""
