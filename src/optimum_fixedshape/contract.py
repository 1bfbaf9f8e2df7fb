"""Contracts: what a graph demands of its inputs and promises of its outputs. Frozen facts, no I/O.

A *role* is what an axis stands for. Roles carry the names that optimum's exporters use for shapes
(``batch_size``, ``sequence_length``, ``num_choices``, ...), so that a role, a shape key and a key of
``shapes={...}`` are the same word everywhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .caches import CacheTensor, cache_of
from .errors import ShapeMismatchError

if TYPE_CHECKING:
    from pathlib import Path

BATCH = "batch_size"
SEQUENCE = "sequence_length"
SAMPLES = "audio_sequence_length"
IMAGES, TEXTS, SOUNDS = "image_batch_size", "text_batch_size", "audio_batch_size"
BATCHES = frozenset({BATCH, IMAGES, TEXTS, SOUNDS})
"""Roles that count rows. Models with two towers have one for each tower."""

PAST, TOTAL, SOURCE = "past_sequence_length", "total_sequence_length", "encoder_sequence_length"
"""Of decoders: slots of the cache, slots and new tokens together, and places of what the encoder read."""

REPEATED = BATCHES | {"num_choices"}
FILLED = REPEATED | {SEQUENCE, SAMPLES, PAST, TOTAL, SOURCE}
"""Roles whose axes may be smaller than the graph's; every other fixed axis must match exactly."""

Steps = tuple[tuple[int, int], ...]
"""Convolutions without padding, one after the other: kernel and stride of each."""


def fields_of(facts: Any) -> dict[str, Any]:
    """Returns what is pickled of a dataclass: not what it computed from its fields, so that equal ones stay equal."""
    return {each.name: getattr(facts, each.name) for each in fields(facts)}


@dataclass(frozen=True)
class Axis:
    """One dimension of a tensor.

    Attributes:
        size: The baked-in size, or None where the dimension is dynamic.
        symbol: The name the graph gives a dynamic dimension, or None.
        role: The shape key this axis stands for, or None where it is not known.
        evidence: Why `role` was chosen; empty where there is none.
        steps: What the role's size went through on its way to this axis: frames are samples after convolutions.
        extra: How many places come after those of the role: document models put image patches behind the tokens.
    """

    size: int | None
    symbol: str | None = None
    role: str | None = None
    evidence: str = ""
    steps: Steps = ()
    extra: int = 0

    def length_for(self, size: int) -> int:
        """Returns how many places of this axis, without the extra ones, belong to an input of `size`."""
        return size_after(size, self.steps)

    def __str__(self) -> str:
        return str(self.size if self.size is not None else self.symbol or "?")


