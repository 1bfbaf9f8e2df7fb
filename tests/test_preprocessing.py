"""Rescaling and normalizing inside the graph: the same answers, from bytes, with stock processors as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from optimum_fixedshape import AutoImageProcessor, export_model, pipeline
from optimum_fixedshape.errors import InvalidArgumentError, InvalidModelError, ProcessorError
from optimum_fixedshape.graph.preprocessing import take_bytes
from optimum_fixedshape.graph.reader import read_contract

from . import tiny, zoo
from .equality import assert_same
from .pictures import picture, processor


def exported(folder: Path, **settings: Any) -> tuple[Any, Any]:
    model = zoo.original("vit")
    side = model.config.image_size
    plain = processor("ViTImageProcessor", size={"height": side, "width": side}, **settings)
    export_model(model, folder, processor=plain, preprocess_in_graph=True, progress=False)
    return model, plain


def test_answers_from_bytes_are_the_originals(tmp_path: Path) -> None:
    model, plain = exported(tmp_path, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4])
    (spec,) = read_contract(tmp_path / "model.onnx").inputs
    assert (spec.name, spec.dtype) == ("pixel_values", "uint8")
    images = [picture(60, 40), picture(33, 80), picture(5, 5)]
    theirs = transformers.pipeline("image-classification", model=model, image_processor=plain)
    ours = pipeline("image-classification", model=str(tmp_path))
    with torch.no_grad():
        assert_same(ours(images), [theirs(image) for image in images])


def test_the_saved_processor_gives_bytes_in_transformers_too(tmp_path: Path) -> None:
    _, plain = exported(tmp_path)
    stock = type(plain).from_pretrained(tmp_path)
    fixed = AutoImageProcessor.from_model(pipeline("image-classification", model=str(tmp_path)).model)
    bytes_of_stock = stock(picture(), return_tensors="np")["pixel_values"]
    assert bytes_of_stock.dtype == np.uint8
    np.testing.assert_array_equal(fixed(picture(), return_tensors="np")["pixel_values"], bytes_of_stock)


def test_models_without_images_say_so(tmp_path: Path) -> None:
    model = tiny.original("bert", "text-classification")
    with pytest.raises(InvalidArgumentError, match="is for models of images, and this one takes input_ids"):
        export_model(model, tmp_path, preprocess_in_graph=True, progress=False)


@pytest.mark.parametrize("settings", [None, {"do_rescale": False, "do_normalize": False}])
def test_processors_that_do_neither_say_so(tmp_path: Path, settings: Any) -> None:
    plain = None if settings is None else processor("ViTImageProcessor", **settings)
    with pytest.raises(ProcessorError, match="needs an image processor that rescales or normalizes"):
        export_model(zoo.original("vit"), tmp_path, processor=plain, preprocess_in_graph=True, progress=False)


def test_graphs_without_the_input_say_so(specimen: Any) -> None:
    import onnx

    model = onnx.load(specimen("vit").folder / "model.onnx", load_external_data=False)
    with pytest.raises(InvalidModelError, match="pixels is no input"):
        take_bytes(model, "pixels", factors=[1.0] * 3, terms=[0.0] * 3)
