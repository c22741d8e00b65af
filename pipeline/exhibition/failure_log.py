"""What staff are told of failures: kind and place in the code, not the words, which could be of a visitor."""

import logging
import traceback
from pathlib import Path
from typing import Final

LOG: Final = logging.getLogger("stylize.exhibition")


def log_failure(what: str, error: BaseException) -> None:
    """Log that something failed.

    Args:
        what: failed; nothing of a visitor.
        error: of which kind and place are told.
    """
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "nowhere"
    LOG.error("%s failed: %s in %s", what, type(error).__name__, place)
