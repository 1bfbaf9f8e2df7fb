"""Rescaling and normalizing taken from an image processor into the graphs that it prepares images for."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import onnx
import torch

from optimum_fixedshape.errors import InvalidArgumentError, ProcessorError
from optimum_fixedshape.graph.preprocessing import take_bytes
from optimum_fixedshape.processors.combined import parts_of
from optimum_fixedshape.processors.image_sizes import keeps_proportions
from optimum_fixedshape.processors.lean_images import values_of

_INPUT = "pixel_values"
_CHANNELS = 3


@dataclass(frozen=True)
class PixelsInGraph:
    """What graphs do to each byte of an image themselves.

    Attributes:
        factors: What it is multiplied with, for each channel.
        terms: What is added then, likewise.
    """

    factors: tuple[float, ...]
    terms: tuple[float, ...]

    def put_into(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Returns the model with an input of bytes."""
        return take_bytes(model, _INPUT, factors=self.factors, terms=self.terms)

    def split(self, example: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Returns inputs for the original, whose images are such as bytes can say, and the same for the graph."""
        factors, terms = (torch.tensor(each).reshape(1, -1, 1, 1) for each in (self.factors, self.terms))
        numbers = ((example[_INPUT] - terms) / factors).round().clamp(0, 255)
        return {**example, _INPUT: numbers * factors + terms}, {**example, _INPUT: numbers.to(torch.uint8)}


def pixels_of(processor: Any, inputs: Any) -> PixelsInGraph:
    """Returns what a processor does to each byte.

    Args:
        processor: An image processor, or a combination with one.
        inputs: The names of the graph's inputs.

    Raises:
        InvalidArgumentError: The model takes no images.
        ProcessorError: There is no image processor, it does neither, or something else besides.
    """
    if _INPUT not in inputs:
        raise InvalidArgumentError(
            f"preprocess_in_graph= is for models of images, and this one takes {', '.join(inputs)}. Leave it out."
        )
    plain = parts_of(processor).get("image_processor") if processor is not None else None
    values = None if plain is None else values_of(plain, type(plain), _CHANNELS)
    if values is None or (values.factor, values.mean) == (None, None) or keeps_proportions(plain):
        given = "nothing" if plain is None else type(plain).__name__
        raise ProcessorError(
            "preprocess_in_graph= needs an image processor that rescales or normalizes, pads nothing, and does no more "
            f"to a pixel, got {given}. Pass processor=, or leave preprocess_in_graph= out.",
            expected="an image processor",
            given=given,
        )
    return PixelsInGraph(*values.affine(_CHANNELS))


def giving_bytes(processor: Any) -> Any:
    """Returns a copy of a processor that leaves rescaling and normalizing to the graph, in transformers as well."""
    twin = copy.deepcopy(processor)
    image_processor = parts_of(twin)["image_processor"]
    image_processor.do_rescale = image_processor.do_normalize = False
    return twin
