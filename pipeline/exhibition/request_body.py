"""What a request sends, read piece by piece with limits; nothing of it touches a disk."""

import asyncio
import json
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request

from pipeline.exhibition.api_error import ApiError

JSON_BYTES: Final = 16 * 1024
_JSON = "application/json"


async def read_body(request: Request, *, limit: int, seconds: float) -> bytes:
    """Read a body.

    Args:
        request: not read so far.
        limit: bytes at most; a request that announces more is refused before anything is read.
        seconds: in which all of it has to come.

    Raises:
        ApiError: 413 too_large, 408 too_slow, 400 bad_request.
    """
    announced = request.headers.get("content-length")
    if announced is not None and not _within(announced, limit):
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except ApiError:
        parts.clear()  # the refusal refers to this frame, and may live longer than a photograph should
        raise
    except TimeoutError:
        parts.clear()
        raise ApiError(408, "too_slow", f"the request did not come within {seconds:g} seconds") from None
    except ClientDisconnect:
        parts.clear()
        raise ApiError(400, "bad_request", "the request was broken off") from None
    return b"".join(parts)


async def read_json(request: Request, *, seconds: float, any_type: bool = False) -> dict[str, Any]:
    """Read a body that is one JSON object.

    Args:
        request: not read so far.
        seconds: as for `read_body`.
        any_type: whatever its content type says; `navigator.sendBeacon` cannot choose it without asking first.

    Raises:
        ApiError: as `read_body`; 415 unsupported_type, 400 bad_request.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != _JSON and not any_type:
        raise ApiError(415, "unsupported_type", f"send {_JSON}")
    data = await read_body(request, limit=JSON_BYTES, seconds=seconds)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ApiError(400, "bad_request", "send one JSON object")
    return document


def _within(announced: str, limit: int) -> bool:
    return announced.isascii() and announced.isdecimal() and len(announced) <= 18 and int(announced) <= limit


def _too_large(limit: int) -> ApiError:
    # Made where it is raised: in a variable of the reader's it would be a cycle that keeps what was read.
    return ApiError(413, "too_large", f"at most {limit:,} bytes can be sent")
