"""What callers name: files, folders and Hub repos, as paths."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from .errors import InvalidArgumentError


def path_of(value: Any, what: str = "A file, a folder or a Hub repo id") -> Path:
    """Returns what a caller names as a path; of an empty text Python would make the current folder.

    Args:
        value: What the caller passed.
        what: What is needed, for the error.

    Raises:
        InvalidArgumentError: It names nothing.
    """
    if isinstance(value, str | os.PathLike) and str(value):
        return Path(value)
    raise InvalidArgumentError(f"{what} is needed, got {value!r:.80}.")
