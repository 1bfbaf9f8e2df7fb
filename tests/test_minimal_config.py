"""What a graph that came alone tells of its configuration, by the kind of graph."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape import write_config

from .onnx_models import build, value

IDS = ("input_ids", TensorProto.INT64, [1, 8])
MASK = ("attention_mask", TensorProto.INT64, [1, 8])
PIXELS = ("pixel_values", TensorProto.FLOAT, [1, 3, 16, 24])
CLIP = ("pixel_values", TensorProto.FLOAT, [1, 4, 3, 16, 16])
MEL = ("input_features", TensorProto.FLOAT, [1, 1, 100, 64])
LLAMA = {"model_type": "llama", "max_position_embeddings": 512, "vocab_size": 40}
SCORES = {"num_labels": 5, "problem_type": "single_label_classification"}
TEXT = {"max_position_embeddings": 512}


def write(folder, inputs, outputs, last="Identity"):
    """Writes a graph that gives the same zeros for whatever it takes."""
    zeros = {f"zeros_of_{name}": np.zeros(shape, np.float32) for name, shape in outputs.items()}
    nodes = [helper.make_node(last, [f"zeros_of_{name}"], [name]) for name in outputs]
    given = [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    onnx.save(build(nodes, [value(*each) for each in inputs], given, zeros), folder / "graph.onnx")
    return folder / "graph.onnx"


@pytest.mark.parametrize(
    ("task", "inputs", "outputs", "expected"),
    [
        (
            "semantic-segmentation",
            [PIXELS],
            {"logits": [1, 5, 4, 6]},
            {"model_type": "segformer", "image_size": [16, 24], "num_channels": 3, "num_labels": 5},
        ),
        (
            "video-classification",
            [CLIP],
            {"logits": [1, 5]},
            {"model_type": "videomae", "image_size": 16, "num_channels": 3, "num_frames": 4} | SCORES,
        ),
        (
            "zero-shot-image-classification",
            [IDS, PIXELS, MASK],
            {"logits_per_image": [1, 1]},
            {"model_type": "clip", "text_config": TEXT, "vision_config": {"image_size": [16, 24], "num_channels": 3}},
        ),
        (
            "zero-shot-audio-classification",
            [IDS, MEL, MASK],
            {"logits_per_audio": [1, 1]},
            {"model_type": "clap", "text_config": TEXT},
        ),
        ("text-generation", [IDS, MASK], {"logits": [1, 8, 40]}, LLAMA),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_the_graph_tells(tmp_path, task, inputs, outputs, expected):
    with pytest.warns(UserWarning, match="does not tell what its|using the usual|ImageNet"):
        folder = write_config(write(tmp_path, inputs, outputs), task=task)
    assert json.loads((folder / "config.json").read_text()) == expected
    assert transformers.AutoConfig.from_pretrained(folder).model_type == expected["model_type"]


def test_scores_of_a_sigmoid_are_of_labels_that_exclude_none(tmp_path):
    graph = write(tmp_path, [MEL], {"logits": [1, 5]}, last="Sigmoid")
    with pytest.warns(UserWarning, match="does not tell what its feature extractor is"):
        folder = write_config(graph, task="audio-classification")
    facts = json.loads((folder / "config.json").read_text())
    assert facts == {
        "model_type": "audio-spectrogram-transformer",
        "num_mel_bins": 64,
        "max_length": 100,
        "num_labels": 5,
        "problem_type": "multi_label_classification",
    }


@pytest.mark.parametrize(
    ("heads", "told"),
    [
        (2, {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4, "hidden_size": 8}),
        ("heads", {}),
    ],
)
def test_a_cache_tells_layers_and_heads(tmp_path, heads, told):
    names = ("past_key_values.0.key", "past_key_values.0.value")
    inputs = [IDS, ("attention_mask", TensorProto.INT64, [1, 20])]
    inputs += [(name, TensorProto.FLOAT, [1, heads, 12, 4]) for name in names]
    outputs = {"logits": [1, 8, 40], "present.0.key": [1, 2, 20, 4], "present.0.value": [1, 2, 20, 4]}
    with pytest.warns(UserWarning, match="does not tell what its tokenizer is"):
        folder = write_config(write(tmp_path, inputs, outputs), task="text-generation")
    assert json.loads((folder / "config.json").read_text()) == LLAMA | {"num_hidden_layers": 1} | told
