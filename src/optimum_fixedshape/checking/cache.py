"""Caches of decoders: empty slots are not seen, tokens may lie in the last slots, and steps give what one run gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from optimum_fixedshape.caches import Place
from optimum_fixedshape.contract import PAST, SEQUENCE, TOTAL
from optimum_fixedshape.decoding import POSITIONS, Decoder, Tokens
from optimum_fixedshape.fitting import Array, Arrays
from optimum_fixedshape.parts import Parts, Rungs
from optimum_fixedshape.roles import MASKS
from optimum_fixedshape.runtime import Runtime

from .comparing import said
from .probe import Probe
from .report import Finding, Verdict
from .subject import Subject

_STEPS = 5
_SEEN_SLOTS = "Empty slots of the cache change the answer, although the mask hides them."
_NO_CACHE = Finding(Verdict.SKIPPED, "The graph keeps no cache.")


def check_cache(subject: Subject) -> Iterator[Finding]:
    """Yields whether empty slots are hidden, whether tokens may lie anywhere, and whether steps agree with one run."""
    behind = [probe for probe in subject.probes if PAST in probe.stated.sizes]
    if not behind:
        yield _NO_CACHE
    for probe in behind:
        yield from _of_slots(probe)
        if POSITIONS.isdisjoint(probe.contract.input_names) and not _is_told(probe, subject.parts):
            what = (
                "The decoder takes no positions, and its cache has a fixed length: it cannot be told whether it counts "
                "empty slots as tokens. Compare what it writes with what the original writes."
            )
            yield Finding(Verdict.WARNING, what, f"{probe.label}: {probe.contract.sizes[PAST]} slots")
    if behind and subject.parts and subject.parts.following:
        yield _of_steps(subject, subject.parts.following, subject.parts.first)


def _of_slots(probe: Probe) -> Iterator[Finding]:
    masks = [spec.name for spec in probe.contract.inputs if TOTAL in spec.roles() and spec.name in MASKS]
    slots, new = probe.contract.sizes[PAST] or 0, probe.contract.sizes.get(SEQUENCE) or 1
    if not masks or slots < 2:
        what = "The decoder takes no mask of its slots: its cache must be as long as the text."
        yield Finding(Verdict.SKIPPED, what, f"{probe.label}: {slots} slots")
        return
    kept = max(slots // 2, 1)
    feed = _aligned(probe, slots, kept, new, masks)
    answer = {"logits": probe.run(feed)["logits"]}
    noisy = probe.apart({"logits": probe.run(_with_noise(probe, feed, slots - kept))["logits"]}, answer)
    seen = f"{probe.label}: {slots - kept} empty slots of {slots}"
    if noisy > probe.tolerance and not probe.accuracy.is_quantized:
        yield Finding(Verdict.FAIL, _SEEN_SLOTS, f"{seen}, filled with other numbers: {said(noisy)}")
        return
    evidence = f"{seen}, filled with other numbers: {said(noisy)}"
    yield Finding(Verdict.PASS, "Empty slots of the cache are not seen.", evidence)
    if PAST in probe.open_sizes:
        exact = probe.at({PAST: kept, SEQUENCE: new})
        yield _of_alignment(exact, _without_slots(exact, feed, slots - kept, masks), answer, seen)


def _is_told(probe: Probe, parts: Parts | None) -> bool:
    """Whether positions that are counted wrong would show: in a shorter cache, or where several tokens come at once."""
    decoders = [rungs for rungs in (parts.first, parts.following) if rungs] if parts else []
    at_once = [rung.sizes.get(SEQUENCE) for rungs in decoders for rung in rungs.ladder.rungs]
    return PAST in probe.open_sizes or any(size is None or size > 1 for size in at_once)


def _aligned(probe: Probe, slots: int, kept: int, new: int, masks: list[str]) -> Arrays:
    """Ordinary inputs with tokens in the last `kept` slots, and nothing in those before."""
    feed = {name: array.copy() for name, array in probe.inputs(padded=False).items()}
    for name in masks:
        feed[name][:, : slots - kept] = 0
    for name in POSITIONS & feed.keys():
        # In both the first new token stands at `kept`, behind the tokens of the cache.
        feed[name][:] = kept + np.arange(new) if name == "position_ids" else kept - slots
    return _with_noise(probe, feed, slots - kept, scale=0.0)


def _with_noise(probe: Probe, feed: Arrays, empty: int, scale: float = 1.0) -> Arrays:
    """The feed with random numbers, or zeros, in the first slots of the cache."""
    changed = dict(feed)
    other = probe.inputs(1)
    for spec in probe.contract.inputs:
        if (axis := spec.axis_of(PAST)) is not None:
            places = (slice(None),) * axis + (slice(0, empty),)
            changed[spec.name] = feed[spec.name].copy()
            changed[spec.name][places] = scale * other[spec.name][places]
    return changed


def _without_slots(exact: Probe, feed: Arrays, empty: int, masks: list[str]) -> Arrays:
    """The feed of a graph whose cache is just as long as the text."""
    changed = dict(feed)
    for spec in exact.contract.inputs:
        axis = spec.axis_of(PAST) if spec.name not in masks else spec.axis_of(TOTAL)
        if axis is not None:
            changed[spec.name] = feed[spec.name].take(range(empty, feed[spec.name].shape[axis]), axis)
        if spec.name == "position_offset":
            changed[spec.name] = np.zeros_like(feed[spec.name])
    return changed


def _of_alignment(exact: Probe, feed: Arrays, answer: Arrays, seen: str) -> Finding:
    difference = exact.apart(answer, {"logits": exact.run(feed)["logits"]})
    evidence = f"{seen}, against a cache without them: {said(difference)}"
    facts = {"difference": difference}
    if difference <= exact.tolerance:
        what = "Tokens in the last slots give what they give without empty slots."
        return Finding(Verdict.PASS, what, evidence, facts)
    if exact.accuracy.is_quantized:
        what = "Empty slots change the answer a little: the graph is quantized, and rounds them with the others."
        return Finding(Verdict.WARNING, what, evidence, facts)
    if POSITIONS.isdisjoint(exact.contract.input_names):
        what = (
            "The decoder takes no positions and counts slots, empty ones too: a cache of fixed length, and padding on "
            "the left, change the answer. Load it with shapes={'context_length': ...}, which gives it positions."
        )
        return Finding(Verdict.WARNING, what, evidence, facts)
    return Finding(Verdict.FAIL, _SEEN_SLOTS, evidence, facts)


class _Memory:
    """Keys and values of all tokens so far, as `decoding.Memory` has them."""

    def __init__(self) -> None:
        self._arrays: dict[Place, Array] = {}

    @property
    def length(self) -> int:
        return next((array.shape[2] for place, array in self._arrays.items() if not place.is_cross), 0)

    def padded(self, place: Place, slots: int) -> Array:
        array = self._arrays[place]
        empty = (0, slots - array.shape[2]) if place.is_cross else (slots - array.shape[2], 0)
        return np.pad(array, [(0, 0), (0, 0), empty, (0, 0)])

    def add(self, new: Mapping[Place, Array]) -> None:
        for place, array in new.items():
            if place not in self._arrays:
                self._arrays[place] = array
            elif not place.is_cross:
                self._arrays[place] = np.concatenate([self._arrays[place], array], axis=2)

    def keep_last(self, tokens: int) -> None:  # pragma: no cover  # what slides does: here nothing does
        for place, array in self._arrays.items():
            if not place.is_cross:
                self._arrays[place] = array[:, :, max(array.shape[2] - tokens, 0) :]


def _of_steps(subject: Subject, following: Rungs, first: Rungs | None) -> Finding:
    """Whether tokens one by one give the logits that they give all at once."""
    probe = next(probe for probe in subject.probes if probe.path in following.paths)
    starting = next((each for each in subject.probes if first and each.path in first.paths), probe)
    runtimes = [
        rungs and Runtime(rungs.ladder, rungs.paths, fill=probe.fill, pool=subject.pool) for rungs in (following, first)
    ]
    assert runtimes[0] is not None
    decoder = Decoder(runtimes[0], runtimes[1])
    count = min(_STEPS, decoder.limit or _STEPS)
    made = starting.inputs(padded=False)
    own = {"input_ids", *POSITIONS, *(tensor.past for tensor in starting.contract.cache)}
    own |= {spec.name for spec in starting.contract.inputs if spec.name in MASKS and TOTAL in spec.roles()}
    # Behind an encoder the decoder's own tokens are masked, too, and what the encoder read keeps its places.
    own |= {spec.name for spec in starting.contract.inputs if spec.name in MASKS and SEQUENCE in spec.roles()}
    inputs = {name: array[:1] for name, array in made.items() if name not in own}
    ids = np.resize(np.unique(made["input_ids"]), (1, count)).astype(np.int64)
    tokens = Tokens(ids, np.ones((1, count), np.int64), np.arange(count, dtype=np.int64)[None])
    whole = decoder.run(tokens, _Memory(), inputs)
    memory = _Memory()
    steps = [
        decoder.run(Tokens(ids[:, i : i + 1], tokens.mask[:, : i + 1], tokens.positions[:, i : i + 1]), memory, inputs)
        for i in range(count)
    ]
    difference = probe.apart({"logits": np.concatenate(steps, axis=1)}, {"logits": whole})
    evidence = f"{probe.label}: {count} tokens one by one: {said(difference)} from all at once"
    facts = {"steps_difference": difference}
    if difference <= probe.tolerance:
        return Finding(Verdict.PASS, "Tokens one by one give what they give all at once.", evidence, facts)
    if probe.accuracy.is_quantized:
        what = "Tokens one by one differ a little from all at once: the graph is quantized."
        return Finding(Verdict.WARNING, what, evidence, facts)
    return Finding(Verdict.FAIL, "Tokens one by one give other answers than all at once.", evidence, facts)
