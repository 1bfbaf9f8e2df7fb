"""Errors that a user can cause: one line on stderr, and no traceback."""

from __future__ import annotations

import os
import sys
from typing import Any

from optimum_fixedshape.errors import FixedShapeError

FAILED = 1
"""The exit code where one of several did not go well."""

DEBUG = "OPTIMUM_FIXEDSHAPE_DEBUG"
"""The environment variable that keeps the traceback of every error."""


def wants_traceback() -> bool:
    """Whether the user asked for the traceback of every error."""
    return bool(os.environ.get(DEBUG))


def is_mistake(error: BaseException) -> bool:
    """Whether an error tells a user what to do, so that its traceback would only be in the way."""
    return isinstance(error, (FixedShapeError, OSError, *_errors_of_the_hub())) or (
        isinstance(error, ValueError) and _raised_by(error) in ("transformers", "huggingface_hub")
    )


def message_of(error: BaseException) -> str:
    """Returns what an error says, on one line; its class where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def _errors_of_the_hub() -> tuple[type[Exception], ...]:
    if "huggingface_hub" not in sys.modules:
        return ()
    from optimum_fixedshape._compat import outage_errors, repo_errors

    return (*repo_errors(), *outage_errors())


def _raised_by(error: BaseException) -> str:
    """The package whose code raised an error: these check what users pass to them."""
    trace: Any = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    return str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
