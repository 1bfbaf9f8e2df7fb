"""One PyTorch model at one set of shapes: an ONNX graph in which every dimension is a number."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib.metadata import version
from typing import Any

import onnx

from optimum_fixedshape.errors import ExportError, MissingExtraError
from optimum_fixedshape.graph.weights import walk_graphs

try:
    import onnxscript  # noqa: F401  # torch.onnx needs it, and says so only in the middle of an export
    import torch
except ImportError as error:
    raise MissingExtraError(
        f'Exporting needs {error.name}, which is not installed: pip install "optimum-fixedshape[export]"',
        extra="export",
    ) from error

OPSET = 20
"""The first opset with ``Gelu``: onnxruntime runs it 2 to 8 % faster than the five nodes that opset 18 has for it."""

TRACED_ATTENTION = "eager"
"""Plain matrix products and a finite mask.

The exporter writes ``sdpa`` with 6 nodes more a layer (infinite masks, and a guard against the NaN they make) that run
no faster; flash attention drops padded tokens, which no fixed shape can follow.
"""

_CHATTY_PACKAGES = ("torch", "onnxscript", "onnx_ir", "transformers")


def export_rung(
    model: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    *,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Returns `model` as a graph that takes exactly the shapes of `inputs`.

    Only the shapes and dtypes of `inputs` reach the graph, never their values: a model whose path through its own code
    depends on values is refused, not frozen to the path of the example. The model comes back as it was.

    Args:
        model: A transformers model. It is traced in evaluation mode and with eager attention.
        inputs: Argument of the model's ``forward`` to an example. Names and order become those of the graph's inputs.
        output_names: Attributes of the model's output, such as ``"logits"``. They become the graph's outputs.
        opset: Opset of the graph, 18 or later. Tools for NPUs may want 18; onnxruntime 1.20 takes up to 21.

    Raises:
        ExportError: PyTorch cannot trace or translate the model, the model has no such output, or the size of an
            output depends on values.
    """
    return export_module(_Positional(model, inputs, output_names), inputs, output_names, model=model, opset=opset)


def export_module(
    module: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    output_names: Sequence[str],
    *,
    model: torch.nn.Module,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Returns `module` as a graph that takes exactly the shapes of `inputs`; see `export_rung`.

    Args:
        module: What is traced: it takes the tensors of `inputs` by position, and returns a tuple of tensors.
        inputs: Names of the graph's inputs to examples.
        output_names: Names of the graph's outputs.
        model: The transformers model that `module` calls. The graph and its errors are named after it.
        opset: Opset of the graph, 18 or later.

    Raises:
        ExportError: PyTorch cannot trace or translate the module, or the size of an output depends on values.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in inputs.items()}
    with tracing(model, shapes):
        # Not torch.onnx.export(module): where its first capture fails, it may settle for one that bakes values in.
        traced = torch.export.export(module, tuple(inputs.values()), strict=False)
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(output_names),
            opset_version=opset,
            verbose=False,
        )
        exported = program.model_proto
    if loose := [value.name for value in exported.graph.output if not _is_fixed(value)]:
        raise _export_error(model, shapes, cause=f"the size of {', '.join(loose)} depends on the values of the inputs")
    return _signed(_stripped(exported), architecture=type(model).__name__)


@contextmanager
def tracing(model: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[None]:
    """Runs its block with `model` in evaluation mode, with eager attention, and in silence.

    Args:
        model: The model. It comes back as it was.
        shapes: The shapes that it is run at, for the message.

    Raises:
        ExportError: The block raises an error, whatever kind of error that is.
    """
    try:
        with _quiet(), _traceable(model), torch.no_grad():
            yield
    except Exception as error:  # the exporter raises errors of every kind
        raise _export_error(model, shapes, cause=_cause(error)) from error


class _Positional(torch.nn.Module):  # type: ignore[misc]  # mypy sees torch as Any
    def __init__(self, model: torch.nn.Module, input_names: Iterable[str], output_names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.input_names = tuple(input_names)
        self.output_names = tuple(output_names)
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs = self.model(**dict(zip(self.input_names, tensors, strict=True)), return_dict=True)
        if missing := [name for name in self.output_names if outputs.get(name) is None]:
            raise LookupError(f"the model gives {', '.join(outputs)}, and no {', '.join(missing)}")
        return tuple(outputs[name] for name in self.output_names)


@contextmanager
def _traceable(model: torch.nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    attention = _attention(model)
    model.eval()
    try:
        if attention:
            model.set_attn_implementation(TRACED_ATTENTION)
        yield
    finally:
        if attention:
            model.set_attn_implementation(attention)
        for module, mode in modes.items():
            module.training = mode


def _attention(model: torch.nn.Module) -> dict[str, Any]:
    if not hasattr(model, "set_attn_implementation"):
        return {}
    parts = {name: getattr(model.config, name) for name in model.config.sub_configs}
    chosen = {name: part._attn_implementation for name, part in parts.items() if part is not None}
    # A part that is no model of its own, such as MPT's attn_config, has chosen nothing.
    return {"": model.config._attn_implementation, **{name: each for name, each in chosen.items() if each}}


@contextmanager
def _quiet() -> Iterator[None]:
    levels = {logger: logger.level for logger in _chatty_loggers()}
    try:
        for logger in levels:
            logger.setLevel(logging.CRITICAL)
        # torch prints the whole graph it could not finish, beside raising an error that says why
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _chatty_loggers() -> list[logging.Logger]:
    known = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in _CHATTY_PACKAGES]
    loggers = map(logging.getLogger, known)
    return [*map(logging.getLogger, _CHATTY_PACKAGES), *(logger for logger in loggers if logger.level)]


def _is_fixed(value: onnx.ValueInfoProto) -> bool:
    return all(dim.dim_value > 0 for dim in value.type.tensor_type.shape.dim)


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    for graph in walk_graphs(model.graph):
        for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
            part.ClearField("metadata_props")
            part.ClearField("doc_string")
    return model


def _signed(model: onnx.ModelProto, *, architecture: str) -> onnx.ModelProto:
    model.producer_name, model.producer_version = "optimum-fixedshape", version("optimum-fixedshape")
    model.graph.name = architecture
    written_with = {package: version(package) for package in ("torch", "transformers")}
    onnx.helper.set_model_props(model, {"architecture": architecture, **written_with})
    return model


def _cause(error: BaseException) -> str:
    while error.__cause__:
        error = error.__cause__
    lines = (line.strip(" .:") for line in str(error).splitlines())
    return f"{type(error).__name__}: {next(filter(None, lines), 'no message')}"


def _export_error(model: torch.nn.Module, shapes: Mapping[str, tuple[int, ...]], *, cause: str) -> ExportError:
    architecture = type(model).__name__
    rung = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    message = f"{architecture} cannot be exported at {rung}: {cause}."
    return ExportError(message, architecture=architecture, shapes=shapes)