def size_after(size: int, steps: Steps) -> int:
    """Returns the size of an axis of `size` after convolutions without padding; 0 where it is shorter than a kernel."""
    for kernel, stride in steps:
        size = max((size - kernel) // stride + 1, 0)
    return size


@dataclass(frozen=True)
class TensorSpec:
    """Name, type and axes of one graph input or output.

    Attributes:
        name: What everybody calls it: the name in the graph, or the standard one that it was mapped to.
        dtype: A NumPy type name such as ``"int64"``, or for values that are no tensors a description such as
            ``"sequence(float32)"``.
        axes: The dimensions in order, or None where the graph does not state a rank.
        graph_name: What the graph calls it, where that is another name.
    """

    name: str
    dtype: str
    axes: tuple[Axis, ...] | None
    graph_name: str | None = None

    @property
    def session_name(self) -> str:
        """The name by which a session of the graph knows it."""
        return self.graph_name or self.name

    @property
    def shape(self) -> tuple[int | str | None, ...] | None:
        """The dimensions: a size, the symbol of a dynamic one, or None for an unnamed dynamic one."""
        return None if self.axes is None else tuple(a.size if a.size is not None else a.symbol for a in self.axes)

    @property
    def is_fixed(self) -> bool:
        """Whether the rank and every dimension are baked in."""
        return self.axes is not None and all(axis.size is not None for axis in self.axes)

    def roles(self) -> tuple[str | None, ...]:
        """The role of each axis, in order."""
        return tuple(axis.role for axis in self.axes or ())

    def axis_of(self, role: str) -> int | None:
        """The index of the first axis that has `role`, or None."""
        return next((i for i, axis in enumerate(self.axes or ()) if axis.role == role), None)

    __getstate__ = fields_of

    @cached_property
    def batch_role(self) -> str | None:
        """The role of the axis that counts rows, or None."""
        return next((role for role in self.roles() if role in BATCHES), None)

    def __str__(self) -> str:
        shape = "?" if self.axes is None else ", ".join(map(str, self.axes))
        return f"{self.name}: {self.dtype}[{shape}]"


@dataclass(frozen=True)
class Mismatch:
    """One contradiction between arrays and a contract.

    Attributes:
        name: The input.
        axis: The axis, or None where the dtype, the rank or the input as a whole is at odds.
        expected: What the graph takes.
        given: What came.
    """

    name: str
    axis: int | None
    expected: str
    given: str

    def __str__(self) -> str:
        where = self.name if self.axis is None else f"{self.name} axis {self.axis}"
        return f"{where}: expected {self.expected}, got {self.given}"


@dataclass(frozen=True)
class ShapeContract:
    """What one graph demands, read from its file's header.

    Attributes:
        inputs: The inputs that must be fed. An input that is also an initializer is not among them.
        outputs: The outputs.
        opset: Opset version of each operator domain; the ONNX domain is ``""``.
        producer: The tool that wrote the graph, with its version.
        metadata: The graph's own metadata.
        external_data: The files beside the graph that hold its weights, relative to its folder.
        path: Where the graph was read from, or None.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: Mapping[str, int] = field(default_factory=dict)
    producer: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    external_data: tuple[str, ...] = ()
    path: Path | None = None

    __getstate__ = fields_of

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs, in the graph's order."""
        return tuple(spec.name for spec in self.inputs)

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in the graph's order."""
        return tuple(spec.name for spec in self.outputs)

    @cached_property
    def sizes(self) -> dict[str, int | None]:
        """The size of each role among the inputs: baked in, or None where every axis of that role is dynamic."""
        sizes: dict[str, int | None] = {}
        for axis in (axis for spec in self.inputs for axis in spec.axes or () if axis.role):
            role = axis.role or ""
            if sizes.get(role) is None:
                sizes[role] = axis.size
        return sizes

    @property
    def batch_size(self) -> int | None:
        """Rows of one run, or None where any number can be fed."""
        return self.sizes.get(BATCH)

    @property
    def sequence_length(self) -> int | None:
        """Tokens of one row, or None where the graph takes any length or no tokens at all."""
        return self.sizes.get(SEQUENCE)

    @property
    def is_fixed(self) -> bool:
        """Whether every dimension of every input is baked in."""
        return all(spec.is_fixed for spec in self.inputs)

    @cached_property
    def cache(self) -> tuple[CacheTensor, ...]:
        """The keys and values that a decoder takes and gives; see `caches.cache_of`."""
        return cache_of(self)

    @cached_property
    def names(self) -> dict[str, str]:
        """The names that were mapped: the graph's name to the one in use."""
        specs = (*self.inputs, *self.outputs)
        return {spec.graph_name: spec.name for spec in specs if spec.graph_name is not None}

    def renamed(self, names: Mapping[str, str]) -> ShapeContract:
        """Returns the contract with inputs and outputs under other names; sessions are still fed by the graph's.

        Roles stay as they are: `roles.with_names` tells them anew.

        Args:
            names: The graph's name to the standard one, such as ``{"data_0": "pixel_values"}``.

        Raises:
            ShapeMismatchError: The graph has no such input or output, or two of them would have one name.
        """
        specs = (*self.inputs, *self.outputs)
        known = {spec.session_name: names.get(spec.session_name, spec.session_name) for spec in specs}
        check_known_names(names, known)
        owners: dict[str, str] = {}
        for graph_name, name in known.items():
            if (other := owners.setdefault(name, graph_name)) != graph_name:
                raise ShapeMismatchError(
                    f"Two tensors of the graph would be called {name}: {other} and {graph_name}. Give each a name of "
                    "its own in input_names= and output_names=."
                )

        def rename(spec: TensorSpec) -> TensorSpec:
            name = known[spec.session_name]
            return replace(spec, name=name, graph_name=None if name == spec.session_name else spec.session_name)

        return replace(self, inputs=tuple(map(rename, self.inputs)), outputs=tuple(map(rename, self.outputs)))

    def input(self, name: str) -> TensorSpec:
        """Returns the input called `name`.

        Raises:
            KeyError: There is none.
        """
        return {spec.name: spec for spec in self.inputs}[name]

    def mismatches(self, arrays: Mapping[str, Any]) -> tuple[Mismatch, ...]:
        """Returns every reason why a bare session would refuse `arrays`, or nothing.

        Args:
            arrays: Input name to an array with ``shape`` and ``dtype``. Names that the graph does not take are
                mismatches, too.
        """
        known = set(self.input_names)
        found = [Mismatch(name, None, "no such input", "an array") for name in arrays if name not in known]
        for spec in self.inputs:
            if spec.name not in arrays:
                found.append(Mismatch(spec.name, None, str(spec), "nothing"))
                continue
            found += _mismatches_of(spec, arrays[spec.name])
        return tuple(found)

    def pinned(self, sizes: Mapping[str, int]) -> ShapeContract:
        """Returns the contract with its dynamic axes fixed to `sizes`, everywhere the same role stands.

        Args:
            sizes: Shape key to size, such as ``{"batch_size": 1, "sequence_length": 128}``.

        Raises:
            ShapeMismatchError: A key names no axis of the graph, or an axis with another baked-in size.
        """
        for role, size in sizes.items():
            if role not in self.sizes:
                known = ", ".join(sorted(self.sizes)) or "none"
                raise ShapeMismatchError(f"The graph has no axis {role!r} to pin. It has: {known}.")
            if size < 1:
                raise ShapeMismatchError(f"{role} must be 1 or more, got {size}.")
            baked = self.sizes[role]
            if baked is not None and baked != size:
                mismatch = Mismatch(role, None, str(baked), str(size))
                raise ShapeMismatchError(
                    f"{role} is baked into the graph as {baked} and cannot become {size}. Leave it out of shapes=, "
                    "or export the model again with the size you need.",
                    mismatches=(mismatch,),
                )

        def pin(spec: TensorSpec) -> TensorSpec:
            axes = spec.axes and tuple(
                replace(a, size=sizes[a.role]) if a.size is None and a.role and a.role in sizes else a
                for a in spec.axes
            )
            return replace(spec, axes=axes)

        return replace(self, inputs=tuple(map(pin, self.inputs)), outputs=tuple(map(pin, self.outputs)))

    def to_dict(self) -> dict[str, Any]:
        """Returns the contract as plain types, ready for JSON."""
        facts = asdict(self)
        facts["path"] = None if self.path is None else str(self.path)
        return facts

    def describe(self) -> str:
        """Returns a table for people: each input and output, its axes, their roles and the evidence."""
        opset = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in self.opset.items())
        lines = [f"{self.path or 'graph'} (opset {opset or 'unknown'}; written by {self.producer or 'unknown'})"]
        for title, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            lines.append(f"{title}:")
            for spec in specs:
                lines.append(f"  {spec}" + (f" (in the graph: {spec.graph_name})" if spec.graph_name else ""))
                lines += [f"    {axis} = {axis.role} ({axis.evidence})" for axis in spec.axes or () if axis.role]
        return "\n".join(lines)


