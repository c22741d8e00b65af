"""Faces that somebody has looked at and struck, and strikes that are taken back."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from manifests.errors import InputError
from pipeline.redraw_list import read_redraw_list

REASON: Final = "not a face"
"""Of a strike that names none."""


@dataclass(frozen=True)
class Strikes:
    """Changes to what is struck.

    Attributes:
        struck: the reason for every face to strike, by id.
        unstruck: ids of faces whose strike is taken back.
    """

    struck: Mapping[str, str]
    unstruck: frozenset[str]

    def applied(self, before: Mapping[str, str], faces: set[str]) -> dict[str, str]:
        """Return what is struck afterwards.

        Args:
            before: what was struck so far, with reasons.
            faces: ids of all faces.

        Raises:
            InputError: a face that is not there, one to be struck and unstruck, or one to be unstruck that is not
                struck.
        """
        for face in [*self.struck, *self.unstruck]:
            if face not in faces:
                raise InputError(f'there is no face "{face}" in the catalogue; take the ids from its review sheet')
        for face in self.unstruck:
            if face in self.struck:
                raise InputError(f'the face "{face}" is to be struck and its strike to be taken back; keep one of them')
            if face not in before:
                raise InputError(f'the face "{face}" is not struck, so its strike cannot be taken back; leave it out')
        return {face: reason for face, reason in before.items() if face not in self.unstruck} | dict(self.struck)


def read_strikes(strike: str | os.PathLike[str] | None, unstrike: str | os.PathLike[str] | None) -> Strikes:
    """Read the two lists (`pipeline.redraw_list`); None is an empty one. InputError for what is no list."""
    return Strikes(
        {} if strike is None else read_redraw_list(strike, REASON),
        frozenset() if unstrike is None else frozenset(read_redraw_list(unstrike, "unstruck")),
    )
