"""What a model says of a padded image is told of the image itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import DepthEstimatorOutput, SemanticSegmenterOutput
from transformers.models.detr.modeling_detr import DetrObjectDetectionOutput
from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

from optimum_fixedshape.processors.image import fix_image_processor

from . import zoo
from .equality import assert_same
from .pictures import ladder, picture

HEIGHT, WIDTH = 64, 96
SIZES = [(60, 40), (30, 90), (64, 64), (400, 300), (7, 5)]  # width, height
KEEPS = {"size": {"shortest_edge": 48, "longest_edge": 96}}


def fixed(name, *, has_mask=False, **settings):
    return fix_image_processor(zoo.image_processor(name, **settings), ladder(HEIGHT, WIDTH, has_mask=has_mask))


def content_of(processor, size):
    """The part of the canvas that a white image covers."""
    white = np.full((size[1], size[0], 3), 255, np.uint8)
    pixels = processor(white, return_tensors="np")["pixel_values"][0]
    shown = (pixels != 0).any(0)
    return shown.any(1).sum(), shown.any(0).sum()


def answer(boxes):
    """One query for each box, all sure that it is label 1."""
    logits = torch.full((len(boxes), 1, 3), -9.0)
    logits[..., 1] = 9.0
    return DetrObjectDetectionOutput(logits=logits, pred_boxes=torch.tensor(boxes, dtype=torch.float32)[:, None])


@pytest.mark.parametrize("is_positional", [True, False])
def test_boxes_relative_to_the_canvas_are_told_of_the_image(is_positional):
    """A box around the right half of each image: the truth is known, whatever a model without a mask was shown."""
    processor = fixed("Yolos", **KEEPS)
    boxes = []
    for size in SIZES:
        height, width = content_of(processor, size)
        boxes.append([0.75 * width / WIDTH, 0.5 * height / HEIGHT, 0.5 * width / WIDTH, height / HEIGHT])
    targets = torch.tensor([[height, width] for width, height in SIZES])
    read = processor.post_process_object_detection
    found = read(answer(boxes), 0.5, targets) if is_positional else read(outputs=answer(boxes), target_sizes=targets)
    assert len(found) == len(SIZES)
    for result, (width, height) in zip(found, SIZES, strict=True):
        assert result["labels"].tolist() == [1]
        assert_same(result["boxes"], torch.tensor([[width / 2, 0, width, height]]), tolerance=1e-3 * max(width, height))


def test_boxes_of_a_graph_with_a_mask_are_of_the_image_already():
    processor, plain = fixed("Detr", has_mask=True, **KEEPS), zoo.image_processor("Detr", **KEEPS)
    outputs = answer([[0.75, 0.5, 0.5, 1.0]] * len(SIZES))
    targets = torch.tensor([[height, width] for width, height in SIZES])
    ours = processor.post_process_object_detection(outputs, 0.5, targets)
    assert_same(ours, plain.post_process_object_detection(outputs, 0.5, targets))


@pytest.mark.parametrize("size", SIZES)
def test_detr_sees_what_it_sees_in_a_padded_batch(size):
    """Ours, and stock pixels padded to the same canvas by transformers itself, through the same PyTorch model."""
    settings = {"size": {"shortest_edge": 48, "longest_edge": 64}}
    model, image = zoo.original("detr"), picture(*size)
    ours = fixed("Detr", has_mask=True, **settings)
    theirs = zoo.image_processor("Detr", **settings, pad_size={"height": HEIGHT, "width": WIDTH})
    found = []
    for processor in (ours, theirs):
        inputs = processor(images=image, return_tensors="pt")
        assert tuple(inputs["pixel_values"].shape) == (1, 3, HEIGHT, WIDTH)
        with torch.no_grad():
            outputs = model(**inputs)
        found.append(processor.post_process_object_detection(outputs, 0.0, torch.tensor([size[::-1]])))
    assert_same(found[0], found[1])


def pattern(height, width):
    """Three vertical stripes, as wide as each other."""
    return np.broadcast_to(np.arange(width) * 3 // width, (height, width))


@pytest.mark.parametrize("size", SIZES[:4])
def test_depth_is_that_of_the_image(size):
    processor = fixed("DPT", size={"height": 48, "width": 48}, keep_aspect_ratio=True)
    height, width = content_of(processor, size)
    canvas = np.full((HEIGHT, WIDTH), 99.0, np.float32)
    canvas[:height, :width] = pattern(height, width)
    outputs = DepthEstimatorOutput(predicted_depth=torch.from_numpy(canvas)[None])
    (found,) = processor.post_process_depth_estimation(outputs, [size[::-1]])
    assert tuple(found["predicted_depth"].shape) == size[::-1]
    middle = found["predicted_depth"][size[1] // 2]
    assert [round(float(middle[int(size[0] * share)])) for share in (0.1, 0.5, 0.9)] == [0, 1, 2]
    assert float(found["predicted_depth"].max()) < 3


@pytest.mark.parametrize("size", SIZES[:4])
def test_classes_of_pixels_are_those_of_the_image(size):
    """Logits at a quarter of the canvas, as most models give them."""
    processor = fixed("DPT", size={"height": 48, "width": 48}, keep_aspect_ratio=True)
    height, width = (round(edge / 4) for edge in content_of(processor, size))
    logits = np.zeros((1, 4, HEIGHT // 4, WIDTH // 4), np.float32)
    logits[:, 3] = 1.0
    logits[0, :3, :height, :width] = np.eye(3)[pattern(height, width)].transpose(2, 0, 1) * 5
    outputs = SemanticSegmenterOutput(logits=torch.from_numpy(logits))
    (found,) = processor.post_process_semantic_segmentation(outputs, [size[::-1]])
    assert tuple(found.shape) == size[::-1]
    middle = found[size[1] // 2]
    assert [int(middle[int(size[0] * share)]) for share in (0.1, 0.5, 0.9)] == [0, 1, 2]
    assert int(found.max()) < 3


def test_what_is_resized_to_the_graph_is_left_to_transformers():
    processor, plain = fixed("Segformer"), zoo.image_processor("Segformer")
    outputs = SemanticSegmenterOutput(logits=torch.randn(2, 4, 16, 24, generator=torch.Generator().manual_seed(0)))
    for targets in (None, [(40, 60), (50, 20)]):
        ours = processor.post_process_semantic_segmentation(outputs, target_sizes=targets)
        assert_same(ours, plain.post_process_semantic_segmentation(outputs, target_sizes=targets))


def test_without_target_sizes_results_are_relative():
    processor, plain = fixed("Yolos", **KEEPS), zoo.image_processor("Yolos", **KEEPS)
    outputs = answer([[0.5, 0.5, 0.2, 0.2]])
    assert_same(processor.post_process_object_detection(outputs), plain.post_process_object_detection(outputs))


def test_outputs_with_fields_of_a_pipeline():
    processor, targets = fixed("Yolos", **KEEPS), torch.tensor([[40, 60]])
    outputs = answer([[0.5, 0.5, 0.2, 0.2]])
    added = type(outputs)({"target_size": targets, **outputs})
    expected = processor.post_process_object_detection(outputs, 0.5, targets)
    assert_same(processor.post_process_object_detection(added, 0.5, targets), expected)


@pytest.mark.parametrize("count", [1, 3])
def test_as_many_sizes_as_images(count):
    with pytest.raises(ValueError, match="as many target sizes"):
        fixed("Yolos", **KEEPS).post_process_object_detection(answer([[0.5] * 4] * 2), 0.5, [(40, 60)] * count)


@pytest.mark.parametrize("what", ["instance", "panoptic", "semantic"])
def test_masks_are_those_of_the_image(what):
    """Three queries, one for each stripe of the image, and padding that all of them claim."""
    processor = fixed("Mask2Former", **KEEPS)
    sizes = SIZES[:4]
    masks = torch.full((len(sizes), 3, HEIGHT, WIDTH), 9.0)
    for mask, size in zip(masks, sizes, strict=True):
        height, width = content_of(processor, size)
        stripes = torch.from_numpy(np.eye(3, dtype=np.float32)[pattern(height, width)])
        mask[:, :height, :width] = stripes.permute(2, 0, 1) * 18 - 9
    classes = (torch.eye(3, 4) * 30 - 15).expand(len(sizes), 3, 4)
    outputs = Mask2FormerForUniversalSegmentationOutput(class_queries_logits=classes, masks_queries_logits=masks)
    read = getattr(processor, f"post_process_{what}_segmentation")
    found = read(outputs, target_sizes=[size[::-1] for size in sizes])
    assert len(found) == len(sizes)
    for result, (width, height) in zip(found, sizes, strict=True):
        labelled = labels_of(result)
        assert tuple(labelled.shape) == (height, width)
        middle = labelled[height // 2]
        assert [int(middle[int(width * share)]) for share in (0.1, 0.5, 0.9)] == [0, 1, 2]
        assert int(labelled[-1, -1]) == 2


def labels_of(result):
    if isinstance(result, torch.Tensor):
        return result
    labelled = torch.full(result["segmentation"].shape, -1)
    for segment in result["segments_info"]:
        labelled[result["segmentation"] == segment["id"]] = segment["label_id"]
    return labelled
