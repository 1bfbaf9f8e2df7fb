"""Encoders with decoders: stock graphs pinned at load write what PyTorch writes, through its own `generate()`."""

from __future__ import annotations

import copy
import pickle
import shutil

import pytest
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

import optimum_fixedshape as fixedshape
from optimum_fixedshape.errors import (
    GraphNotFoundError,
    InputTooLongError,
    MissingInputError,
    ShapeMismatchError,
    UnsupportedTaskError,
)

from . import stock
from .equality import TOLERANCE, assert_same, assert_writes_as_original, fix_every_session, lengths_around

CONTEXT = 24
SHAPES = {"context_length": [6, CONTEXT], "prefill_length": [1, 4]}
TEXTS = {**SHAPES, "sequence_length": [8, 16]}
CLASSES = {"t5": "Seq2SeqLM", "bart": "Seq2SeqLM", "whisper": "SpeechSeq2Seq", "trocr": "Vision2Seq"}
DECODERS = ("decoder_model.onnx", "decoder_with_past_model.onnx")


def load(name, folder=None, **options):
    return getattr(fixedshape, f"ORTModelFor{CLASSES[name]}").from_pretrained(folder or stock.graphs(name), **options)


def shapes_of(name, **more):
    return {**(TEXTS if CLASSES[name] == "Seq2SeqLM" else SHAPES), **more}


def sources(name, rows, length=7, seed=0):
    """What the encoder reads: texts of unequal length, spectrograms or pixels."""
    generator = torch.Generator().manual_seed(seed)
    if name == "whisper":
        return {"input_features": torch.randn(rows, 80, 3000, generator=generator)}
    if name == "trocr":
        return {"pixel_values": torch.randn(rows, 3, 16, 16, generator=generator)}
    ids = torch.randint(5, 400, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, max(length - row, 1) :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 1), "attention_mask": mask}


def lengths(name):
    return lengths_around(8, 16, most=16) if CLASSES[name] == "Seq2SeqLM" else [1]


@pytest.fixture(params=CLASSES)
def name(request):
    return request.param


@pytest.fixture
def original(name):
    return stock.original(name)


@pytest.fixture(scope="module")
def models():
    return {}


@pytest.fixture
def model(name, models):
    if name not in models:
        models[name] = load(name, shapes=shapes_of(name))
    return models[name]


@pytest.mark.parametrize("rows", [1, 3])
def test_generate_equals_original(name, model, original, rows):
    assert_writes_as_original(model, original, lambda length: sources(name, rows, length), lengths(name), steps=9)


def test_the_whole_context_is_written(name, model, original):
    most = {"max_new_tokens": CONTEXT - 1, "min_new_tokens": CONTEXT - 1}
    for beams in (1, 2):
        theirs, ours = (
            each.generate(**sources(name, 2), **most, num_beams=beams, do_sample=False) for each in (original, model)
        )
        assert theirs.shape[1] >= CONTEXT - 1
        assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("batch", [1, 2])
def test_rows_are_split_to_the_graphs_batch(name, original, batch):
    model = load(name, shapes=shapes_of(name, batch_size=batch))
    for rows in (batch, batch + 1):
        assert_writes_as_original(model, original, lambda length, rows=rows: sources(name, rows, length), [5], steps=8)


def test_sessions_of_which_every_size_is_fixed(name, original):
    places = {"whisper": 1500, "trocr": 5}.get(name, 8)
    shapes = {"batch_size": 2, "context_length": 10, "prefill_length": 1, "encoder_sequence_length": places}
    texts = {"sequence_length": 8} if CLASSES[name] == "Seq2SeqLM" else {}
    pixels = {"num_channels": 3, "height": 16, "width": 16} if name == "trocr" else {}
    model = load(name, shapes=shapes | texts | pixels)
    fix_every_session(model)
    assert_writes_as_original(model, original, lambda length: sources(name, 3, length), [5], steps=9)


def test_open_graphs_run_as_they_are(name, original):
    model = load(name)
    assert model.context_length is None
    assert_writes_as_original(model, original, lambda length: sources(name, 2, length), [3, 9], steps=9)


@pytest.mark.parametrize("shapes", [None, SHAPES], ids=["open", "pinned"])
def test_both_decoders_in_one_file(name, original, shapes, tmp_path):
    shutil.copytree(stock.graphs(name), tmp_path, dirs_exist_ok=True)
    for file in DECODERS:
        (tmp_path / file).unlink()
    before = (tmp_path / "decoder_model_merged.onnx").read_bytes()
    model = load(name, tmp_path, shapes=shapes)
    assert_writes_as_original(model, original, lambda length: sources(name, 2, length), [5], steps=9)
    assert (tmp_path / "decoder_model_merged.onnx").read_bytes() == before


def test_a_decoder_without_a_cache(name, original, tmp_path):
    shutil.copytree(stock.graphs(name), tmp_path, dirs_exist_ok=True)
    for file in (DECODERS[1], "decoder_model_merged.onnx"):
        (tmp_path / file).unlink()
    model = load(name, tmp_path, shapes={"context_length": [4, 12]} if name in ("t5", "bart") else None)
    assert not model.can_use_cache
    assert_writes_as_original(model, original, lambda length: sources(name, 2, length), [5], steps=9)


