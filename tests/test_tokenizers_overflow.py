"""Texts that are longer than the graph: refused, cut, or made into windows; never cut in silence."""

import contextlib

import pytest
from transformers.tokenization_utils_base import TruncationStrategy

from optimum_fixedshape import InputTooLongError

from . import words
from .equality import assert_same

KINDS = words.FAST + words.SLOW
SHORT, LONG = "a b", " ".join("abcdefghijklmnopqrstuvwxyzzyxwvutsrqponmlkjihgfedcba")
FIELDS = {"return_special_tokens_mask": True, "return_length": True}


@pytest.fixture(scope="module")
def ladder(tmp_path_factory):
    return words.ladder_of(tmp_path_factory.mktemp("ladder"), (8, 16))


@pytest.mark.parametrize(
    "kwargs",
    [{}, {"return_tensors": "np"}, {"padding": False}, {"truncation": False}, {"max_length": 99, "padding": True}],
)
@pytest.mark.parametrize("kind", KINDS)
def test_too_long_is_an_error(ladder, kind, kwargs):
    fixed = words.fixed(kind, ladder)
    size = len(words.plain(kind)(LONG)["input_ids"])
    for text, item, index in ((LONG, "The item", None), ([LONG], "Item 0", 0), ([SHORT, LONG, LONG], "Item 1", 1)):
        with pytest.raises(InputTooLongError) as caught:
            fixed(text, **kwargs)
        error = caught.value
        assert (error.index, error.size, error.limit, error.axis) == (index, size, 16, "sequence_length")
        assert str(error) == (
            f"{item} has sequence_length {size}, and the largest rung holds sequence_length 16 (rungs: 8, 16). "
            "Ways out: truncation=True or overflow='truncate' cuts it; overflow='window' runs overlapping windows "
            "and merges them (for a processor or a pipeline); or load or export a larger rung, "
            f"shapes={{'sequence_length': [..., {size}]}}."
        )
    assert {*words.lengths_of(fixed([SHORT]))} == {8}


def test_too_long_labels_are_an_error(ladder):
    with pytest.raises(InputTooLongError, match="Item 1 has sequence_length 54"):
        words.fixed("wordpiece", ladder)([SHORT, SHORT], text_target=[SHORT, LONG])
    with pytest.raises(InputTooLongError, match="Item 1 has sequence_length 54"):
        words.fixed("wordpiece", ladder, overflow="window")([SHORT, SHORT], text_target=[SHORT, LONG])


@pytest.mark.parametrize("truncation", [True, "longest_first", TruncationStrategy.LONGEST_FIRST, "only_first"])
@pytest.mark.parametrize("kind", KINDS)
def test_truncation_cuts_at_the_largest_rung(ladder, kind, truncation):
    fixed, plain = words.fixed(kind, ladder), words.reference(kind)
    for kwargs in ({}, {"return_tensors": "np"}, FIELDS, {"padding_side": "left"}, {"add_special_tokens": False}):
        for args in ((LONG,), ([LONG, SHORT],), (LONG, SHORT), ([LONG, SHORT], [SHORT, SHORT])):
            ours = fixed(*args, truncation=truncation, **kwargs)
            whole = {"truncation": truncation, "padding": "max_length", "max_length": 16}
            assert_same(ours, plain(*args, **whole, **kwargs), tolerance=0)


def test_truncation_of_the_second_text(ladder):
    fixed, plain = words.fixed("wordpiece", ladder), words.plain("wordpiece")
    whole = {"padding": "max_length", "max_length": 16}
    assert_same(fixed(SHORT, LONG, truncation="only_second"), plain(SHORT, LONG, truncation="only_second", **whole))
    with pytest.raises(ValueError, match="middle is not a valid TruncationStrategy"):
        fixed(SHORT, truncation="middle")


