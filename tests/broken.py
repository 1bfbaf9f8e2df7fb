"""Graphs broken on purpose: healthy ones, in which one input or one output is not what it should be."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

Edit = Callable[[onnx.ModelProto], None]
Nodes = Iterable[NodeProto]

node = helper.make_node
HONEST, SEEN = "/honest", "/seen"


def folder(healthy: Path, target: Path, edit: Edit) -> Path:
    """Writes the folder `healthy` to `target`, with every graph edited."""
    target.mkdir()
    for file in healthy.iterdir():
        if file.suffix == ".onnx":
            graph(file, target / file.name, edit)
        elif file.suffix != ".onnx_data":
            shutil.copy(file, target)
    return target


def graph(healthy: Path, target: Path, edit: Edit) -> Path:
    """Writes the graph `healthy` to `target`, edited."""
    model = onnx.load(healthy)
    edit(model)
    onnx.save(model, target)
    return target


def output(name: str, *nodes: NodeProto, **weights: Any) -> Edit:
    """Returns an edit by which `nodes` make an output of what the healthy graph gives, ``NAME/honest``."""

    def edit(model: onnx.ModelProto) -> None:
        for each in model.graph.node:
            each.output[:] = [name + HONEST if made == name else made for made in each.output]
            each.input[:] = [name + HONEST if read == name else read for read in each.input]
        model.graph.node.extend(nodes)
        _add_weights(model, weights)

    return edit


def input_(name: str, *nodes: NodeProto, **weights: Any) -> Edit:
    """Returns an edit by which the healthy graph reads ``NAME/seen``, which `nodes` make of an input."""

    def edit(model: onnx.ModelProto) -> None:
        for each in model.graph.node:
            each.input[:] = [name + SEEN if read == name else read for read in each.input]
        rest = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*nodes, *rest])
        _add_weights(model, weights)

    return edit


def _add_weights(model: onnx.ModelProto, weights: Mapping[str, Any]) -> None:
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), f"broken/{name}") for name, value in weights.items()
    )


def noisy(name: str) -> Edit:
    """Random numbers are added to an output."""
    return output(
        name,
        node("RandomNormalLike", [name + HONEST], ["broken/noise"]),
        node("Add", [name + HONEST, "broken/noise"], [name]),
    )


def dropping(name: str) -> Edit:
    """Dropout was left in training mode."""
    return output(
        name,
        node("Dropout", [name + HONEST, "broken/ratio", "broken/training"], [name]),
        ratio=np.float32(0.5),
        training=np.array(True),
    )


def not_a_number(name: str) -> Edit:
    """Square roots of negative numbers."""
    return output(name, node("Sqrt", [name + HONEST], [name]))


def constant(name: str) -> Edit:
    """An output is 0 times what it should be."""
    return output(name, node("Mul", [name + HONEST, "broken/nothing"], [name]), nothing=np.float32(0))


def unread(name: str) -> Edit:
    """An input is 0 to all that reads it, whatever was fed."""
    return input_(name, node("Sub", [name, name], [name + SEEN]))


def deaf(mask: str) -> Edit:
    """A mask is all ones, to all that reads it."""
    return input_(
        mask,
        node("Mul", [mask, "broken/nothing"], ["broken/zeros"]),
        node("Add", ["broken/zeros", "broken/one"], [mask + SEEN]),
        nothing=np.int64(0),
        one=np.int64(1),
    )


def inverted(mask: str) -> Edit:
    """A mask is 1 where it should be 0."""
    return input_(mask, node("Sub", ["broken/one", mask], [mask + SEEN]), one=np.int64(1))


def divided_by_mask(name: str, mask: str, *, spoils: bool) -> Edit:
    """An output is multiplied by 0 / 0 in rows without a real token, and in all rows if it `spoils`."""
    nodes = [
        node("Cast", [mask], ["broken/real"], to=TensorProto.FLOAT),
        node("ReduceSum", ["broken/real", "broken/last"], ["broken/count"]),
        node("Div", ["broken/count", "broken/count"], ["broken/ones"]),
    ]
    if spoils:
        nodes += [node("ReduceMean", ["broken/ones"], ["broken/factor"], keepdims=0)]
    else:
        nodes += [node("Identity", ["broken/ones"], ["broken/factor"])]
    return output(name, *nodes, node("Mul", [name + HONEST, "broken/factor"], [name]), last=np.array([-1]))


def rows(name: str, order: Sequence[int]) -> Edit:
    """An output's rows are in another order, or repeated."""
    return output(name, node("Gather", [name + HONEST, "broken/order"], [name]), order=np.array(order))


def muted(name: str, factors: Any) -> Edit:
    """An output is multiplied by constants, such as 0 for some rows."""
    return output(name, node("Mul", [name + HONEST, "broken/factors"], [name]), factors=np.asarray(factors, np.float32))


