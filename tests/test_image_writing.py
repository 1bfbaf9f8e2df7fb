"""Texts and images in, texts out: on transformers 4.57, which has these pipelines, ours answer as its own do."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import transformers
from PIL import Image

from optimum_fixedshape import AutoProcessor, ORTModelForVision2Seq, pipeline
from optimum_fixedshape._compat import stock_pipeline
from optimum_fixedshape.errors import InputTooLongError, InvalidInputError, UnsupportedTaskError

from . import stock
from .equality import assert_same

HOLDS = {"batch_size": 2, "context_length": [8, 24], "prefill_length": [4]}
READS = {**HOLDS, "sequence_length": [8, 32]}
READING = ("text2text-generation", "summarization", "translation", "translation_en_to_fr")
TEXTS = ["Rain fell on the market while the bells rang.", "Nobody in Zürich expected the tram.", "A quiet library"]

has_task = pytest.mark.skipif(stock_pipeline("ImageToTextPipeline") is None, reason="transformers 5 has dropped it")
pytestmark = [
    pytest.mark.filterwarnings("ignore:The class `AutoModelForVision2Seq` is deprecated:FutureWarning"),
]


def pictures() -> list[Image.Image]:
    tiles = [np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8) for seed in range(3)]
    return [Image.fromarray(each).resize((40, 30)) for each in tiles]


def both(task, name, shapes):
    """Our pipeline on a folder of graphs, which is all it is told, and transformers' on the PyTorch model's."""
    theirs = transformers.pipeline(task, str(stock.graphs(name).parent / "original"), device=-1)
    return pipeline(task, str(stock.graphs(name)), model_kwargs={"shapes": shapes}), theirs


@has_task
@pytest.mark.parametrize("task", READING)
@pytest.mark.parametrize("name", ["bart", "t5"])
def test_texts(name, task):
    ours, theirs = both(task, name, READS)
    for how in ({}, {"num_beams": 2}):
        answers = theirs(TEXTS, max_new_tokens=12, **how)
        assert len({str(answer) for answer in answers}) == len(TEXTS)
        assert_same(ours(TEXTS, max_new_tokens=12, **how), answers)
        assert_same(ours(TEXTS, max_new_tokens=12, batch_size=2, **how), answers)
    assert_same(ours(TEXTS[0], max_new_tokens=4), theirs(TEXTS[0], max_new_tokens=4))


@has_task
def test_images(tmp_path, caplog):
    ours, theirs = both("image-to-text", "trocr", HOLDS)
    images = pictures()
    images[0].save(tmp_path / "first.png")
    answers = theirs(images, max_new_tokens=12)
    assert len({str(answer) for answer in answers}) == len(images)
    with caplog.at_level(logging.INFO, "optimum_fixedshape"):
        assert_same(ours(images, max_new_tokens=12), answers)
        assert_same(ours(images, max_new_tokens=12, batch_size=2), answers)
        assert_same(ours(images, generate_kwargs={"max_new_tokens": 12}), answers)
        for item in (images[0], str(tmp_path / "first.png"), tmp_path / "first.png"):
            assert_same(ours(item, max_new_tokens=12), answers[0])
    assert [record for record in caplog.records if record.name.startswith("optimum_fixedshape")] == []
    beams = {"max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2}
    assert_same(ours(images, generate_kwargs=beams), theirs(images, generate_kwargs=beams))
    assert ours([]) == []


@has_task
def test_images_that_cannot_be_written_about(tmp_path):
    ours, _ = both("image-to-text", "trocr", HOLDS)
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InvalidInputError, match=r"text\.png"):
        ours(str(tmp_path / "text.png"))
    with pytest.raises(InputTooLongError, match=r"would have 257 tokens.* and the graphs hold 24"):
        ours(pictures()[0])


@has_task
def test_a_model_and_its_parts_make_the_same_pipeline():
    model = ORTModelForVision2Seq.from_pretrained(stock.graphs("trocr"), shapes=HOLDS)
    processor = AutoProcessor.from_model(model)
    words = transformers.AutoTokenizer.from_pretrained(stock.graphs("trocr"))
    named = pipeline("image-to-text", model, tokenizer=words, image_processor=processor)
    found, _ = both("image-to-text", "trocr", HOLDS)
    assert_same(named(pictures(), max_new_tokens=8), found(pictures(), max_new_tokens=8))


@pytest.mark.skipif(stock_pipeline("ImageToTextPipeline") is not None, reason="transformers 4.57 has it")
@pytest.mark.parametrize(("task", "name"), [("image-to-text", "trocr"), ("summarization", "bart")])
def test_what_transformers_5_has_dropped_is_named(task, name):
    with pytest.raises(UnsupportedTaskError, match=f"transformers 5.* has no pipeline for {task}; call the"):
        pipeline(task, str(stock.graphs(name)))


def test_pixels_by_their_name():
    model = ORTModelForVision2Seq.from_pretrained(stock.graphs("trocr"), shapes=HOLDS)
    pixels = AutoProcessor.from_model(model)(pictures(), return_tensors="pt")
    assert list(pixels) == ["pixel_values"]
    theirs = stock.original("trocr").generate(**pixels, max_new_tokens=8)
    assert len({tuple(row) for row in theirs.tolist()}) == 3
    assert_same(model.generate(**pixels, max_new_tokens=8), theirs)
