"""What the exhibition answers to a request that it refuses."""

from typing import Any


class ApiError(Exception):
    """A refusal: {"error": {"code", "message"}} with a status.

    Args:
        status: of HTTP.
        code: what the page looks up to say it in the visitor's language.
        message: an English sentence, for whoever reads the answer itself; nothing of the visitor is in it.
        retry_after: seconds after which it is worth another try.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after

    def as_dict(self) -> dict[str, Any]:
        """Return the body of the answer."""
        return {"error": {"code": self.code, "message": self.message}}


def wrong_state(message: str) -> ApiError:
    """Return the refusal of a call that comes in the wrong order."""
    return ApiError(409, "wrong_state", message)


def forgotten() -> ApiError:
    """Return the refusal of a visit that is over, or never was, or is somebody else's: which, is not said."""
    return ApiError(410, "forgotten", "this visit is over and everything of it is forgotten; begin another one")
