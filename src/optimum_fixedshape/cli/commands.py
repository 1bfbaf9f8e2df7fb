"""The commands, each with its examples, as one typer app."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from .app import NAME
from .bench import bench
from .check import check
from .console import emit
from .export import export
from .init import init
from .inspect import inspect
from .mistakes import DEBUG
from .options import examples
from .pin import pin
from .run import run

app = typer.Typer(
    name=NAME,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all is well; 1 a check, an item or a path failed; 2 wrong usage; 3 the model or a file "
    f"cannot be used; 130 interrupted.\n\n{DEBUG}=1 shows the traceback of an error.",
)

_COMMANDS: dict[Callable[..., None], list[str]] = {
    inspect: [f"{NAME} inspect model.onnx", f"{NAME} inspect my-org/bert-fixed --json | jq .tasks"],
    export: [
        f"{NAME} export sentence-transformers/all-MiniLM-L6-v2 minilm --task feature-extraction "
        "--shape batch_size=8 --shape sequence_length=16,64",
        f"{NAME} export my-org/bert bert-fixed --with-inference --set overflow=window",
    ],
    pin: [
        f"{NAME} pin model.onnx fixed --shape batch_size=1 --shape sequence_length=16,64",
        f"{NAME} pin my-org/bert-onnx fixed --shape batch_size=1 --shape sequence_length=128 --optimize --dtype int8",
    ],
    check: [
        f"{NAME} check bert-fixed",
        f"{NAME} check bert-fixed --original my-org/bert --json > report.json",
    ],
    bench: [f"{NAME} bench bert-fixed", f"{NAME} bench bert-fixed --original my-org/bert --json"],
    run: [
        f"{NAME} run bert-fixed texts.txt > answers.jsonl",
        f"{NAME} run vit-fixed photos/*.jpg --set top_k=1",
        f"echo 'A text.' | {NAME} run bert-fixed",
    ],
    init: [
        f"{NAME} init model.onnx --task image-classification --labels labels.txt --output vit-fixed",
        f"{NAME} init model.onnx --source google/vit-base-patch16-224 --input-name data_0=pixel_values",
    ],
}

for _command, _lines in _COMMANDS.items():
    app.command(epilog=examples(*_lines), no_args_is_help=True)(_command)


def _show_version(asked: bool) -> None:
    if asked:
        emit(f"{NAME} {version_of(NAME)}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """ONNX graphs with baked-in shapes: look into them, make them, check them, and run them."""
