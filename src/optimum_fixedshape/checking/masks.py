"""Masks: whether they do anything, whether they mean what they should, and what a row without a real place does."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import SEQUENCE, TensorSpec
from optimum_fixedshape.fitting import Array, Arrays

from .comparing import Outputs, is_finite, listed, said
from .probe import Probe
from .report import Finding, Verdict, brief
from .subject import Subject

_NO_MASK = Finding(Verdict.SKIPPED, "The graph takes no mask.")


def check_masks(subject: Subject) -> Iterator[Finding]:
    """Yields whether each mask changes the answer, and hides what is 0."""
    for probe in subject.probes:
        for spec in probe.masks():
            yield _of_mask(probe, spec)
        if not any(probe.masks()):
            yield _NO_MASK


def check_empty_masks(subject: Subject) -> Iterator[Finding]:
    """Yields what a row does whose mask is 0 everywhere, and whether other rows notice."""
    for probe in subject.probes:
        for spec in probe.masks():
            yield _of_empty(probe, spec)
        if not any(probe.masks()):
            yield _NO_MASK


def _of_mask(probe: Probe, spec: TensorSpec) -> Finding:
    facts = {"mask": spec.name}
    whole = _ones(probe, spec)
    if whole[spec.name].shape[-1] < 2:
        return Finding(
            Verdict.SKIPPED, "A mask of one place hides all or nothing.", f"{probe.label}: {spec.name}", facts
        )
    answer = probe.run(whole)
    effects = [probe.apart(probe.run({**whole, spec.name: mask}), answer) for mask in _halves(whole[spec.name])]
    if max(effects) == 0.0:
        return Finding(
            Verdict.FAIL,
            f"The mask {spec.name} does nothing: padding counts as if it were data.",
            f"{probe.label}: hiding half of the places changes no output",
            facts,
        )
    if _is_inverted(probe, spec):
        return Finding(
            Verdict.FAIL,
            f"The mask {spec.name} is inverted: it hides what is 1 and shows what is 0.",
            f"{probe.label}: other tokens under 0 change the answer, and those under 1 do not",
            facts,
        )
    return Finding(
        Verdict.PASS,
        "Every mask changes the answer.",
        f"{probe.label}: with half of the places hidden, answers are {said(max(effects))}",
        facts,
    )


def _ones(probe: Probe, spec: TensorSpec) -> Arrays:
    feed = probe.inputs(padded=False)
    return {**feed, spec.name: np.ones_like(feed[spec.name])}


def _halves(mask: Array) -> Iterator[Array]:
    """Yields a mask of ones with either half of its last axis hidden, or with its middle hidden."""
    half = mask.shape[-1] // 2
    for hidden in (slice(half, None), slice(0, half), slice(half // 2, half // 2 + half)):
        changed = np.ones_like(mask)
        changed[..., hidden] = 0
        yield changed


def _is_inverted(probe: Probe, spec: TensorSpec) -> bool:
    """Whether tokens under 0 reach another place, and those under 1 do not."""
    tokens = probe.tokens
    length = probe.feed[spec.name].shape[-1]
    if tokens is None or spec.roles() != tokens.roles() or tokens.name == "inputs_embeds" or length < 6:
        return False
    half = length // 2
    # The observed place stands in the real part; a decoder sees everything from the last one.
    left = (slice(0, half), slice(half, length - 1), slice(length - 1, None))
    right = (slice(half, None), slice(1, half), slice(0, 1))
    return any(_swaps(probe, spec, *places) for places in (left, right))


def _swaps(probe: Probe, spec: TensorSpec, hidden: slice, shown: slice, seen: slice) -> bool:
    assert probe.tokens is not None
    feed = _ones(probe, spec)
    feed[spec.name][..., hidden] = 0
    other = probe.inputs(1, padded=False)[probe.tokens.name]
    answer = _at(probe, probe.run(feed), seen)
    if not answer:
        return False
    effects = []
    for places in (hidden, shown):
        ids = feed[probe.tokens.name].copy()
        ids[..., places] = other[..., places]
        effects.append(probe.apart(_at(probe, probe.run({**feed, probe.tokens.name: ids}), seen), answer))
    return effects[0] > probe.tolerance and effects[1] == 0.0


def _at(probe: Probe, outputs: Outputs, place: slice) -> Outputs:
    """One place of each output that has one for each token; seen from the first place, the outputs for whole rows, too.

    Those are read from there, or from all real places.
    """
    found = {}
    for spec in probe.contract.outputs:
        axis = spec.axis_of(SEQUENCE)
        if axis is not None and not (spec.axes or ())[axis].extra:
            found[spec.name] = outputs[spec.name][(slice(None),) * axis + (place,)]
        elif axis is None and place.start == 0 and spec.batch_role and place_of(spec.name) is None:
            found[spec.name] = outputs[spec.name]
    return found


def _of_empty(probe: Probe, spec: TensorSpec) -> Finding:
    facts = {"mask": spec.name}
    feed = {**probe.feed, spec.name: probe.feed[spec.name].copy()}
    feed[spec.name][0] = 0
    try:
        answer = probe.run(feed)
    except Exception as error:  # onnxruntime's errors share no public base class
        return Finding(
            Verdict.WARNING,
            f"A row whose {spec.name} is 0 everywhere stops the run. Nothing here feeds such rows.",
            f"{probe.label}: {brief(error)}",
            facts,
        )
    role = spec.batch_role
    others = probe.apart(_without_first(probe, answer, role), _without_first(probe, probe.answer, role))
    if others > probe.tolerance and not (probe.accuracy.is_quantized and others < 1.0):
        return Finding(
            Verdict.FAIL,
            f"A row whose {spec.name} is 0 everywhere spoils the other rows of the batch.",
            f"{probe.label}: other rows are {said(others)}",
            facts,
        )
    if wrong := sorted(name for name, array in answer.items() if not is_finite(array)):
        return Finding(
            Verdict.WARNING,
            f"A row whose {spec.name} is 0 everywhere gives NaN or infinity in {listed(wrong)}; other rows are right. "
            "Nothing here feeds such rows.",
            f"{probe.label}: an empty first row",
            facts,
        )
    return Finding(
        Verdict.PASS,
        "A row without a real place gives numbers, and leaves other rows alone.",
        f"{probe.label}: other rows are {said(others)}",
        facts,
    )


def _without_first(probe: Probe, outputs: Outputs, role: str | None) -> Outputs:
    """The outputs without their first row along `role`; those of one row, or that mix rows, are left out."""
    found = {}
    for spec in probe.contract.outputs:
        axis = spec.axis_of(role) if role else None
        if axis is None and spec.batch_role is not None:  # of the other tower
            found[spec.name] = outputs[spec.name]
        elif axis is not None and outputs[spec.name].shape[axis] > 1:
            found[spec.name] = np.delete(outputs[spec.name], 0, axis)
    return found
