"""How far two answers are apart, and how far they may be. Pure functions on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from optimum_fixedshape.fitting import Array
from optimum_fixedshape.graph.outline import Outline

Outputs = dict[str, Array]

_TINY = 1e-6
_QUANTIZED = ("Quantize", "Dequantize", "DynamicQuantize", "QLinear", "MatMulInteger", "ConvInteger", "QAttention")
_TOLERANCES = {"float32": 1e-4, "float64": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
_ELSEWHERE = 1e-2  # GPUs and NPUs round float32 to TF32 or float16 on their own
_OPENVINO_ON_CPUS = ("CPU", "CPU_FP32")  # computes in float32 unless load_config says otherwise


@dataclass(frozen=True)
class Accuracy:
    """How exactly a graph computes.

    Attributes:
        dtype: The type of its weights.
        is_quantized: Whether it computes with 8-bit integers, so that rounding depends on what stands beside a row.
        tolerance: What counts as rounding, as a share of the largest number of an output.
    """

    dtype: str
    is_quantized: bool
    tolerance: float


def accuracy_of(outline: Outline, provider: str, options: Mapping[str, Any] | None = None) -> Accuracy:
    """Returns how exactly a graph computes on a provider, by the types of its weights and its operators.

    Args:
        outline: What the graph computes.
        provider: The execution provider.
        options: Its options.
    """
    kinds = {weight.dtype for weight in outline.weights.values() if len(weight.shape) > 1}
    dtype = next((kind for kind in ("float16", "bfloat16") if kind in kinds), "float32")
    is_quantized = any(node.op_type.startswith(_QUANTIZED) for node in outline.walk())
    tolerance = _TOLERANCES[dtype]
    return Accuracy(
        dtype, is_quantized, tolerance if _keeps_types(provider, options or {}) else max(tolerance, _ELSEWHERE)
    )


def _keeps_types(provider: str, options: Mapping[str, Any]) -> bool:
    """Whether a provider computes in the types that the graph names."""
    if provider == "OpenVINOExecutionProvider":
        return options.get("device_type", "CPU") in _OPENVINO_ON_CPUS and "load_config" not in options
    return provider == "CPUExecutionProvider"


def as_array(value: Any) -> Array:
    """Returns an output as an array: maps and sequences, as classifiers outside neural networks give them, too."""
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return np.array([list(row.values()) for row in value])
    if isinstance(value, Mapping):
        return np.array(list(value.values()))
    if isinstance(value, list) and len({np.shape(part) for part in value}) > 1:
        return np.concatenate([np.ravel(part) for part in value])
    return np.asarray(value)


def apart(ours: Outputs, theirs: Outputs, scales: Mapping[str, float] | None = None) -> float:
    """Returns the largest difference between two answers, as a share of the largest number of each output.

    It is infinite where shapes differ or only one is NaN. Where outputs are no floating point numbers, it is 1 for any
    difference.

    Args:
        ours: Outputs by name.
        theirs: What they are measured against.
        scales: Largest numbers that outputs are known to have, where the answers are small parts of them.
    """
    known = scales or {}
    return max((_apart(ours[name], theirs[name], known.get(name, 0)) for name in theirs if name in ours), default=0.0)


def scale_of(array: Array) -> float:
    """Returns the largest finite number of an array, without its sign; 0 where there is none."""
    if array.dtype.kind != "f":
        return 0.0
    numbers = array.astype(np.float64)
    return float(np.abs(numbers[np.isfinite(numbers)]).max(initial=0.0))


def _apart(ours: Array, theirs: Array, scale: float) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    if theirs.dtype.kind != "f":
        return float(not np.array_equal(ours, theirs))
    mine, other = ours.astype(np.float64), theirs.astype(np.float64)
    where = np.isfinite(other)
    # Infinities of one sign are the same; so are places where both are no number.
    if not np.array_equal(mine[~where], other[~where], equal_nan=True) or not np.isfinite(mine[where]).all():
        return float("inf")
    return float(np.abs(mine[where] - other[where]).max(initial=0.0) / max(scale, scale_of(other), _TINY))


def is_finite(array: Array) -> bool:
    """Whether an array holds no NaN and no infinity."""
    return array.dtype.kind != "f" or bool(np.isfinite(array.astype(np.float64)).all())


def said(number: float) -> str:
    """Returns a difference in words."""
    if number == float("inf"):
        return "not to be compared, as shapes differ or one is NaN"
    return f"apart by {number:.1e} of the largest number"


def listed(names: Iterable[Any]) -> str:
    """Returns names as people list them: ``a, b and c``."""
    *first, last = map(str, names)
    return f"{', '.join(first)} and {last}" if first else last
