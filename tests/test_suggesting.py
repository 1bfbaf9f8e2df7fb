"""`suggest_ladder` and `bench --suggest`: no choice of rungs computes fewer tokens."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimum_fixedshape.errors import InvalidArgumentError, UnsupportedTaskError
from optimum_fixedshape.ladder_report import report_ladder
from optimum_fixedshape.suggesting import real_share, suggest_ladder

from . import stock
from .shell import run_here


def computed(lengths, rungs):
    return sum(min(rung for rung in rungs if rung >= length) for length in lengths)


@given(
    lengths=st.lists(st.integers(1, 24), min_size=1, max_size=12),
    max_rungs=st.integers(1, 5),
    multiple_of=st.sampled_from([1, 2, 4]),
    limit=st.none() | st.integers(1, 30),
)
def test_no_other_ladder_computes_fewer_tokens(lengths, max_rungs, multiple_of, limit):
    best = suggest_ladder(lengths, max_rungs, multiple_of=multiple_of, limit=limit)
    cut = [min(length, limit or length) for length in lengths]
    sizes = sorted({min(-(-length // multiple_of) * multiple_of, limit or 32) for length in cut})
    others = (
        rungs for count in range(max_rungs) for few in combinations(sizes[:-1], count) for rungs in [(*few, sizes[-1])]
    )
    fewest = min((computed(cut, rungs), len(rungs)) for rungs in others)
    assert (computed(cut, best.rungs), len(best.rungs)) == fewest
    assert set(best.rungs) <= set(sizes)
    assert best.rungs == tuple(sorted(best.rungs))
    assert best.real == pytest.approx(sum(cut) / fewest[0])
    assert best.real == pytest.approx(real_share(lengths, best.rungs))
    assert best.too_long == sum(length > (limit or length) for length in lengths)


@given(lengths=st.lists(st.integers(1, 200), min_size=1))
def test_shares_of_the_ladders_that_are_easily_had(lengths):
    best = suggest_ladder(lengths, 3)
    largest = best.rungs[-1]
    doubling = [*(2**power for power in range(10) if 2**power < largest), largest]
    assert best.real_with_one == pytest.approx(sum(lengths) / computed(lengths, [largest]))
    assert best.real_with_doubling == pytest.approx(sum(lengths) / computed(lengths, doubling))
    assert best.real >= best.real_with_one


def test_lengths_come_as_they_are():
    lengths = np.random.default_rng(0).integers(1, 513, 1000)
    best = suggest_ladder(lengths, 6)
    for form in (lengths.tolist(), iter(lengths.tolist()), Counter(lengths.tolist()), lengths.astype(np.uint16)):
        assert suggest_ladder(form, 6) == best
    assert suggest_ladder([3], limit=10**30).rungs == (4,)
    assert json.loads(json.dumps(best.to_dict()))["texts"] == 1000


@pytest.mark.parametrize(
    ("lengths", "options", "message"),
    [
        ([], {}, "There are no lengths"),
        ({}, {}, "There are no lengths"),
        ([4, 0], {}, "1 or more, got 0"),
        ([1.5], {}, "whole numbers of 1 or more, got 1.5"),
        ([4], {"max_rungs": 0}, "max_rungs must be 1 or more, got 0"),
        ([4], {"multiple_of": 0}, "multiple_of must be 1 or more"),
        ([4], {"limit": 0}, "limit must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(lengths, options, message):
    with pytest.raises(InvalidArgumentError, match=message):
        suggest_ladder(lengths, **options)
    with pytest.raises(InvalidArgumentError, match="rungs must be sizes"):
        real_share([4], [])


def test_a_report_compares_the_ladder_of_a_model(exported):
    pair = exported("text-classification")
    texts = ["Rain.", "The tram is late again, and nobody knows why.", ("A pair", "of texts.")]
    lengths = [len(pair.tokenizer(*([text] if isinstance(text, str) else text))["input_ids"]) for text in texts]
    report = report_ladder(pair.folder, iter(texts), max_rungs=2, multiple_of=1)
    assert report.present == (8, 16)
    assert report.present_real == real_share(lengths, [8, 16])
    assert report.present_too_long == sum(length > 16 for length in lengths)
    assert report.suggestion == suggest_ladder(lengths, 2, multiple_of=1, limit=pair.tokenizer.model_max_length)
    assert report.shape_option == "--shape sequence_length=" + ",".join(map(str, report.suggestion.rungs))


def test_a_graph_of_any_length_has_no_ladder_yet(dynamic):
    assert report_ladder(dynamic.folder, ["A text."]).present == ()


def test_models_without_a_ladder_for_texts_are_refused(specimen):
    with pytest.raises(UnsupportedTaskError, match="takes no tokens"):
        report_ladder(specimen("wav2vec2").folder, ["A text."])
    with pytest.raises(UnsupportedTaskError, match="a model that writes"):
        report_ladder(stock.graphs("gpt2"), ["A text."])


def test_the_command_suggests_a_ladder(exported, tmp_path, capfd):
    folder = exported("text-classification").folder
    lines = ["A plain line.", '{"text": "One.", "text_pair": "Two."}', '{"question": "Who?", "context": "Anna."}']
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    facts = json.loads(run_here(capfd, "bench", folder, "--suggest", tmp_path / "texts.txt", "--json").out)
    assert facts["suggestion"]["texts"] == 3
    assert facts["present"] == [8, 16]
    shown = run_here(capfd, "bench", folder, "--suggest", tmp_path / "texts.txt", "--max-rungs", 1)
    assert shown.code == 0
    assert "--shape sequence_length=8" in shown.out
    for ladder in ("present", "suggested", "one rung", "powers of two"):
        assert ladder in shown.out
    (tmp_path / "texts.txt").write_text('{"image": "cat.png"}')
    failed = run_here(capfd, "bench", folder, "--suggest", tmp_path / "texts.txt")
    assert failed.code == 3
    assert "Expected a text, or an object that holds one" in failed.err
