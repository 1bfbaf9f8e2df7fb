"""Combined processors: of the user's own class, with parts that know the graph."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import onnxruntime
import pytest
import torch

from optimum_fixedshape import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
    pipeline,
)
from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.models import classes
from optimum_fixedshape.processors.combined import parts_of
from optimum_fixedshape.tasks import find_task

from . import zoo
from .equality import assert_same
from .test_zoo_pipelines import LABELS, PICTURES, WORDS, tone

COMBINED = ("clip", "siglip", "blip", "clap", "layoutlmv3", "wav2vec2")
CALLS = {
    "clap": {"text": LABELS, "audio": [np.tile(tone(2000), 4), tone(3000, 1), tone(8000, 2)], "padding": True},
    "layoutlmv3": {
        "images": PICTURES[0],
        "text": "How much?",
        "text_pair": [word for word, _ in WORDS],
        "boxes": [box for _, box in WORDS],
    },
    "wav2vec2": {"audio": [tone(700), tone(500)], "sampling_rate": 1000},
}


def call_of(name):
    return CALLS.get(name, {"text": LABELS, "images": PICTURES[:3], "padding": True})


@pytest.mark.parametrize("name", COMBINED)
@pytest.mark.parametrize("load", [AutoProcessor.from_model, AutoProcessor.from_pretrained], ids=["model", "pretrained"])
def test_what_they_make_goes_into_the_model(specimen, name, load):
    pair = specimen(name)
    processor = load(pair.folder)
    plain = zoo.processor(name)
    assert isinstance(processor, type(plain))
    model = getattr(classes, find_task(pair.task).model).from_pretrained(pair.folder)
    made = processor(**call_of(name), return_tensors="pt")
    for array in made.values():
        assert isinstance(array, torch.Tensor)
    ours = model(**made)
    with torch.no_grad():
        theirs = pair.original(**{key: value for key, value in made.items() if key in model.contract.input_names})
    for key in ours:
        assert_same(ours[key], theirs[key], tolerance=1e-3, where=key)


@pytest.mark.parametrize("name", COMBINED)
def test_copies_and_files_are_like_the_original(specimen, name, tmp_path):
    processor = AutoProcessor.from_model(specimen(name).folder)
    expected = dict(processor(**call_of(name), return_tensors="np"))
    for again in (copy.deepcopy(processor), pickle.loads(pickle.dumps(processor))):
        assert_same(dict(again(**call_of(name), return_tensors="np")), expected, tolerance=0.0)
    processor.save_pretrained(tmp_path)
    saved = type(zoo.processor(name)).from_pretrained(tmp_path)
    assert {kind: type(part) for kind, part in parts_of(saved).items()} == {
        kind: type(part) for kind, part in parts_of(zoo.processor(name)).items()
    }


@pytest.mark.parametrize("name", ["clip", "clap"])
def test_feeds_hold_every_pair(specimen, name):
    pair = specimen(name)
    session = onnxruntime.InferenceSession(str(pair.folder / "model.onnx"))
    processor = AutoProcessor.from_model(session, processor=zoo.processor(name))
    model = getattr(classes, find_task(pair.task).model).from_pretrained(pair.folder)
    expected = model(**processor(**call_of(name), return_tensors="np")).logits_per_text
    scores = np.full_like(expected, np.nan)
    for feed in processor.feeds(**call_of(name)):
        texts, items = feed.spans["text_batch_size"], next(v for k, v in feed.spans.items() if k != "text_batch_size")
        block = session.run(["logits_per_text"], feed.arrays)[0]
        scores[texts, items] = block[: texts.stop - texts.start, : items.stop - items.start]
    assert_same(scores, expected, tolerance=1e-4)


SINGLE = {
    "vit": AutoImageProcessor,
    "detr": AutoImageProcessor,
    "ast": AutoFeatureExtractor,
    "wav2vec2-classes": AutoFeatureExtractor,
    "videomae": AutoVideoProcessor,
    "layoutlm": AutoTokenizer,
}


@pytest.mark.parametrize("name", SINGLE)
def test_graphs_of_one_kind_get_its_processor(specimen, name, tmp_path):
    folder, plain = specimen(name).folder, zoo.processor(name)
    for fixed in (
        AutoProcessor.from_model(folder),
        SINGLE[name].from_model(folder),
        SINGLE[name].from_pretrained(folder),
        AutoProcessor.from_model(folder / "model.onnx", processor=plain),
        AutoProcessor.from_model(onnxruntime.InferenceSession(str(folder / "model.onnx"))),
    ):
        assert isinstance(fixed, type(plain))
        assert fixed.ladder.largest.input_names
        assert type(fixed.plain()) is type(plain)
        fixed.save_pretrained(tmp_path)
        assert type(type(plain).from_pretrained(tmp_path)) is type(plain)


def test_what_is_missing_is_named(specimen, tmp_path):
    graph = specimen("clip").folder / "model.onnx"
    bare = tmp_path / "model.onnx"
    bare.write_bytes(graph.read_bytes())
    with pytest.raises(ProcessorError, match="combines tokenizer and image_processor, such as CLIPProcessor"):
        AutoProcessor.from_model(bare)
    with pytest.raises(ProcessorError, match="combines tokenizer and image_processor"):
        AutoProcessor.from_model(bare, processor=zoo.processor("vit"))
    with pytest.raises(ProcessorError, match="No processor could be loaded from"):
        AutoProcessor.from_model(bare, processor=tmp_path)
    with pytest.raises(ProcessorError, match=r"A processor of transformers is needed, got int\."):
        pipeline("zero-shot-image-classification", model=specimen("clip").folder, processor=3)
    for auto, kind in ((AutoImageProcessor, "image_processor"), (AutoFeatureExtractor, "feature_extractor")):
        with pytest.raises(ProcessorError, match="of transformers is needed, got dict"):
            auto.from_model(
                specimen("vit").folder if auto is AutoImageProcessor else specimen("ast").folder, **{kind: {}}
            )
