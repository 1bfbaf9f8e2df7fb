"""Whisper: our pipeline and `generate()` on fixed graphs write down what transformers' own do on the PyTorch model."""

from __future__ import annotations

import copy
import functools
import logging

import numpy as np
import pytest
import torch
import transformers
from transformers import GenerationMixin

from optimum_fixedshape import (
    AutoFeatureExtractor,
    AutoProcessor,
    ORTModelForSpeechSeq2Seq,
    export_model,
    pipeline,
)
from optimum_fixedshape.errors import InputTooLongError, UnsupportedTaskError

from . import stock, writers
from .equality import assert_same
from .sounds import RATE, tone, write_sound

TASK, NAME = "automatic-speech-recognition", "whisper-speech"
SHAPES = {"batch_size": 2, "context_length": [32, 128], "prefill_length": [8, 32]}
GREEDY = {"num_beams": 1, "max_new_tokens": 24}
PITCHES = (200, 900, 3000, 450, 1500, 6000, 350, 2500)
SHORT = (tone(RATE), tone(RATE * 3 // 2, pitch=1200, seed=3), tone(RATE // 2, pitch=2500, seed=7))
LONG = np.concatenate([tone(8 * RATE, pitch=pitch, seed=seed) for seed, pitch in enumerate(PITCHES)])
WHOLE = {"return_tensors": "pt", "sampling_rate": RATE, "truncation": False, "padding": "longest"}


@pytest.fixture(scope="module", params=["stock", "our own"])
def graphs(request, tmp_path_factory):
    """A folder of graphs with their processor, and the shapes to load it at."""
    if request.param == "stock":
        return stock.graphs(NAME), SHAPES
    folder = tmp_path_factory.mktemp("whisper")
    export_model(stock.original(NAME), folder, shapes=SHAPES, processor=plain_processor(), progress=False)
    return folder, None


@pytest.fixture(scope="module")
def model(graphs):
    folder, shapes = graphs
    return ORTModelForSpeechSeq2Seq.from_pretrained(folder, shapes=shapes)


@pytest.fixture(scope="module")
def pipes(graphs):
    """Ours, made from nothing but the folder, and transformers'."""
    folder, shapes = graphs
    plain = plain_processor()
    theirs = transformers.pipeline(
        TASK,
        model=stock.original(NAME),
        tokenizer=plain.tokenizer,
        feature_extractor=plain.feature_extractor,
        device=-1,
        ignore_warning=True,
    )
    loading = {"model_kwargs": {"shapes": shapes}} if shapes else {}
    return pipeline(TASK, str(folder), ignore_warning=True, **loading), theirs


@functools.cache
def plain_processor():
    return transformers.AutoProcessor.from_pretrained(stock.graphs(NAME))


def assert_both_say(pipes, *args, **kwargs):
    """Asserts equality, and returns the answer; what was passed stays as it was."""
    ours, theirs = pipes
    wanted = theirs(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    assert_same(ours(*args, **kwargs), wanted)
    return wanted


def prompt():
    return torch.from_numpy(np.asarray(plain_processor().tokenizer.get_prompt_ids("two ships")))


def test_the_tokenizer_is_one_of_whispers():
    words = writers.whisper_tokenizer()
    assert words.all_special_ids == list(range(256, 256 + len(writers.SPECIAL)))
    begin = words.convert_tokens_to_ids("<|notimestamps|>")
    assert (words.all_special_ids[-1], words.convert_tokens_to_ids("<|30.00|>")) == (begin, begin + 1501)
    assert words.decode(words(" Zürich").input_ids, skip_special_tokens=True) == " Zürich"
    assert len(words) == stock.original(NAME).config.vocab_size


def test_short_sounds(pipes, caplog):
    with caplog.at_level(logging.INFO, "optimum_fixedshape"):
        texts = [assert_both_say(pipes, sound, generate_kwargs=GREEDY)["text"] for sound in SHORT]
    assert len({*texts}) == len(SHORT)
    assert all(texts)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("optimum_fixedshape")] == []


def test_the_length_that_is_asked_for_by_nobody(pipes):
    assert len(assert_both_say(pipes, SHORT[0])["text"]) > GREEDY["max_new_tokens"]


def test_several_sounds_at_once(pipes, caplog):
    answers = assert_both_say(pipes, list(SHORT), batch_size=2, generate_kwargs=GREEDY)
    assert_same(pipes[0](list(SHORT), generate_kwargs=GREEDY), answers)
    assert_same(list(pipes[0]((sound for sound in SHORT), generate_kwargs=GREEDY)), answers)
    assert not [each for each in caplog.records if "attention mask is not set" in each.getMessage()]


def test_sounds_from_anywhere(pipes, tmp_path):
    ours, _ = pipes
    wanted = assert_both_say(pipes, SHORT[1], generate_kwargs=GREEDY)
    path = write_sound(tmp_path / "sound.wav", SHORT[1], subtype="FLOAT")
    for item in (str(path), path, path.read_bytes(), {"array": SHORT[1], "sampling_rate": RATE}):
        assert_same(ours(item, generate_kwargs=GREEDY), wanted)

    import soxr

    slow = SHORT[1][::2]
    heard = soxr.resample(slow, RATE // 2, RATE)
    wanted = assert_both_say(pipes, heard, generate_kwargs=GREEDY)
    assert_same(ours({"raw": slow, "sampling_rate": RATE // 2}, generate_kwargs=GREEDY), wanted)
    path = write_sound(tmp_path / "slow.wav", slow, RATE // 2, subtype="FLOAT")
    assert_same(ours(str(path), generate_kwargs=GREEDY), wanted)


def test_fields_of_ones_own_come_back(pipes):
    item = {"raw": SHORT[0], "sampling_rate": RATE, "speaker": "Anne"}
    assert assert_both_say(pipes, item, generate_kwargs=GREEDY)["speaker"] == ["Anne"]
    assert sorted(item) == ["raw", "sampling_rate", "speaker"]


@pytest.mark.parametrize("batch", [1, 2])
def test_timestamps(pipes, batch):
    answers = assert_both_say(pipes, list(SHORT), batch_size=batch, return_timestamps=True, generate_kwargs=GREEDY)
    assert any(chunk["timestamp"][0] for answer in answers for chunk in answer["chunks"])


@pytest.mark.parametrize(("chunk", "stride", "stamps"), [(10, (2, 1), True), (20, None, False), (29, 4, True)])
def test_chunks_of_long_sounds(pipes, chunk, stride, stamps):
    cut = {"chunk_length_s": chunk, "stride_length_s": stride, "batch_size": 2}
    answer = assert_both_say(pipes, LONG, **cut, return_timestamps=stamps, generate_kwargs=GREEDY)
    assert len(answer["text"]) > GREEDY["max_new_tokens"]


def test_long_sounds_as_transformers_hears_them(pipes):
    answer = assert_both_say(pipes, LONG, return_timestamps=True, generate_kwargs=GREEDY)
    first = assert_both_say(pipes, LONG[: 30 * RATE], return_timestamps=True, generate_kwargs=GREEDY)
    assert len(answer["text"]) > len(first["text"])
    assert any((stop or 0) > 30 for chunk in answer["chunks"] for stop in chunk["timestamp"])
    mixed = [LONG, SHORT[0], LONG[20 * RATE : 58 * RATE]]
    assert_both_say(pipes, mixed, return_timestamps=True, generate_kwargs=GREEDY)
    for pipe in pipes:
        with pytest.raises(ValueError, match="more than 3000 mel input features"):
            pipe(LONG, generate_kwargs=GREEDY)


def test_languages_tasks_prompts_and_beams(pipes):
    asked = [
        {},
        {"language": "french"},
        {"language": "fr", "task": "translate"},
        {"prompt_ids": prompt()},
        {"num_beams": 3},
        {"language": "de", "num_beams": 2, "num_return_sequences": 1, "length_penalty": 0.5},
    ]
    texts = [assert_both_say(pipes, SHORT[1], generate_kwargs={**GREEDY, **each})["text"] for each in asked]
    assert len({*texts}) > len(asked) // 2
    torch.manual_seed(0)
    wanted = pipes[1](SHORT[1], generate_kwargs={**GREEDY, "temperature": 0.7})
    torch.manual_seed(0)
    assert_same(pipes[0](SHORT[1], generate_kwargs={**GREEDY, "temperature": 0.7}), wanted)
    assert wanted["text"] != texts[0]


@pytest.mark.parametrize("stamps", [False, True])
def test_the_language_that_was_heard(pipes, stamps):
    answer = assert_both_say(
        pipes, SHORT[0], return_language=True, return_timestamps=stamps, generate_kwargs={**GREEDY, "language": "fi"}
    )
    assert "language" in answer["chunks"][0]


def test_words_have_no_times(pipes, model):
    ours, _ = pipes
    with pytest.raises(UnsupportedTaskError, match="needs the attention to the sound, which the graphs do not give"):
        ours(SHORT[0], return_timestamps="word", generate_kwargs=GREEDY)
    with pytest.raises(UnsupportedTaskError, match="return_token_timestamps=True"):
        model.generate(torch.zeros(1, 80, 3000), return_token_timestamps=True)


def test_too_long_an_answer():
    small = pipeline(TASK, str(stock.graphs(NAME)), model_kwargs={"shapes": {"context_length": 40}})
    assert small.model.context_length == 40
    with pytest.raises(InputTooLongError, match=r"would have 43 tokens.* and the graphs hold 40"):
        small(SHORT[0], generate_kwargs={"max_new_tokens": 40})
    assert small(SHORT[0], generate_kwargs={"max_new_tokens": 37})["text"]


@pytest.fixture(scope="module")
def heard(graphs):
    """Three sounds of unequal length, one of them short, and what both extractors make of them."""
    sounds = [LONG, tone(3 * RATE), LONG[20 * RATE : 58 * RATE]]
    asked = {**WHOLE, "return_attention_mask": True}
    ours, theirs = AutoProcessor.from_model(graphs[0])(sounds, **asked), plain_processor()(sounds, **asked)
    assert_same(dict(ours), dict(theirs), tolerance=0)
    assert theirs["attention_mask"].sum(-1).tolist() == [6400, 300, 3800]
    return ours


PREVIOUS = {"condition_on_prev_tokens": True}
LONG_FORMS = {
    "as they are": {},
    "after what was said": PREVIOUS,
    "in segments": {**PREVIOUS, "return_segments": True},
    "in beams": {**PREVIOUS, "num_beams": 2},
    "prompted at first": {**PREVIOUS, "prompt_ids": True},
    "prompted always": {**PREVIOUS, "prompt_ids": True, "prompt_condition_type": "all-segments"},
    "hotter and hotter": {
        **{**PREVIOUS, "temperature": (0.0, 0.4, 0.8), "logprob_threshold": -1.0},
        **{"compression_ratio_threshold": 1.35, "no_speech_threshold": 0.6},
    },
}


@pytest.mark.parametrize("how", LONG_FORMS)
def test_long_forms_in_a_batch(model, heard, how):
    asked = {"return_timestamps": True, "max_new_tokens": 40, **LONG_FORMS[how]}
    if "prompt_ids" in asked:
        asked["prompt_ids"] = prompt()
    answers = []
    for each in (model, stock.original(NAME)):
        torch.manual_seed(0)
        answers.append(each.generate(**heard, **asked))
    assert_same(*answers)
    sequences = answers[1]["sequences"] if how == "in segments" else answers[1]
    assert len({tuple(row) for row in sequences.tolist()}) == len(sequences)
    if how == "after what was said":
        assert not torch.equal(sequences, model.generate(**heard, return_timestamps=True, max_new_tokens=40))


@pytest.mark.parametrize(("tokens", "padding"), [(6, 2), (20, 5), (33, 32), (70, 33)])
def test_texts_that_are_padded_on_the_left(model, tokens, padding):
    original, generator = stock.original(NAME), torch.Generator().manual_seed(0)
    sound = torch.randn(2, 80, 3000, generator=generator)
    ids = torch.randint(0, 256, (2, tokens), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, :padding] = 0
    given = {"input_features": sound, "decoder_input_ids": ids, "decoder_attention_mask": mask}
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        theirs = original(**given, decoder_position_ids=places).logits
    ours = model(**given, decoder_position_ids=places).logits
    assert_same(ours[0, padding:], theirs[0, padding:])
    assert_same(ours[1], theirs[1])
    # Whisper's own generate() makes its prompts itself.
    written = [GenerationMixin.generate(each, **given, max_new_tokens=10) for each in (model, original)]
    assert_same(*written)


def test_short_sounds_by_themselves(graphs, model):
    ours, plain = AutoProcessor.from_model(model, processor=str(graphs[0])), plain_processor()
    for asked in ({}, {"return_attention_mask": True}, {"padding": "longest"}):
        made = ours(list(SHORT), sampling_rate=RATE, return_tensors="pt", **asked)
        usual = plain(list(SHORT), sampling_rate=RATE, return_tensors="pt", **{**asked, "padding": "max_length"})
        assert_same(dict(made), dict(usual), tolerance=1e-6)
        assert_same(model.generate(**made, **GREEDY), stock.original(NAME).generate(**usual, **GREEDY))
    extractor = AutoFeatureExtractor.from_model(model)
    assert extractor([], truncation=False, return_tensors="pt")["input_features"].shape[0] == 0
    assert [feed.arrays["input_features"].shape for feed in extractor.feeds(SHORT)] == [(2, 80, 3000)] * 2


def test_languages_of_each_sound(graphs, model):
    made = AutoProcessor.from_model(graphs[0])(list(SHORT), sampling_rate=RATE, return_tensors="pt")
    features, original = made["input_features"], stock.original(NAME)
    heard = original.detect_language(features)
    assert_same(model.detect_language(features), heard)
    assert len({*heard.tolist()}) > 1
    asked = {"language": ["fr", "de", "fi"], "task": "transcribe", **GREEDY}
    assert_same(model.generate(features, **asked), original.generate(features, **asked))
