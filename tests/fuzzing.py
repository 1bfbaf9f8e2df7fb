"""Damage for real graphs: bytes that were cut, changed and mixed, and fields that hold what no exporter writes.

Knows nothing but onnx, so that ``fuzz/`` runs it in an environment of its own.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

Step = tuple[str, int]
"""The name of a mutation, and the seed of its choices."""

_INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 2, 3, 5, 7, 64, 255, 65536, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1)
_FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e38)
_TEXTS = (
    *("", " ", "x" * 300, "../outside", "/etc/passwd", "C:\\x", "a\0b", "model.onnx", "model.onnx_data", "-1", "0"),
    *("1e9", "99999999999", "location", "offset", "length", "batch_size", "sequence_length", "2", "input_ids"),
    *(
        "attention_mask",
        "past_key_values.0.key",
        "logits",
        "Add",
        "If",
        "Loop",
        "Reshape",
        "ConstantOfShape",
        "é\u202e",
    ),
)
_MOST_MESSAGES = 50_000


def mutated(data: bytes, steps: Iterable[Step], others: Sequence[bytes] = ()) -> bytes:
    """Returns `data` with the mutations of `steps` made one after the other; `others` lend parts of theirs."""
    for name, seed in steps:
        data = MUTATIONS[name](data, random.Random(seed), others)
    return data


def _flip(data: bytes, chance: random.Random, _: Any) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8)) if data else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncate(data: bytes, chance: random.Random, _: Any) -> bytes:
    return data[: chance.randint(0, len(data))]


def _delete(data: bytes, chance: random.Random, _: Any) -> bytes:
    start = chance.randint(0, len(data))
    return data[:start] + data[start + chance.choice((1, 2, 9, 100)) :]


def _repeat(data: bytes, chance: random.Random, _: Any) -> bytes:
    start = chance.randint(0, len(data))
    return data[: start + chance.choice((1, 8, 200))] + data[start:]


def _splice(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    other = chance.choice(others) if others else data
    return data[: chance.randint(0, len(data))] + other[chance.randint(0, len(other)) :]


def _field(data: bytes, chance: random.Random, _: Any) -> bytes:
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        return data
    kinds: defaultdict[str, list[Message]] = defaultdict(list)
    for message in _messages(model):
        kinds[message.DESCRIPTOR.name].append(message)
    message = chance.choice(kinds[chance.choice(sorted(kinds))])  # opsets as often as nodes
    _change(message, chance, kinds)
    try:
        return bytes(model.SerializeToString())
    except (ValueError, RecursionError):
        return data


MUTATIONS: Mapping[str, Callable[[bytes, random.Random, Sequence[bytes]], bytes]] = {
    "flip": _flip,
    "truncate": _truncate,
    "delete": _delete,
    "repeat": _repeat,
    "splice": _splice,
    "field": _field,
}


def _messages(model: Message) -> list[Message]:
    found, todo = [], [model]
    while todo and len(found) < _MOST_MESSAGES:
        found.append(message := todo.pop())
        for field, value in message.ListFields():
            if field.type == field.TYPE_MESSAGE:
                todo += [value] if isinstance(value, Message) else value
    return found


def _change(message: Message, chance: random.Random, kinds: Mapping[str, list[Message]]) -> None:
    there = [field for field, _ in message.ListFields()]
    field = chance.choice(there if there and chance.random() < 0.8 else message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.type == field.TYPE_MESSAGE:
        of_its_kind = kinds.get(field.message_type.name, [])
        _change_messages(message, field.name, value, chance, of_its_kind)
    elif hasattr(value, "append"):
        _change_list(value, chance, lambda old: _scalar(field, old, chance, kinds))
    elif chance.random() < 0.2:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _scalar(field, value, chance, kinds))


def _change_messages(
    message: Message, name: str, value: Any, chance: random.Random, of_its_kind: Sequence[Message]
) -> None:
    copy = type(of_its_kind[0])() if of_its_kind else None
    if copy is not None:
        copy.CopyFrom(chance.choice(of_its_kind))
    if isinstance(value, Message):
        if copy is not None and chance.random() < 0.5:
            value.CopyFrom(copy)
        else:
            message.ClearField(name)
    elif value and chance.random() < 0.5:
        del value[chance.randrange(len(value))]
    elif copy is not None:
        value.append(copy)


def _change_list(values: Any, chance: random.Random, made: Callable[[Any], Any]) -> None:
    at = chance.randrange(len(values)) if values else None
    choice = chance.choice(("set", "set", "delete", "add"))
    if at is None or choice == "add":
        values.append(made(values[0] if values else None))
    elif choice == "delete":
        del values[at]
    else:
        values[at] = made(values[at])


def _scalar(field: Any, old: Any, chance: random.Random, kinds: Mapping[str, list[Message]]) -> Any:
    if field.type == field.TYPE_ENUM:
        return chance.choice(field.enum_type.values).number
    if field.type == field.TYPE_STRING:
        names = [name for node in kinds.get("NodeProto", []) for name in (*node.input, *node.output, node.op_type)]
        return chance.choice(names if names and chance.random() < 0.6 else _TEXTS)
    if field.type == field.TYPE_BYTES:
        old = old or b""
        return chance.choice((b"", old[: len(old) // 2], old + b"\0" * 8, b"\xff" * len(old)))
    if field.type in (field.TYPE_FLOAT, field.TYPE_DOUBLE):
        return chance.choice(_FLOATS)
    value = chance.choice(_INTEGERS) if chance.random() < 0.7 or old is None else old + chance.choice((-1, 1))
    return max(-(2**31), min(value, 2**31 - 1)) if field.type == field.TYPE_INT32 else _within(field, value)


def _within(field: Any, value: int) -> int:
    return value % 2**64 if field.type == field.TYPE_UINT64 else max(-(2**63), min(value, 2**63 - 1))