@pytest.mark.parametrize("kind", KINDS)
def test_truncation_to_a_length(ladder, kind):
    fixed, plain = words.fixed(kind, ladder), words.reference(kind)
    for length, rung in ((5, 8), (12, 16)):
        cut = plain([LONG, SHORT], truncation=True, max_length=length)
        padded = plain.pad(cut, padding="max_length", max_length=rung)
        for kwargs in ({"truncation": True}, {}):  # transformers takes max_length alone for a wish to cut
            assert_same(fixed([LONG, SHORT], max_length=length, **kwargs), padded)
    assert_same(fixed(LONG, truncation=True, max_length=99), fixed(LONG, truncation=True))
    assert_same(fixed(LONG, truncation=True, max_length=5, padding=False), plain(LONG, truncation=True, max_length=5))


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "characters"])
def test_truncation_on_the_left(ladder, kind):
    plain = words.fixed(kind, ladder).plain()
    plain.truncation_side = "left"
    fixed = words.fix_quietly(plain, ladder)
    assert_same(fixed(LONG, truncation=True), plain(LONG, truncation=True, padding="max_length", max_length=16))
    fixed.truncation_side = "right"
    assert_same(
        fixed(LONG, truncation=True)["input_ids"], words.plain(kind)(LONG, truncation=True, max_length=16)["input_ids"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_overflow_truncate_is_truncation_where_the_call_says_nothing(ladder, kind):
    fixed, cutting = words.fixed(kind, ladder), words.fixed(kind, ladder, overflow="truncate")
    for kwargs in ({}, {"return_tensors": "np"}, {"padding": False}, FIELDS, {"padding": True, "max_length": 99}):
        assert_same(cutting([LONG, SHORT], **kwargs), fixed([LONG, SHORT], truncation=True, **kwargs), tolerance=0)
    for said in (False, "do_not_truncate", TruncationStrategy.DO_NOT_TRUNCATE):
        with pytest.raises(InputTooLongError):
            cutting(LONG, truncation=said)


@pytest.mark.parametrize("kind", words.FAST)
def test_overflowing_tokens_as_rows(ladder, kind):
    fixed, plain = words.fixed(kind, ladder), words.reference(kind)
    kwargs = {
        "truncation": True,
        "stride": 3,
        "return_overflowing_tokens": True,
        "return_offsets_mapping": True,
        **FIELDS,
    }
    for text in (LONG, [LONG, SHORT], SHORT):
        for tensors in (None, "np"):
            ours = fixed(text, return_tensors=tensors, **kwargs)
            theirs = plain(
                text, padding="max_length", max_length=16 if text != SHORT else 8, return_tensors=tensors, **kwargs
            )
            assert_same(ours, theirs, tolerance=0)
            for row in range(len(theirs["input_ids"])):
                for facts in ("tokens", "word_ids", "sequence_ids"):
                    assert getattr(ours, facts)(row) == getattr(theirs, facts)(row)


@pytest.mark.parametrize("kind", words.SLOW)
def test_overflowing_tokens_without_a_rust_backend(ladder, kind):
    fixed, plain = words.fixed(kind, ladder), words.reference(kind)
    kwargs = {"truncation": True, "return_overflowing_tokens": True}
    assert_same(fixed(LONG, **kwargs), plain(LONG, padding="max_length", max_length=16, **kwargs))
    assert len(fixed(LONG, **kwargs)["overflowing_tokens"]) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rung", [8, 16])
def test_windows_cover_every_token(tmp_path, kind, rung):
    fixed = words.fixed(kind, words.ladder_of(tmp_path, (rung,)), overflow="window")
    texts = [SHORT, LONG, "", LONG[:30]]
    encoded = fixed(texts, return_special_tokens_mask=True)
    owners = encoded["overflow_to_sample_mapping"]
    assert owners == sorted(owners)
    assert {*words.lengths_of(encoded)} == {rung}
    for item, text in enumerate(texts):
        rows = [i for i, owner in enumerate(owners) if owner == item]
        whole = _text_of(words.plain(kind)(text, return_special_tokens_mask=True))
        windows = [_text_of({name: column[i] for name, column in encoded.items()}) for i in rows]
        assert len(windows) == 1 or len(whole) > rung - 3
        end = 0
        for window in windows:
            start = max(n for n in range(end + 1) if whole[n : n + len(window)] == window)
            assert start < end or end == 0, "neighbours overlap"
            end = start + len(window)
        assert end == len(whole)


def _text_of(row):
    """The ids that the tokenizer did not add, as the row's own mask tells them."""
    return [token for token, special in zip(row["input_ids"], row["special_tokens_mask"], strict=True) if not special]


def test_windows_of_a_text_that_has_its_end_token(ladder):
    text = "a" * 30 + "</s>"
    with pytest.warns(UserWarning, match="already has </s>"):
        encoded = words.fixed("bytes", ladder, overflow="window")(text)
    assert encoded["input_ids"][-1][-1] == 1
    assert {*words.lengths_of(encoded)} == {16}


@pytest.mark.parametrize("kind", words.FAST)
def test_windows_are_those_of_transformers(ladder, kind):
    fixed, plain = words.fixed(kind, ladder, overflow="window"), words.reference(kind)
    how = {"truncation": True, "padding": "max_length", "max_length": 16, "return_overflowing_tokens": True}
    for stride, asked in (
        (4, {}),
        (3, {"stride": 3}),
        (4, {"return_tensors": "np"}),
        (4, {"return_offsets_mapping": True}),
    ):
        for args in ((LONG,), ([LONG, SHORT],), (SHORT, LONG), ([(SHORT, LONG), (LONG, SHORT)],), (LONG, LONG)):
            ours, theirs = fixed(*args, **asked), plain(*args, **how, **{"stride": stride, **asked})
            assert_same(ours, theirs, tolerance=0)
            assert [ours.word_ids(i) for i in range(len(ours["input_ids"]))] == [
                theirs.word_ids(i) for i in range(len(theirs["input_ids"]))
            ]


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_pairs_repeat_the_short_text(ladder, kind):
    encoded = words.fixed(kind, ladder, overflow="window")("q", LONG, return_special_tokens_mask=True)
    assert len(encoded["input_ids"]) > 3
    question = words.plain(kind)("q", add_special_tokens=False)["input_ids"]
    assert {tuple(_text_of({n: c[i] for n, c in encoded.items()})[: len(question)]) for i in range(4)} == {
        tuple(question)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_windows_that_nothing_fits_in_are_an_error(tmp_path, kind):
    for rung in (1, 2, 3, 4):
        fixed = words.fixed(kind, words.ladder_of(tmp_path, (rung,)), overflow="window")
        for args in ((LONG,), (LONG[:20], LONG[:20]), ([(LONG, SHORT)],)):
            for stride in (0, 1, 50):
                with contextlib.suppress(InputTooLongError):
                    assert {*words.lengths_of(fixed(*args, stride=stride))} == {rung}
        if rung <= words.plain(kind).num_special_tokens_to_add():
            with pytest.raises(InputTooLongError):
                fixed(LONG)


def test_windows_keep_to_what_the_call_says(ladder):
    fixed, plain = words.fixed("wordpiece", ladder, overflow="window"), words.plain("wordpiece")
    with pytest.raises(InputTooLongError):
        fixed(LONG, truncation=False)
    assert_same(fixed(LONG, truncation=True), plain(LONG, truncation=True, padding="max_length", max_length=16))
    assert words.lengths_of(fixed([SHORT, LONG[:30]], padding=False))[0] == 4
    assert "overflow_to_sample_mapping" not in fixed(SHORT, truncation=True)


@pytest.mark.parametrize("kind", KINDS)
def test_exact_length_pads_nothing(ladder, kind):
    fixed, plain = words.fixed(kind, ladder, exact_length=True), words.reference(kind)
    for args in ((SHORT,), ([SHORT, "c"],), (SHORT, SHORT)):
        for kwargs in (
            {},
            FIELDS,
            {"padding": True, "return_tensors": "pt"},
            {"padding": "max_length", "max_length": 9},
        ):
            assert_same(fixed(*args, **kwargs), plain(*args, **kwargs), tolerance=0)
    assert_same(fixed(LONG, truncation=True), plain(LONG, truncation=True, max_length=16))
    with pytest.raises(InputTooLongError, match="The item has"):
        fixed(LONG, return_tensors="np")
    with pytest.raises(InputTooLongError, match="Item 1 has"):
        fixed([SHORT, LONG])
    assert_same(fixed.pad(plain([SHORT, "c"])), plain.pad(plain([SHORT, "c"])))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [{}, {"truncation": False}])
def test_exact_length_keeps_long_rows_for_windows(ladder, kind, said):
    fixed, plain = words.fixed(kind, ladder, exact_length=True, overflow="window"), words.plain(kind)
    assert_same(fixed(SHORT, **said), plain(SHORT))
    assert_same(fixed(SHORT, return_special_tokens_mask=True, **said), plain(SHORT, return_special_tokens_mask=True))
    for args in ((LONG,), (SHORT, LONG)):
        for kwargs in ({}, {"return_tensors": "np"}):
            theirs = plain(*args, return_special_tokens_mask=True, verbose=False, **kwargs)
            assert_same(dict(sorted(fixed(*args, **kwargs, **said).items())), dict(sorted(theirs.items())), tolerance=0)
    assert_same(fixed(LONG, truncation=True), plain(LONG, truncation=True, max_length=16))
