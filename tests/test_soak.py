"""Many threads, mixed calls, in small (`benchmarks/soak.py` in large): no answer wrong, and nothing kept of a call."""

from __future__ import annotations

import tracemalloc
from contextlib import ExitStack

from benchmarks.soak import known_calls, pipelines, soak

CALLS, THREADS = 1500, 8
LEAST_BYTES_OF_AN_ARRAY = 112  # the object alone, without its numbers


def test_mixed_calls_from_many_threads_are_answered_right_and_leave_nothing(exported, specimen, dynamic):
    folders = {
        "text-classification": exported("text-classification").folder,
        "token-classification": exported("token-classification").folder,
        "feature-extraction": dynamic.folder,
        "image-classification": specimen("vit").folder,
    }
    with ExitStack() as stack:
        calls = known_calls(pipelines(folders), stack)
        stack.callback(tracemalloc.stop)
        tracemalloc.start()
        (warm,) = soak(calls, 8 * len(calls), THREADS, points=1)
        before, _ = tracemalloc.get_traced_memory()
        (last,) = soak(calls, CALLS, THREADS, points=1)
        after, _ = tracemalloc.get_traced_memory()
    assert (warm.wrong, last.wrong) == (0, 0)
    assert after - before < CALLS * LEAST_BYTES_OF_AN_ARRAY
    assert last.mebibytes - warm.mebibytes < 64
