"""How many threads a session gets where its user does not say."""

from __future__ import annotations

import functools
import os
import re
from pathlib import Path

_TINY_BYTES = 20 * 2**20
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def threads_for(weights_bytes: int, *, reads_texts: bool) -> int:
    """Returns the threads of one session on the CPU; 0 leaves it to onnxruntime.

    One where a run is over before a second has woken up, as of texts in models of the size of bert-tiny. Elsewhere one
    for each core: as many as onnxruntime takes by itself, which then ties each to a core that the caller may run on. No
    more than ``OMP_NUM_THREADS``, which Ray and others set for each of several workers of a machine.

    Args:
        weights_bytes: Of the graph.
        reads_texts: Whether its rows are texts: images keep several cores busy however small the model is.
    """
    return 1 if reads_texts and weights_bytes <= _TINY_BYTES else _most()


def _most() -> int:
    """The cores, or fewer if the environment says so."""
    cores, told = _cores(), re.match(r"\s*0*([1-9]\d*)", os.environ.get("OMP_NUM_THREADS", ""))
    return min(int(told[1]), cores or int(told[1])) if told else cores


@functools.cache
def _cores() -> int:
    """The cores that this process may run on, each counted once however many threads it has; 0 if nobody tells."""
    if not hasattr(os, "sched_getaffinity"):  # pragma: no cover  # of Windows and macOS
        return 0
    try:
        return len({Path(_SIBLINGS.format(cpu)).read_text(encoding="ascii") for cpu in os.sched_getaffinity(0)})
    except OSError:  # pragma: no cover  # of containers without /sys
        return 0
