"""Slots: every place of the batch gives the same answer for the same row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from optimum_fixedshape.contract import REPEATED

from .comparing import Outputs, apart, listed, said
from .probe import Probe
from .report import Finding, Verdict
from .subject import Subject

_ROWS, _ROWS_OF_LARGE = 3, 2


def check_slots(subject: Subject) -> Iterator[Finding]:
    """Yields for each axis that counts rows whether a row's answer depends on its slot or on its neighbours."""
    rows = _ROWS_OF_LARGE if subject.is_large else _ROWS
    for probe in subject.probes:
        counted = [role for role in probe.contract.sizes if role in REPEATED]
        roles = [role for role in counted if (probe.contract.sizes[role] or 0) > 1 and _gives(probe, role)]
        for role in roles:
            yield _of_role(probe, role, rows)
        if not roles:
            yield Finding(Verdict.SKIPPED, "The graph takes one row at a time.", f"{probe.label}: one slot")


def _gives(probe: Probe, role: str) -> bool:
    return any(spec.axis_of(role) is not None for spec in probe.contract.outputs)


def _of_role(probe: Probe, role: str, count: int) -> Finding:
    size = probe.contract.sizes[role] or 1
    rows = probe.rows(role, min(size, count))
    wrong: dict[int, str] = {}
    largest = 0.0
    own: list[Outputs] = []
    for row in rows:  # one row everywhere: its answer is what most slots say
        slots = _slots(probe, role, probe.run(probe.of_rows(role, [row] * size)))
        reference, apart_from_it = _reference(probe, slots)
        own.append(slots[reference])
        for slot, difference in enumerate(apart_from_it):
            if difference > probe.tolerance:
                wrong[slot] = wrong.get(slot) or name_wrong_slot(
                    slots[slot], first=slots[0] if slot else None, before=own[-2] if len(own) > 1 else None
                )
            else:
                largest = max(largest, difference)
    before: Sequence[int] | None = None
    for turn in range(len(rows)):  # different rows side by side, and every slot with another one in turn
        order = [(slot + turn) % len(rows) for slot in range(size)]
        slots = _slots(probe, role, probe.run(probe.of_rows(role, [rows[i] for i in order])))
        for slot, index in enumerate(order):
            difference = probe.apart(slots[slot], own[index])
            if difference <= probe.tolerance or _is_nearest(probe, slots[slot], own, index):
                largest = max(largest, difference)
                continue
            earlier = own[before[slot]] if before else None
            wrong[slot] = wrong.get(slot) or name_wrong_slot(
                slots[slot], first=slots[0] if slot else None, before=earlier
            )
        before = order
    return _finding(probe, role, size, wrong, largest)


def name_wrong_slot(answer: Outputs, *, first: Outputs | None, before: Outputs | None) -> str:
    """Returns what a wrong slot gives, in words.

    Args:
        answer: What the slot gave.
        first: What slot 0 gave in the same run.
        before: What the slot had to give in the run before, where that was another row.
    """
    if all(not array.any() for array in answer.values() if array.dtype.kind in "biuf"):
        return "zeros"
    if before is not None and apart(answer, before) == 0.0:
        return "the answer of the run before"
    if first is not None and apart(answer, first) == 0.0:
        return "the answer of slot 0"
    return "another answer"


def _slots(probe: Probe, role: str, outputs: Outputs) -> list[Outputs]:
    """The outputs of each slot."""
    axes = {spec.name: axis for spec in probe.contract.outputs if (axis := spec.axis_of(role)) is not None}
    count = probe.contract.sizes[role] or 1
    short = [name for name, axis in axes.items() if outputs[name].shape[axis] != count]
    if short:
        shapes = ", ".join(f"{name} {outputs[name].shape}" for name in short)
        raise ValueError(f"{count} rows went in along {role}, and other numbers came out: {shapes}")
    return [{name: outputs[name].take([slot], axis) for name, axis in axes.items()} for slot in range(count)]


def _reference(probe: Probe, slots: Sequence[Outputs]) -> tuple[int, list[float]]:
    """The first slot that most others agree with, and how far each is from it."""
    found = []
    for reference in range(min(len(slots), 3)):
        differences = [probe.apart(slot, slots[reference]) for slot in slots]
        found.append((sum(difference > probe.tolerance for difference in differences), reference, differences))
    _, reference, differences = min(found, key=lambda each: each[:2])
    return reference, differences


def _is_nearest(probe: Probe, answer: Outputs, own: Sequence[Outputs], index: int) -> bool:
    """Whether a quantized graph, which rounds by what stands beside a row, means this row's answer."""
    if not probe.accuracy.is_quantized or len(own) < 2:
        return False
    differences = [probe.apart(answer, each) for each in own]
    return differences.index(min(differences)) == index


def _finding(probe: Probe, role: str, size: int, wrong: dict[int, str], largest: float) -> Finding:
    facts = {"axis": role, "slots": size, "wrong": sorted(wrong), "difference": largest}
    if wrong:
        by_kind: defaultdict[str, list[int]] = defaultdict(list)
        for slot in sorted(wrong):
            by_kind[wrong[slot]].append(slot)
        details = "; ".join(f"{_named(slots)} {kind}" for kind, slots in by_kind.items())
        return Finding(
            Verdict.FAIL,
            f"A row's answer depends on its slot: {_which(wrong)} of {role} cannot be trusted.",
            f"{probe.label}: {size} slots of {role}: {details}",
            facts,
        )
    if largest > probe.tolerance:
        return Finding(
            Verdict.WARNING,
            "A row's answer depends a little on its neighbours: the graph is quantized, and rounds all rows together.",
            f"{probe.label}: {size} slots of {role}: {said(largest)}",
            facts,
        )
    return Finding(
        Verdict.PASS,
        "Every slot gives the same answer for the same row.",
        f"{probe.label}: {size} slots of {role}: {said(largest)}",
        facts,
    )


def _named(slots: Sequence[int]) -> str:
    return f"slot {slots[0]} gives" if len(slots) == 1 else f"slots {listed(slots)} give"


def _which(slots: Iterable[int]) -> str:
    known = sorted(slots)
    return f"slot {known[0]}" if len(known) == 1 else f"slots {listed(known)}"