def check_known_names(names: Iterable[str], known: Collection[str]) -> None:
    """Raises an error if `names` are not all among those that a graph has.

    Raises:
        ShapeMismatchError: They are not.
    """
    if unknown := [name for name in names if name not in known]:
        raise ShapeMismatchError(
            f"input_names= and output_names= map {', '.join(unknown)}, and the graph has {', '.join(known)}. "
            "They map the graph's own names to standard ones, as in {'data_0': 'pixel_values'}."
        )


def _mismatches_of(spec: TensorSpec, array: Any) -> list[Mismatch]:
    found = []
    # onnxruntime takes text as str or object arrays: NumPy has no type called "string".
    is_text = spec.dtype == "string" and getattr(array.dtype, "kind", "") in ("O", "U")
    if str(array.dtype) != spec.dtype and not is_text:
        found.append(Mismatch(spec.name, None, spec.dtype, str(array.dtype)))
    if spec.axes is None:
        return found
    if len(array.shape) != len(spec.axes):
        return [*found, Mismatch(spec.name, None, f"{len(spec.axes)} axes", f"{len(array.shape)}")]
    found += [
        Mismatch(spec.name, i, str(axis.size), str(size))
        for i, (axis, size) in enumerate(zip(spec.axes, array.shape, strict=True))
        if axis.size is not None and axis.size != size
    ]
    return found
