"""``optimum-cli fixed-shape``: our own command line, found by optimum through this folder."""

from __future__ import annotations

import argparse

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

_NAME = "fixed-shape"


class FixedShapeCommand(BaseOptimumCLICommand):
    """Hands everything behind its name to ``optimum-fixedshape``."""

    COMMAND = CommandInfo(
        name=_NAME, help="Inspect, export, pin, check, time and run graphs whose shapes are baked in."
    )

    @staticmethod
    def parse_args(parser: argparse.ArgumentParser) -> None:
        """Takes all arguments as they are, ``--help`` among them."""
        parser.prefix_chars = "\0"  # no argument begins with it, so that argparse takes none for an option of its own
        parser.add_argument("arguments", nargs=argparse.REMAINDER)

    def run(self) -> None:
        """Runs the command, and leaves Python with its exit code."""
        from optimum_fixedshape.cli.app import main

        main(self.args.arguments, prog_name=f"optimum-cli {_NAME}")


REGISTER_COMMANDS = [FixedShapeCommand]
