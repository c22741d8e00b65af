"""The name of the one cookie, apart from the server's code: a visitor's side needs no server installed."""

from typing import Final

COOKIE: Final = "stylize_visitor"