def test_logits_of_all_tokens(name, model, original):
    for new in lengths_around(1, 4, most=CONTEXT):
        given = {**sources(name, 2), "decoder_input_ids": torch.randint(5, 400, (2, new))}
        with torch.no_grad():
            theirs = original(**given).logits
        assert_same(model(**given).logits, theirs, tolerance=TOLERANCE * float(theirs.abs().max()))


def test_prompts_of_unequal_length(name, model, original):
    """Decoder prompts that are padded on the left: each row as if alone, as far as positions allow it in PyTorch."""
    ids = torch.tensor([[1, 1, 1, 7, 8], [9, 10, 11, 12, 13]])
    given = {**sources(name, 2), "decoder_input_ids": ids, "decoder_attention_mask": (ids != 1).long()}
    with torch.no_grad():
        theirs = original(**given).logits
    ours = model(**given).logits
    assert_same(ours[:, 3:], theirs[:, 3:], tolerance=TOLERANCE * float(theirs.abs().max()))


def test_the_cache_is_transformers_own(name, model):
    given = {**sources(name, 1), "decoder_input_ids": torch.tensor([[5, 6, 7]])}
    cache = model(**given).past_key_values
    assert type(cache) is EncoderDecoderCache
    assert type(cache.self_attention_cache) is DynamicCache
    assert cache.get_seq_length() == 3
    twin = copy.deepcopy(cache)
    following = {**sources(name, 1), "decoder_input_ids": torch.tensor([[8]])}
    first = model(**following, past_key_values=cache).logits
    model(**following, past_key_values=cache)
    assert_same(model(**following, past_key_values=twin).logits, first, tolerance=0.0)


def test_a_cache_may_hold_the_encoders_part_alone(name, model):
    given = {**sources(name, 1), "decoder_input_ids": torch.tensor([[5, 6, 7]])}
    first = model(**given)
    cache = EncoderDecoderCache(DynamicCache(), first.past_key_values.cross_attention_cache)
    slots = cache.cross_attention_cache.get_seq_length()
    assert_same(model(**given, past_key_values=cache).logits, first.logits, tolerance=0.0)
    assert (cache.get_seq_length(), cache.cross_attention_cache.get_seq_length()) == (3, slots)


def test_it_saves_and_pickles(name, model, tmp_path):
    model.save_pretrained(tmp_path)
    again = load(name, tmp_path)
    given = {**sources(name, 2), "max_new_tokens": 8, "do_sample": False}
    written = model.generate(**given).tolist()
    assert again.context_length == CONTEXT
    assert again.generate(**given).tolist() == written
    assert pickle.loads(pickle.dumps(model)).generate(**given).tolist() == written


def test_the_encoder_alone(name, model, original):
    with torch.no_grad():
        theirs = original.get_encoder()(**sources(name, 3)).last_hidden_state
    ours = model.get_encoder()(**sources(name, 3)).last_hidden_state
    kept = ours * sources(name, 3).get("attention_mask", torch.ones(ours.shape[:2]))[..., None]
    expected = theirs * sources(name, 3).get("attention_mask", torch.ones(ours.shape[:2]))[..., None]
    assert_same(kept, expected, tolerance=TOLERANCE * float(theirs.abs().max()))


class TestErrors:
    def test_nothing_runs_before_the_context_is_found_to_be_full(self, name):
        model = load(name, shapes=shapes_of(name))
        with pytest.raises(InputTooLongError, match=r"would have 25 tokens.*the graphs hold 24") as error:
            model.generate(**sources(name, 1), max_new_tokens=CONTEXT)
        assert error.value.axis == "context_length"
        assert not any(stats.runs for stats in model.stats)

    def test_a_text_longer_than_the_encoder(self):
        with pytest.raises(InputTooLongError, match="largest rung holds sequence_length 16"):
            load("bart", shapes=TEXTS).generate(**sources("bart", 1, 17), max_new_tokens=3)

    def test_nothing_to_read_or_to_write(self, name, model):
        with pytest.raises(MissingInputError, match="needs decoder_input_ids"):
            model(**sources(name, 1))
        with pytest.raises(MissingInputError, match="The encoder needs"):
            model(decoder_input_ids=torch.tensor([[5]]))

    def test_no_encoder(self, name, tmp_path):
        shutil.copytree(stock.graphs(name), tmp_path, dirs_exist_ok=True)
        (tmp_path / "encoder_model.onnx").unlink()
        with pytest.raises(GraphNotFoundError, match="no encoder"):
            load(name, tmp_path)

    def test_no_decoder(self, name, tmp_path):
        shutil.copytree(stock.graphs(name), tmp_path, dirs_exist_ok=True)
        for file in (*DECODERS, "decoder_model_merged.onnx"):
            (tmp_path / file).unlink()
        with pytest.raises(GraphNotFoundError, match="no graph that gives logits"):
            load(name, tmp_path)

    def test_unknown_shapes(self, name):
        with pytest.raises(ShapeMismatchError, match="shapes= names contexts"):
            load(name, shapes={"contexts": 12})

    def test_times_of_words_need_attentions(self):
        with pytest.raises(UnsupportedTaskError, match="return_timestamps=True tells"):
            load("whisper").generate(**sources("whisper", 1), return_token_timestamps=True)
