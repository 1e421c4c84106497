"""Uploaded pictures: decoded by the guarded reader, within limits."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from taidpt.runtime.errors import InputError
from taidpt.runtime.serve.operations import RefusedError
from taidpt.runtime.serve.schema import Schema, array
from taidpt.runtime.sources.picture_files import decode_image

__all__ = ["PICTURES", "decode_pictures"]

# Pixels of a picture and pictures in one request: what a small board holds beside the model.
_MOST_PIXELS, _MOST_PICTURES = 50_000_000, 16

PICTURES: Schema = array(
    {"type": "string", "contentEncoding": "base64"},
    "Picture files as base64.",
    minItems=1,
    maxItems=_MOST_PICTURES,
)


def decode_pictures(files: Sequence[bytes | str]) -> list[npt.NDArray[Any]]:
    """Frames of picture files; texts are base64.

    Raises:
        RefusedError: 422, one is no picture, or too large.
    """
    try:
        return [
            decode_image(_content(file), f"picture {index}", _MOST_PIXELS)
            for index, file in enumerate(files)
        ]
    except InputError as failure:
        raise RefusedError(422, str(failure)) from None


def _content(file: bytes | str) -> bytes:
    if isinstance(file, bytes):
        return file
    try:
        return base64.b64decode(file, validate=True)
    except (binascii.Error, ValueError) as failure:
        raise RefusedError(422, f"a picture is not base64: {failure}") from None