def mean_of_all(name: str, tokens: str) -> Edit:
    """The mean of all tokens is added to an output, whatever the mask says."""
    return output(
        name,
        node("Cast", [tokens], ["broken/numbers"], to=TensorProto.FLOAT),
        node("ReduceMean", ["broken/numbers", "broken/last"], ["broken/means"]),
        node("Mul", ["broken/means", "broken/small"], ["broken/part"]),
        node("Add", [name + HONEST, "broken/part"], [name]),
        small=np.float32(0.001),
        last=np.array([-1]),
    )


def share_of_real(name: str, mask: str) -> Edit:
    """An output is multiplied by the share of tokens that are real, which depends on the padded length."""
    return output(
        name,
        node("Cast", [mask], ["broken/real"], to=TensorProto.FLOAT),
        node("ReduceMean", ["broken/real", "broken/last"], ["broken/share"]),
        node("Mul", [name + HONEST, "broken/share"], [name]),
        last=np.array([-1]),
    )


def added_length(name: str, size: int) -> Edit:
    """Positions of one length are added to an output ``(rows, tokens, width)``: no other length can be run."""
    places = np.linspace(0, 1, size, dtype=np.float32)[None, :, None]
    return output(name, node("Add", [name + HONEST, "broken/places"], [name]), places=places)


def folded(name: str, length: int, width: int) -> Edit:
    """An output ``(rows, tokens, width)`` comes in rows of one length, whatever the length of the rows fed."""
    return output(name, node("Reshape", [name + HONEST, "broken/shape"], [name]), shape=np.array([-1, length, width]))


def cut_off(tokens: str, length: int) -> Edit:
    """Tokens beyond a length are read as 0."""
    return input_(
        tokens,
        node("Shape", [tokens], ["broken/sizes"]),
        node("Gather", ["broken/sizes", "broken/second"], ["broken/size"]),
        node("Range", ["broken/zero", "broken/size", "broken/one"], ["broken/places"]),
        node("Less", ["broken/places", "broken/limit"], ["broken/is_read"]),
        node("Where", ["broken/is_read", tokens, "broken/zero"], [tokens + SEEN]),
        second=np.int64(1),
        zero=np.int64(0),
        one=np.int64(1),
        limit=np.int64(length),
    )


def blind_to_past(mask: str, tokens: str) -> Edit:
    """The mask of a decoder is read for its new tokens alone: all slots of its cache count as real."""
    return input_(
        mask,
        node("Shape", [tokens], ["broken/new"], start=1, end=2),
        node("Shape", [mask], ["broken/total"], start=1, end=2),
        node("Sub", ["broken/total", "broken/new"], ["broken/past"]),
        node("Squeeze", ["broken/total"], ["broken/total_number"]),
        node("Range", ["broken/zero", "broken/total_number", "broken/one"], ["broken/places"]),
        node("Less", ["broken/places", "broken/past"], ["broken/is_past"]),
        node("Where", ["broken/is_past", "broken/one", mask], [mask + SEEN]),
        zero=np.int64(0),
        one=np.int64(1),
    )


def counting_slots(mask: str, tokens: str) -> Edit:
    """A decoder takes no ``position_ids``, and makes them of how many slots there are."""

    def edit(model: onnx.ModelProto) -> None:
        input_(
            "position_ids",
            node("Shape", [tokens], ["broken/new"], start=1, end=2),
            node("Shape", [mask], ["broken/all"], start=1, end=2),
            node("Sub", ["broken/all", "broken/new"], ["broken/past"]),
            node("Squeeze", ["broken/past"], ["broken/first"]),
            node("Squeeze", ["broken/all"], ["broken/end"]),
            node("Range", ["broken/first", "broken/end", "broken/one"], ["broken/places"]),
            node("Unsqueeze", ["broken/places", "broken/rows"], ["broken/row"]),
            node("Shape", [tokens], ["broken/shape"]),
            node("Expand", ["broken/row", "broken/shape"], ["position_ids" + SEEN]),
            one=np.int64(1),
            rows=np.array([0]),
        )(model)
        kept = [value for value in model.graph.input if value.name != "position_ids"]
        del model.graph.input[:]
        model.graph.input.extend(kept)

    return edit


def unknown_operator(name: str) -> Edit:
    """An output is made by an operator that nobody has."""

    def edit(model: onnx.ModelProto) -> None:
        output(name, node("Sparkle", [name + HONEST], [name], domain="acme.ops"))(model)
        model.opset_import.append(helper.make_opsetid("acme.ops", 1))

    return edit


def change_json(path: Path, **changes: Any) -> Path:
    """Changes values of a JSON file of a folder, and returns the folder."""
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**facts, **changes}), encoding="utf-8")
    return path.parent
