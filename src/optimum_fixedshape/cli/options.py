"""Options that several commands share, and what is read from their text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

_HUB = "Hub"

Model = Annotated[str, typer.Argument(metavar="MODEL", help="An .onnx file, a folder or a Hub repo id.")]
Task = Annotated[str | None, typer.Option(metavar="TASK", help="transformers' name of the task.")]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="KEY=SIZES", help="A size, or several for a ladder: sequence_length=16,64."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="An argument of the pipeline, such as top_k=3 or overflow=window."
    ),
]
InputNames = Annotated[
    list[str] | None,
    typer.Option("--input-name", metavar="GRAPH=STANDARD", help="What an input or output is: data_0=pixel_values."),
]
Provider = Annotated[str, typer.Option(metavar="NAME", help="The execution provider of onnxruntime.")]
ProviderOptions = Annotated[
    list[str] | None,
    typer.Option("--provider-option", metavar="NAME=VALUE", help="An option of the provider, such as device_type=NPU."),
]
Original = Annotated[
    str | None, typer.Option(metavar="MODEL", help="The PyTorch model to compare with: a folder or a Hub repo id.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]

FileName = Annotated[
    str | None, typer.Option(metavar="FILE", help="Which graph, where there are several.", rich_help_panel=_HUB)
]
Variant = Annotated[
    str | None, typer.Option(metavar="NAME", help="quantized for model_quantized.onnx, ...", rich_help_panel=_HUB)
]
Subfolder = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Folder of the repo that holds the graphs.", rich_help_panel=_HUB)
]
Revision = Annotated[
    str | None, typer.Option(metavar="NAME", help="Branch, tag or commit of the repo.", rich_help_panel=_HUB)
]
Token = Annotated[
    str | None,
    typer.Option(metavar="TOKEN", help="For private repos; by default the saved login.", rich_help_panel=_HUB),
]
CacheDir = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where downloads are kept.", rich_help_panel=_HUB)
]
LocalFilesOnly = Annotated[
    bool, typer.Option("--local-files-only", help="Never ask the Hub, only its cache.", rich_help_panel=_HUB)
]

_NO_SETTINGS = ("task", "model", "model_kwargs", "revision", "token", "device")
"""Arguments of a pipeline that say which model runs, and where."""


def given(**options: Any) -> dict[str, Any]:
    """Returns the options that were given, for a function whose defaults stand for the others."""
    return {name: value for name, value in options.items() if value not in (None, False)}


def examples(*lines: str) -> str:
    """Returns the examples at the end of a command's help, one a line."""
    return "\n\n".join(["Examples:", *lines])


def read_shapes(texts: Sequence[str] | None) -> dict[str, int | list[int]]:
    """Returns ``{"batch_size": 8, "sequence_length": [16, 64]}`` for ``batch_size=8`` and ``sequence_length=16,64``.

    Raises:
        typer.BadParameter: A text is something else.
    """
    shapes: dict[str, int | list[int]] = {}
    for key, value in _pairs(texts, "--shape", "KEY=SIZES, such as sequence_length=16,64").items():
        sizes = value.split(",")
        if not all(size.strip().isdecimal() and int(size) for size in sizes):
            raise typer.BadParameter(
                f"{key}={value}: sizes are numbers of 1 or more with commas between them.", param_hint="--shape"
            )
        shapes[key] = int(value) if len(sizes) == 1 else [int(size) for size in sizes]
    return shapes


def read_settings(texts: Sequence[str] | None) -> dict[str, Any]:
    """Returns ``{"top_k": 3, "overflow": "window"}`` for ``top_k=3`` and ``overflow=window``: values are JSON or text.

    Raises:
        typer.BadParameter: A text has no ``=``, or names what the command has arguments and options for.
    """
    pairs = _pairs(texts, "--set", "NAME=VALUE, such as top_k=3")
    if own := [name for name in pairs if name in _NO_SETTINGS]:
        raise typer.BadParameter(
            f"{', '.join(own)}: this is said by the command's own arguments and options; see --help.",
            param_hint="--set",
        )
    return {name: _value(text) for name, text in pairs.items()}


def read_names(texts: Sequence[str] | None) -> dict[str, str]:
    """Returns ``{"data_0": "pixel_values"}`` for ``data_0=pixel_values``.

    Raises:
        typer.BadParameter: A text has no ``=``.
    """
    return _pairs(texts, "--input-name", "GRAPH=STANDARD, such as data_0=pixel_values")


def read_provider_options(texts: Sequence[str] | None) -> dict[str, str]:
    """Returns ``{"device_type": "NPU"}`` for ``device_type=NPU``.

    Raises:
        typer.BadParameter: A text has no ``=``.
    """
    return _pairs(texts, "--provider-option", "NAME=VALUE, such as device_type=NPU")


def _pairs(texts: Sequence[str] | None, option: str, wanted: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        key, sign, value = text.rpartition("=") if option == "--input-name" else text.partition("=")
        if not (key and sign and value):
            raise typer.BadParameter(f"{text!r} is not of the form {wanted}.", param_hint=option)
        if key in pairs:
            raise typer.BadParameter(f"{key} has {pairs[key]} and {value}: give it once.", param_hint=option)
        pairs[key] = value
    return pairs


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def check_provider(provider: str) -> str:
    """Returns the name of an execution provider that is there.

    Raises:
        typer.BadParameter: onnxruntime was built without it.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if provider not in available:
        raise typer.BadParameter(
            f"This onnxruntime has no {provider}. It has: {', '.join(available)}.", param_hint="--provider"
        )
    return provider
