"""Graph fusions and folded constants, by onnxruntime's own optimizers, without a change that a caller could see."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

from optimum_fixedshape._compat import imported
from optimum_fixedshape.errors import InvalidModelError, warn

from .attention import fuse_attention

logger = logging.getLogger(__name__)

MOST_BYTES = 2**31 - 1
"""What a file of the protobuf format holds."""

_FUSED = (
    *("Attention", "MultiHeadAttention", "LayerNormalization", "SimplifiedLayerNormalization"),
    *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "RotaryEmbedding"),
)

# A file in which MatMul and Add were made Gemm cannot be opened again: the names that this makes are made twice. It
# also hides attention from the fusions, and matrix products from quantization. Shared constants are renamed.
_LEFT_OUT = ["ConstantSharing", "MatMulAddFusion"]


@dataclass(frozen=True)
class _Architecture:
    """What onnxruntime's optimizer must know of a model.

    Attributes:
        kind: The optimizer's own name of its patterns.
        heads: The config's name of the number of attention heads.
        width: The config's name of the hidden size.
        attention: Whether attention may be fused; only where it was seen to keep the answer under any mask.
    """

    kind: str
    heads: str = "num_attention_heads"
    width: str = "hidden_size"
    attention: bool = True


_BERT = _Architecture("bert")
_ARCHITECTURES: Mapping[str, _Architecture] = {
    **dict.fromkeys(("albert", "bert", "camembert", "electra", "roberta", "xlm-roberta"), _BERT),
    "distilbert": _Architecture("bert", "n_heads", "dim"),
}
# The optimizer's patterns for other architectures find nothing in today's exports, make operators that the CPU does
# not have (T5's relative positions), or fail (GPT-2's, on products without a bias). Norms, activations and rotary
# embeddings are the same in all.
_ANY = _Architecture("bert", attention=False)


def optimize_graph(model: ModelProto, *, config: Mapping[str, Any], packs_projections: bool = True) -> ModelProto:
    """Returns the model with what belongs together fused into single operators; `model` is left as it is.

    Attention is fused in graphs of fixed shapes that ``torch.onnx.export(dynamo=True)`` made, as ours, of any model
    whose attention `fuse_attention` knows; in exports by TorchScript, that of BERT and its kin. Layer norms,
    activations and rotary embeddings are fused for all models, by onnxruntime's optimizer for transformers; then
    constants are folded, and batch norms go into their convolutions.
    Inputs and outputs stay as they are, and a mask hides what it hid, on whichever side (a row that is masked all over
    may get other numbers, finite ones). The fused operators are onnxruntime's own, and the graph needs it to run.
    `fused_operators` tells how many there are.

    Optimize exports by TorchScript, which stock optimum makes, before pinning: their attention is recognized by
    arithmetic on sizes, which pinning folds. The sum before a layer norm is not fused with it, as the CPU takes several
    times longer for the two in one.

    Args:
        model: Any model with its weights inside, with open or fixed shapes; up to 2 GB.
        config: The model's ``config.json``: ``model_type``, heads and hidden size are read. Where it does not have
            them, attention stays as it is.
        packs_projections: Let attention that `fuse_attention` finds have its projections inside, where it can.

    Warns:
        UserWarning: There was nothing to fuse.

    Raises:
        InvalidModelError: The model is larger than 2 GB, or onnxruntime cannot run it on the CPU.
        MissingExtraError: SymPy is not installed, which the optimizer tells shapes with.
    """
    check_size(model, "onnxruntime's optimizer")
    before = fused_operators(model)
    optimized = fold_constants(_fused(fuse_attention(model, packs_projections=packs_projections), config))
    found = {name: count for name, count in fused_operators(optimized).items() if count > before.get(name, 0)}
    if found:
        logger.debug("fused: %s", found)
    else:
        kind = config.get("model_type", "an unknown architecture")
        warn(
            f"onnxruntime's optimizer found nothing to fuse in this graph of {kind}: only its constants are folded "
            f"({len(model.graph.node)} nodes before, {len(optimized.graph.node)} now). It will not be much faster."
        )
    return optimized


def fused_operators(model: ModelProto) -> dict[str, int]:
    """Returns how often each operator that fusions make stands in a graph; none that does not."""
    counts = Counter(node.op_type for node in model.graph.node)
    return {name: counts[name] for name in _FUSED if counts[name]}


def fold_constants(model: ModelProto) -> ModelProto:
    """Returns the model after the optimizations of onnxruntime that need no operators of its own.

    Constants are folded, nodes that do nothing go, batch norms are put into convolutions. Inputs, outputs and metadata
    stay.

    Args:
        model: Any model with its weights inside, up to 2 GB.

    Raises:
        InvalidModelError: The model is larger than 2 GB, or onnxruntime cannot open it on the CPU.
    """
    check_size(model, "onnxruntime")
    with tempfile.TemporaryDirectory(prefix="optimum-fixedshape-") as folder:
        path = Path(folder) / "model.onnx"
        _opened(model, "ORT_ENABLE_BASIC", path)
        folded = onnx.load(path)
    return with_header_of(model, folded)


def state_types(model: ModelProto) -> None:
    """Puts the type of every value into the graph, as onnxruntime knows it, also of its own operators' outputs.

    Args:
        model: Edited in place.

    Raises:
        InvalidModelError: onnxruntime cannot open it on the CPU.
    """
    given = {value.name for value in (*model.graph.input, *model.graph.output)}
    names = [name for node in model.graph.node for name in node.output if name and name not in given]
    probe = ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    del model.graph.value_info[:]
    for output in _opened(probe, "ORT_DISABLE_ALL").get_outputs()[len(model.graph.output) :]:
        kind = output.type.removeprefix("tensor(").removesuffix(")").upper()
        # A session says [] of scalars, and of values that it knows nothing about.
        value = onnx.helper.make_tensor_value_info(output.name, TensorProto.DataType.Value(kind), output.shape or None)
        model.graph.value_info.append(value)


def _opened(model: ModelProto, level: str, saved_to: Path | None = None) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.log_severity_level = 4  # why it fails is in our error
    if saved_to is not None:
        options.optimized_model_filepath = str(saved_to)
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_LEFT_OUT
        )
    except Exception as error:  # onnxruntime's errors share no public base class
        raise InvalidModelError(
            f"onnxruntime cannot open the graph on the CPU, which optimizing and quantizing need: {error}. Do it "
            "without, or export the model again."
        ) from error


def with_header_of(original: ModelProto, changed: ModelProto) -> ModelProto:
    """Returns `changed` with the inputs, outputs and metadata of `original`, as which it is to be used.

    Args:
        original: The model before the change.
        changed: After it, with inputs and outputs of the same names and types. Edited in place.
    """
    weights = {tensor.name for tensor in original.graph.initializer}
    weights |= {tensor.values.name for tensor in original.graph.sparse_initializer}
    for part in ("input", "output"):
        values = getattr(changed.graph, part)
        del values[:]
        values.extend(value for value in getattr(original.graph, part) if value.name not in weights)
    del changed.metadata_props[:]
    changed.metadata_props.extend(original.metadata_props)
    changed.producer_name, changed.producer_version = original.producer_name, original.producer_version
    changed.graph.name = original.graph.name
    changed.ir_version = max(changed.ir_version, 4)  # before it, every weight had to be an input as well
    domains = {"", "ai.onnx", *_domains(changed.graph)}
    kept = [opset for opset in changed.opset_import if opset.domain in domains]
    del changed.opset_import[:]
    changed.opset_import.extend(kept)
    return changed


def check_size(model: ModelProto, library: str) -> None:
    """Raises an error if a model is too large for a library that takes it as one message of the protobuf format.

    Raises:
        InvalidModelError: It is.
    """
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > MOST_BYTES:
        raise InvalidModelError(
            f"The model holds {size / 1e9:.1f} GB of weights, and {library} takes models of up to 2 GB, the most that "
            "a file of the protobuf format holds. Pin it without optimize= and dtype=."
        )


def _fused(model: ModelProto, config: Mapping[str, Any]) -> ModelProto:
    imported("sympy", "export", "Optimizing a graph")
    from onnxruntime.transformers.fusion_options import FusionOptions
    from onnxruntime.transformers.optimizer import optimize_by_fusion

    known = _ARCHITECTURES.get(str(config.get("model_type")), _ANY)
    heads, width = (_whole(config.get(key)) for key in (known.heads, known.width))
    if not heads or width % heads:
        heads = width = 0
    options = FusionOptions(known.kind)
    options.enable_attention = known.attention and heads > 0  # not every graph shows how many heads it has
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = options.enable_embed_layer_norm = False
    options.use_raw_attention_mask(True)  # the other formats take padding on the right for granted
    copy = ModelProto()
    copy.CopyFrom(model)
    copy.producer_name = "pytorch"  # else it warns; what it goes by are patterns
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it could not tell
        fused: ModelProto = optimize_by_fusion(copy, known.kind, heads, width, options).model
    return with_header_of(model, fused)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _domains(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.domain
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _domains(attribute.g)
