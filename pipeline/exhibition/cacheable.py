"""Answers that browsers may keep."""

from starlette.requests import Request
from starlette.responses import Response


def cacheable(request: Request, data: bytes, media_type: str, digest: str, caching: str = "no-cache") -> Response:
    """Return an answer, or only that what the browser has is still right.

    Args:
        request: that is answered.
        data, media_type: of the answer.
        digest: of the data; without it a browser would take another index's pictures for this one's.
        caching: Cache-Control; "no-cache" has the browser ask every time.
    """
    headers = {"ETag": f'"{digest}"', "Cache-Control": caching}
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    return Response(data, media_type=media_type, headers=headers)
