"""Dynamic graphs made fixed: sizes for every open axis, and the proof that no shape is left to chance."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper

from optimum_fixedshape.contract import Axis, Mismatch, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InvalidModelError, ShapeMismatchError
from optimum_fixedshape.graph.baked import Baked, Trial
from optimum_fixedshape.graph.proof import MOST_ELEMENTS, ContradictionError, Prover, Scope, rebuild
from optimum_fixedshape.graph.reader import read_contract


def pin_graph(
    model: ModelProto,
    sizes: Mapping[str, int],
    *,
    roles: Mapping[str, Sequence[str | None]] | None = None,
    names: Mapping[str, str] | None = None,
) -> ModelProto:
    """Returns the model with every shape fixed, down to the last value inside; `model` is left as it is.

    Arithmetic on sizes is folded, branches that it chooses are put in place of their ``If``, and every value has its
    shape stated. What cannot be proven to be fixed is refused, and so is what would change the answer: a size that is
    baked in further down, against what the inputs say.

    Args:
        model: Any model, its weights inside.
        sizes: Size by shape key, such as ``{"batch_size": 1, "sequence_length": 128}``, or by the graph's own name of
            an axis, such as ``"N"``. What is baked in already need not be named.
        roles: Roles of axes, where the guessed ones are wrong.
        names: Standard names of inputs and outputs that are called otherwise in the graph.

    Raises:
        ShapeMismatchError: An axis is left open, a key is unknown, or a size contradicts the graph; `node`, `op_type`
            and `works` (sizes that would do) say where, if a node of the graph is to blame.
        InvalidModelError: The shape of some value depends on the data, or the graph is malformed.
    """
    return pin_as(model, contract_of(model, roles=roles, names=names), sizes)


def pin_as(model: ModelProto, contract: ShapeContract, sizes: Mapping[str, int]) -> ModelProto:
    """Returns what `pin_graph` does, of a model whose contract is known.

    Args:
        model: The model.
        contract: Its inputs and outputs, with all that is known of their names and roles.
        sizes: As in `pin_graph`.

    Raises:
        InvalidModelError, ShapeMismatchError: As in `pin_graph`.
    """
    fixed = fix_contract(contract, sizes)
    graph = _inlined(model).graph if model.functions else model.graph
    prover = Prover(contract.opset, model.ir_version)
    inputs = _stated(graph, fixed)
    scope = scope_of(inputs)
    asked = asked_of(contract, fixed)

    def at(others: Mapping[str, int]) -> Trial | None:
        """What is known of the graph at other sizes, or None where it cannot run at them."""
        try:
            other = fix_contract(contract, {**asked, **others})
            there = scope_of(_stated(graph, other))
            prover.walk(graph, there)
        except (ContradictionError, InvalidModelError, ShapeMismatchError):
            return None
        return Trial(there, other)

    baked = Baked(graph, contract, Trial(scope, fixed), asked, at)
    try:
        walked = prover.walk(graph, scope)
    except ContradictionError as error:
        raise baked.at_node(error.node, error.reason) from error
    if wrong := baked.at_tables() or baked.at_outputs():
        raise wrong
    pinned = ModelProto(**{f.name: value for f, value in model.ListFields() if f.name not in ("graph", "functions")})
    pinned.ir_version = max(model.ir_version, 4)  # older ones have every constant among the inputs
    rebuild(graph, walked, scope, into=pinned.graph)
    stated = {value.name: value for value in inputs}
    for value in pinned.graph.input:
        value.CopyFrom(stated[value.name])
    return pinned


def contract_of(
    model: ModelProto,
    *,
    roles: Mapping[str, Sequence[str | None]] | None = None,
    names: Mapping[str, str] | None = None,
) -> ShapeContract:
    """Returns the contract of a model that is in memory, read from a copy without its weights.

    Raises:
        InvalidModelError: Its inputs or outputs are malformed.
        ShapeMismatchError: `roles` or `names` contradict the graph.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    weights |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    header = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    header.graph.input.extend(value for value in model.graph.input if value.name not in weights)
    header.graph.output.extend(model.graph.output)
    return read_contract(io.BytesIO(header.SerializeToString()), roles=roles, names=names)


def fix_contract(contract: ShapeContract, sizes: Mapping[str, int]) -> ShapeContract:
    """Returns the contract with every axis of its inputs fixed; those of its outputs follow as far as they are told.

    Args:
        contract: The graph's.
        sizes: Size by shape key or by the graph's own name of an axis.

    Raises:
        ShapeMismatchError: An axis is left open, a key is unknown, or a size is none or contradicts the graph.
    """
    _check_sizes(contract, sizes)
    by_symbol: dict[str, int] = {}
    for spec in contract.inputs:
        for axis in spec.axes or ():
            size = _size_of(axis, contract, sizes)
            if size is None or axis.symbol is None:
                continue
            if (other := by_symbol.setdefault(axis.symbol, size)) != size:
                raise ShapeMismatchError(
                    f"The graph calls several axes {axis.symbol!r}, which therefore have one size, and they were given "
                    f"{other} and {size} ({axis.role or axis.symbol} of {spec.name})."
                )

    def fix(spec: TensorSpec) -> TensorSpec:
        axes = spec.axes and tuple(
            replace(axis, size=_size_of(axis, contract, sizes) or by_symbol.get(axis.symbol or ""))
            for axis in spec.axes
        )
        return replace(spec, axes=axes)

    fixed = replace(contract, inputs=tuple(map(fix, contract.inputs)), outputs=tuple(map(fix, contract.outputs)))
    _check_fixed(fixed)
    return fixed


