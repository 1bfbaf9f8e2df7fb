"""``optimum-fixedshape``: runs a command, and turns the errors that a user can cause into one line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .console import complain, readable_stderr
from .mistakes import is_mistake, message_of, wants_traceback

NAME = "optimum-fixedshape"

_MISTAKE, _INTERRUPTED = 3, 130


def main(args: Sequence[str] | None = None, *, prog_name: str = NAME) -> None:
    """Runs a command.

    Args:
        args: The command and its arguments; by default those of the process.
        prog_name: What the help calls the program.

    Raises:
        SystemExit: With the exit code; ``optimum-fixedshape --help`` tells what each means.
    """
    args = sys.argv[1:] if args is None else args
    with readable_stderr():
        try:
            _run(args, prog_name)
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        except Exception as error:
            if wants_traceback() or not is_mistake(error):
                raise
            complain(message_of(error))
            sys.exit(_MISTAKE)


def _run(args: Sequence[str], prog_name: str) -> None:
    if plain := _plain_inspect(args):
        from .looking import show

        show(plain, as_json="--json" in args)
        return
    from .commands import app

    app(args=args, prog_name=prog_name)


def _plain_inspect(args: Sequence[str]) -> list[str]:
    """The paths of an ``inspect`` without options: it need not wait for typer, which takes longer than all the rest."""
    paths = [arg for arg in args[1:] if arg != "--json"]
    is_plain = args[:1] == ["inspect"] and not any(path.startswith("-") for path in paths)
    return paths if is_plain else []
