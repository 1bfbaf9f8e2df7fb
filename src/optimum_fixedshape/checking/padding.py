"""Padding: it does not change an answer, on either side, whatever stands in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import BATCHES, SAMPLES, SEQUENCE, TensorSpec
from optimum_fixedshape.fitting import Array, Arrays, fit
from optimum_fixedshape.padding import ALWAYS_PADDED
from optimum_fixedshape.unfitting import cut

from .comparing import Outputs, said
from .probe import Probe
from .report import Finding, Verdict
from .subject import Group, Subject, read_json

_OPEN_SIZES = {SEQUENCE: (8, 12, 20), SAMPLES: (4000, 6000)}
"""The sizes at which a graph is run that leaves them open."""

_PADDED, _NOISY = "padded", "other values in the padding"
_FEWEST = {SEQUENCE: 2, SAMPLES: 400}
_LOOK_FOR_IDS = {"Equal", "ArgMax", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"}
_TOO_SHORT = "The graph is too short for padding."
_NOTHING = Finding(Verdict.SKIPPED, "Nothing that the graph takes is padded.")
_BEHIND_CACHE = Finding(Verdict.SKIPPED, "The decoder reads a cache: see the line cache.")


@dataclass(frozen=True)
class _Seen:
    """How far an answer moved: `length` real places of `size`."""

    label: str
    length: int
    size: int
    how: str
    difference: float

    def __str__(self) -> str:
        return f"{self.label}: {self.length} real places of {self.size}, {self.how}: {said(self.difference)}"


def check_padding(subject: Subject) -> Iterator[Finding]:
    """Yields whether padding on the right changes the answer, for each kind of axis that is padded."""
    for group in subject.groups:
        probe = group[0]
        roles = [role for role in (SEQUENCE, SAMPLES) if role in probe.contract.sizes]
        if probe.is_behind_cache:
            yield _BEHIND_CACHE
        elif not roles:
            yield _NOTHING
        elif subject.config.get("model_type") in ALWAYS_PADDED:
            yield Finding(Verdict.SKIPPED, "The model was trained to see padding, always to the same length.")
        else:
            for role in roles:
                yield from _of_role(group, role, subject.sees_padding, few=subject.is_large)


def check_left_padding(subject: Subject) -> Iterator[Finding]:
    """Yields whether padding on the left gives the answer that padding on the right gives.

    Many models answer otherwise, PyTorch's originals too, which only matters where their tokenizer pads there.
    """
    side = read_json(subject.folder / "tokenizer_config.json").get("padding_side")
    otherwise = Verdict.WARNING if side == "left" else Verdict.PASS
    for group in subject.groups:
        for probe in group:
            tokens = probe.tokens
            mask = probe.mask_of(SEQUENCE)
            extra = any(axis.extra for spec in probe.contract.outputs for axis in spec.axes or ())
            if probe.is_behind_cache:
                yield _BEHIND_CACHE
            elif tokens is None or mask is None or extra:
                yield Finding(Verdict.SKIPPED, "Without a mask of tokens nothing can be padded on the left.")
            elif (probe.contract.sizes.get(SEQUENCE) or 0) <= _FEWEST[SEQUENCE]:
                yield Finding(Verdict.SKIPPED, _TOO_SHORT, probe.label)
            else:
                yield _of_left(probe, mask, otherwise)


def _of_role(group: Group, role: str, reason: str | None, *, few: bool) -> Iterator[Finding]:
    probes = _at_sizes(group, role)
    seen = list(_measured(probes, role, few=few))
    if not seen:
        yield Finding(Verdict.SKIPPED, _TOO_SHORT, f"{group[0].label}: {role}")
        return
    is_masked = probes[0].mask_of(role) is not None
    for label in dict.fromkeys(each.label for each in seen):
        own = [each for each in seen if each.label == label]
        yield _judged(group[0], own, reason if is_masked or reason else "the graph takes no mask")


def _at_sizes(group: Group, role: str) -> list[Probe]:
    """The probes in order of their size along `role`; an open axis at several."""
    probes = [
        sized
        for probe in group
        for sized in ([probe.at({role: size}) for size in _OPEN_SIZES[role]] if role in probe.open_sizes else [probe])
    ]
    return sorted(probes, key=lambda probe: probe.contract.sizes[role] or 0)


def _measured(probes: list[Probe], role: str, *, few: bool) -> Iterator[_Seen]:
    largest = probes[-1]
    whole = largest.inputs(padded=False)
    sizes = [probe.contract.sizes[role] or 0 for probe in probes]
    for length in _lengths(sizes, _FEWEST[role], few=few):
        item = _cut_inputs(largest, whole, role, length)
        holding = [probe for probe, size in zip(probes, sizes, strict=True) if size >= length]
        exact = holding[0].at({role: length}) if role in holding[0].open_sizes else holding[0]
        reference = _answer(exact, _padded(exact, item), role, length)
        for probe in holding:
            if probe.contract.sizes[role] == length:
                continue
            feed = _padded(probe, item)
            if probe is not exact:
                yield _seen(probe, role, length, _PADDED, feed, reference)
            yield _seen(probe, role, length, _NOISY, _noisy(probe, feed, role, length), reference)


def _seen(probe: Probe, role: str, length: int, how: str, feed: Arrays, reference: Outputs) -> _Seen:
    size = probe.contract.sizes[role] or 0
    return _Seen(probe.label, length, size, how, probe.apart(_answer(probe, feed, role, length), reference))


def _lengths(sizes: list[int], least: int, *, few: bool) -> list[int]:
    """Lengths of items: below, between and just below the sizes."""
    found = {max(size // 2, least) for size in sizes} | {size - 1 for size in sizes} | {max(sizes[0] // 4, least)}
    lengths = sorted(length for length in found if least <= length < sizes[-1])
    return lengths[:: max(len(lengths) // (1 if few else 4), 1)][: 1 if few else 5]


def _cut_inputs(probe: Probe, feed: Arrays, role: str, length: int) -> Arrays:
    """The first row of a feed, with so many places along `role`."""
    item = {}
    for spec in probe.contract.inputs:
        array = feed[spec.name]
        if (axis := spec.axis_of(role)) is not None:
            array = array.take(range(length), axis)
        if (batch := spec.batch_role) is not None:
            array = array.take([0], spec.axis_of(batch) or 0)
        item[spec.name] = array
    return item


def _padded(probe: Probe, item: Arrays) -> Arrays:
    """The item in every slot, padded to the probe's sizes."""
    return next(iter(fit(item, probe.contract, probe.fill))).arrays