def asked_of(contract: ShapeContract, fixed: ShapeContract) -> dict[str, int]:
    """Returns the size of each open axis of `contract` as `fixed` has it, by shape key or the graph's own name."""
    asked: dict[str, int] = {}
    for spec, there in zip(contract.inputs, fixed.inputs, strict=True):
        for axis, other in zip(spec.axes or (), there.axes or (), strict=True):
            if axis.size is None and other.size is not None and (key := axis.role or axis.symbol):
                asked[key] = other.size
    return asked


def _size_of(axis: Axis, contract: ShapeContract, sizes: Mapping[str, int]) -> int | None:
    if axis.size is not None:
        return axis.size
    for key in (axis.role, axis.symbol):
        if key is not None and key in sizes:
            return sizes[key]
    return contract.sizes.get(axis.role or "")  # baked in at another input


def _check_sizes(contract: ShapeContract, sizes: Mapping[str, int]) -> None:
    symbols = {axis.symbol for spec in contract.inputs for axis in spec.axes or () if axis.symbol}
    for key, size in sizes.items():
        if key not in contract.sizes and key not in symbols:
            known = ", ".join(sorted({*contract.sizes, *symbols})) or "none"
            raise ShapeMismatchError(f"The graph has no axis {key!r} to pin. It has: {known}.")
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ShapeMismatchError(f"{key} must be a whole number of 1 or more, got {size!r}.")
        baked = contract.sizes.get(key)
        if baked is not None and baked != size:
            raise ShapeMismatchError(
                f"{key} is baked into the graph as {baked} and cannot become {size}. Leave it out, or export the model "
                "again with the size you need.",
                mismatches=(Mismatch(key, None, str(baked), str(size)),),
            )


def _check_fixed(fixed: ShapeContract) -> None:
    for spec in fixed.inputs:
        if spec.axes is None:
            raise ShapeMismatchError(
                f"The graph does not say how many axes its input {spec.name} has ({spec.dtype}). Export it again with "
                "a shape for each input."
            )
    left = [(spec, axis) for spec in fixed.inputs for axis in spec.axes or () if axis.size is None]
    if left:
        keys = dict.fromkeys(axis.role or axis.symbol for _, axis in left)
        named = {key for key in keys if key}
        where = ", ".join(dict.fromkeys(str(spec) for spec, _ in left))
        ways = f"give sizes for {', '.join(sorted(named))}" if named else ""
        if None in keys:
            ways += ("; and " if ways else "") + "say with roles= what the axes without a name stand for"
        raise ShapeMismatchError(f"Axes are left open in {where}: {ways}.", left=tuple(sorted(named)))
    for spec in fixed.inputs:
        sizes = [axis.size or 0 for axis in spec.axes or ()]
        if math.prod(sizes) > MOST_ELEMENTS:
            raise ShapeMismatchError(
                f"{spec.name} would be an array of {' x '.join(map(str, sizes))} numbers, and at most {MOST_ELEMENTS} "
                "make sense. Give smaller sizes."
            )


def _stated(graph: GraphProto, fixed: ShapeContract) -> list[ValueInfoProto]:
    """The inputs with the shapes that they are to have."""
    by_name = {value.name: value for value in graph.input}
    stated = []
    for spec in fixed.inputs:
        value = ValueInfoProto()
        value.CopyFrom(by_name[spec.session_name])
        sizes = [axis.size for axis in spec.axes or ()]
        value.type.CopyFrom(helper.make_tensor_type_proto(value.type.tensor_type.elem_type, sizes))
        stated.append(value)
    return stated


def scope_of(inputs: Sequence[ValueInfoProto]) -> Scope:
    """Returns what is known of a graph before a walk: its inputs."""
    return Scope({value.name: value.type for value in inputs})


def _inlined(model: ModelProto) -> ModelProto:
    """The model with its own functions in place of the nodes that call them."""
    from onnx import inliner

    light = ModelProto(**{field.name: value for field, value in model.ListFields() if field.name != "graph"})
    for field, value in model.graph.ListFields():
        if field.name != "initializer":
            getattr(light.graph, field.name).MergeFrom(value) if field.is_repeated else setattr(
                light.graph, field.name, value
            )
    # Weights without their bytes: what is inlined gets names that none of them has.
    light.graph.initializer.extend(
        TensorProto(name=tensor.name, dims=tensor.dims, data_type=tensor.data_type)
        for tensor in model.graph.initializer
    )
    inlined = inliner.inline_local_functions(light)
    del inlined.graph.initializer[:]
    inlined.graph.initializer.extend(model.graph.initializer)
    return inlined
