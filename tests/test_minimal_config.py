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
TEXT = {"max_position_embeddings": 512}


def write(folder, inputs, outputs, last="Identity"):
    """Writes a graph that gives the same zeros for whatever it takes."""
    zeros = {f"zeros_of_{name}": np.zeros(shape, np.float32) for name, shape in outputs.items()}
    nodes = [helper.make_node(last, [f"zeros_of_{name}"], [name]) for name in outputs]
    given = [value(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    onnx.save(build(nodes, [value(*each) for each in inputs], given, zeros), folder / "graph.onnx")
    return folder / "graph.onnx"


def past(*shape):
    return [(f"past_key_values.0.{kind}", TensorProto.FLOAT, list(shape)) for kind in ("key", "value")]


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
            {"model_type": "videomae", "image_size": 16, "num_channels": 3, "num_frames": 4, "num_labels": 5},
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
    with pytest.warns(UserWarning):  # of processors that nobody knows, or of the usual ones
        folder = write_config(write(tmp_path, inputs, outputs), task=task)
    assert json.loads((folder / "config.json").read_text()) == expected
    assert transformers.AutoConfig.from_pretrained(folder).model_type == expected["model_type"]