def _noisy(probe: Probe, feed: Arrays, role: str, length: int) -> Arrays:
    """The feed with other values in its padding, which the mask does not let be seen."""
    noisy = dict(feed)
    masks = {spec.name for spec in probe.masks()}
    for spec in probe.contract.inputs:
        axis = spec.axis_of(role)
        if axis is None or spec.name in masks or spec.name in ("position_ids", "token_type_ids", "bbox"):
            continue
        array = feed[spec.name].copy()
        places = (slice(None),) * axis + (slice(length, None),)
        # Values of the row itself: models that look for the first end token, or the largest id, must not find another.
        own = array.take(range(max(length - 1, 1)), axis)
        array[places] = own.take(np.arange(array.shape[axis] - length) % own.shape[axis], axis)
        noisy[spec.name] = array
    return noisy


def _answer(probe: Probe, feed: Arrays, role: str, length: int) -> Outputs:
    """The answer's real places, of the first slot."""
    outputs = probe.run(feed)
    contract = probe.contract
    parts = cut([outputs[spec.name] for spec in contract.outputs], contract, 0, {role: length})
    pairs = zip(contract.outputs, parts, strict=True)
    return {spec.name: _first(spec, array) for spec, array in pairs if place_of(spec.name) is None}


def _first(spec: TensorSpec, array: Array) -> Array:
    for axis, role in enumerate(spec.roles()):
        if role in BATCHES:
            array = array.take([0], axis)
    return array


