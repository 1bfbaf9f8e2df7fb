"""How many threads a session gets: the cores, or what the environment of a worker says."""

from __future__ import annotations

import pytest

from optimum_fixedshape import threads

LARGE = 2**30


@pytest.mark.parametrize(
    ("told", "cores", "expected"),
    [
        (None, 4, 4),
        ("", 4, 4),
        ("1", 4, 1),
        (" 2", 4, 2),
        ("3,2", 4, 3),  # of nested regions the outermost
        ("16", 4, 4),
        ("0", 4, 4),
        ("many", 4, 4),
        ("2", 0, 2),  # where nobody tells the cores
        (None, 0, 0),
    ],
)
def test_no_more_than_the_environment_says(monkeypatch, told, cores, expected):
    monkeypatch.setattr(threads, "_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert threads.threads_for(LARGE, reads_texts=True) == expected
    assert threads.threads_for(0, reads_texts=True) == 1
    assert threads.threads_for(0, reads_texts=False) == expected
