"""What callers name: files, folders and Hub repos, as paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .errors import InvalidArgumentError


def path_of(value: Any, what: str = "A file, a folder or a Hub repo id") -> Path:
    """Returns what a caller names as a path; of an empty text Python would make the current folder.

    It is made of one text: Python 3.13 pickles equal paths in as many ways as they can be joined, and `datasets` keeps
    results by what is pickled.

    Args:
        value: What the caller passed.
        what: What is needed, for the error.

    Raises:
        InvalidArgumentError: It names nothing.
    """
    if isinstance(value, str | os.PathLike) and str(value):
        return Path(os.fspath(value))
    raise InvalidArgumentError(f"{what} is needed, got {value!r:.80}.")