def _judged(probe: Probe, seen: list[_Seen], reason: str | None) -> Finding:
    """What the comparisons at one rung mean; the worst of them is shown."""
    worst = max(seen, key=lambda each: each.difference)
    evidence = f"{worst} (the most of {len(seen)} comparisons)"
    facts = {"difference": worst.difference, "comparisons": len(seen)}
    if worst.difference <= probe.tolerance:
        return Finding(Verdict.PASS, "Padding does not change the answer.", evidence, facts)
    if reason:
        return Finding(Verdict.WARNING, f"Padding changes the answer: {reason}.", evidence, facts)
    if probe.accuracy.is_quantized:
        what = "Padding changes the answer a little: the graph is quantized, and rounds padding and data together."
        return Finding(Verdict.WARNING, what, evidence, facts)
    if all(each.difference <= probe.tolerance for each in seen if each.how == _PADDED) and _looks_for_ids(probe):
        what = "What stands in the padding changes the answer: the graph looks for ids. Pad with the pad token only."
        return Finding(Verdict.WARNING, what, evidence, facts)
    return Finding(Verdict.FAIL, "Padding changes the answer.", evidence, facts)


def _looks_for_ids(probe: Probe) -> bool:
    """Whether the graph compares token ids, as models do that look for their end or pad token."""
    names = [probe.tokens.session_name] if probe.tokens else []
    for _ in range(2):  # often behind a Cast
        nodes = [node for name in names for node in probe.outline.consumers(name)]
        if any(node.op_type in _LOOK_FOR_IDS for node in nodes):
            return True
        names = [output for node in nodes if node.op_type == "Cast" for output in node.outputs]
    return False


def _of_left(probe: Probe, mask: TensorSpec, otherwise: Verdict) -> Finding:
    size = probe.contract.sizes[SEQUENCE] or 0
    length = max(size // 2, _FEWEST[SEQUENCE])
    item = _cut_inputs(probe, probe.inputs(padded=False), SEQUENCE, length)
    right = _padded(probe, item)
    left = {
        spec.name: array if (axis := spec.axis_of(SEQUENCE)) is None else np.roll(array, size - length, axis)
        for spec in probe.contract.inputs
        for array in [right[spec.name]]
    }
    if "position_ids" in left:
        positions = left[mask.name].cumsum(-1) - 1
        left["position_ids"] = positions.clip(0).astype(left["position_ids"].dtype)
    answer = _answer(probe, right, SEQUENCE, length)
    difference = probe.apart(_last(probe, probe.run(left), length), answer)
    seen = _Seen(probe.label, length, size, "padded on the left", difference)
    facts = {"difference": difference}
    if difference <= probe.tolerance:
        return Finding(Verdict.PASS, "Padding on the left gives the same answer, too.", str(seen), facts)
    if probe.accuracy.is_quantized and difference < 0.5:
        why = "the graph is quantized, and rounds padding and data together"
    elif "position_ids" in left:
        why = "it is read from the first place, where padding stands, as in the original"
    else:
        why = "the graph takes no position_ids, and counts places or reads from the first one, as the original"
    if otherwise is Verdict.PASS:
        what = f"Padding goes on the right here; on the left it would change the answer: {why}."
    else:
        what = f"Padding on the left changes the answer: {why}. Let the tokenizer pad on the right."
    return Finding(otherwise, what, str(seen), facts)


def _last(probe: Probe, outputs: Outputs, length: int) -> Outputs:
    """The answer's real places where they are the last ones, of the first slot."""
    found = {}
    for spec in probe.contract.outputs:
        array = outputs[spec.name]
        for axis, role in enumerate(spec.roles()):
            if role == SEQUENCE:
                array = array.take(range(array.shape[axis] - length, array.shape[axis]), axis)
        found[spec.name] = _first(spec, array)
    return found
