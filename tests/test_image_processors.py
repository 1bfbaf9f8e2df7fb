"""Image processors that know the graph give what the plain ones give when told the graph's size by hand."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

from optimum_fixedshape.errors import InvalidInputError, ProcessorError, ShapeMismatchError
from optimum_fixedshape.processors.image import fix_image_processor

from .pictures import CHANNELS_LAST, ladder, patches, picture, processor


def edges(height: int, width: int) -> dict[str, int]:
    return {"height": height, "width": width}


@pytest.mark.parametrize("name", ["ViTImageProcessor", "SegformerImageProcessor", "SiglipImageProcessor"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK", "RGBA", "1"])
@pytest.mark.parametrize("size", [(60, 40), (1, 1), (400, 3)])
def test_resizes_as_when_told_by_hand(name: str, mode: str, size: tuple[int, int]) -> None:
    image = picture(*size, mode)
    fixed = fix_image_processor(processor(name), ladder(32, 48))
    by_hand = processor(name, size=edges(32, 48))
    expected = by_hand(image.convert("RGB"), input_data_format="channels_last", return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(fixed(image, return_tensors="np")["pixel_values"], expected)


@pytest.mark.parametrize("name", ["BitImageProcessor", "CLIPImageProcessor", "MobileNetV2ImageProcessor"])
@pytest.mark.parametrize("size", [(60, 40), (400, 30)])
def test_crops_as_when_told_by_hand(name: str, size: tuple[int, int]) -> None:
    sizes = {"size": {"shortest_edge": 256}, "crop_size": edges(224, 224)}
    fixed = fix_image_processor(processor(name, **sizes), ladder(112, 56))
    by_hand = processor(name, size={"shortest_edge": 128}, crop_size=edges(112, 56))
    expected = by_hand(picture(*size), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(fixed(picture(*size), return_tensors="np")["pixel_values"], expected)


def test_convnext_of_a_square_graph() -> None:
    fixed = fix_image_processor(processor("ConvNextImageProcessor", size={"shortest_edge": 384}), ladder(64, 64))
    expected = processor("ConvNextImageProcessor", size={"shortest_edge": 64})(picture(), return_tensors="np")
    np.testing.assert_array_equal(fixed(picture(), return_tensors="np")["pixel_values"], expected["pixel_values"])


def test_convnext_of_a_graph_that_is_not_square() -> None:
    fixed = fix_image_processor(processor("ConvNextImageProcessor"), ladder(64, 96))
    made = fixed(picture(), return_tensors="np")["pixel_values"]
    assert made.shape == (1, 3, 64, 96)
    told = fixed(picture(), return_tensors="np", do_normalize=True)  # an argument: the way of transformers
    np.testing.assert_array_equal(told["pixel_values"], made)


def test_crop_in_the_proportions_that_the_processor_has() -> None:
    plain = processor("DeiTImageProcessor", size=edges(30, 27), crop_size=edges(24, 24))
    fixed: Any = fix_image_processor(plain, ladder(48, 36))
    assert (dict(fixed.size), dict(fixed.crop_size)) == (edges(60, 40), edges(48, 36))
    assert fixed(picture(), return_tensors="np")["pixel_values"].shape == (1, 3, 48, 36)


def test_size_that_is_a_number() -> None:
    plain = processor("CLIPImageProcessor", size={"shortest_edge": 29})
    plain.crop_size = 24  # as old classes keep it
    fixed: Any = fix_image_processor(plain, ladder(48, 48))
    expected = processor("CLIPImageProcessor", size={"shortest_edge": 58}, crop_size=edges(48, 48))
    made = fixed(picture(), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(made, expected(picture(), return_tensors="np")["pixel_values"])


def test_processor_that_knows_no_size() -> None:
    plain = processor("GLPNImageProcessor")
    made = fix_image_processor(plain, ladder(64, 96))(picture(70, 40), return_tensors="np")["pixel_values"]
    expected = plain(picture(70, 40), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(made[..., : expected.shape[-2], : expected.shape[-1]], expected)
    assert made.shape == (1, 3, 64, 96)
    as_they_are = fix_image_processor(processor("GLPNImageProcessor", do_resize=False), ladder(64, 96))
    assert as_they_are(picture(96, 64), return_tensors="np")["pixel_values"].shape == (1, 3, 64, 96)


@pytest.mark.parametrize("has_mask", [True, False])
@pytest.mark.parametrize("size", [(60, 40), (30, 90), (300, 20)])
def test_detr_is_letterboxed(has_mask: bool, size: tuple[int, int]) -> None:
    plain = processor("DetrImageProcessor", size={"shortest_edge": 40, "longest_edge": 64})
    fixed = fix_image_processor(plain, ladder(64, 64, has_mask=has_mask))
    expected = plain(picture(*size), return_tensors="np")["pixel_values"]
    made = fixed(picture(*size), return_tensors="np")
    height, width = expected.shape[-2:]
    np.testing.assert_array_equal(made["pixel_values"][..., :height, :width], expected)
    assert made["pixel_values"].shape == (1, 3, 64, 64)
    assert not made["pixel_values"][..., height:, :].any()
    assert not made["pixel_values"][..., width:].any()
    assert ("pixel_mask" in made) == has_mask
    if has_mask:
        assert made["pixel_mask"].sum() == height * width


@pytest.mark.parametrize("name", ["DetrImageProcessor", "YolosImageProcessor", "DPTImageProcessor"])
@pytest.mark.parametrize("size", [(60, 40), (30, 90), (300, 20)])
def test_any_proportions_fit(name: str, size: tuple[int, int]) -> None:
    settings = {"keep_aspect_ratio": True, "ensure_multiple_of": 8} if name.startswith("DPT") else {}
    fixed = fix_image_processor(processor(name, **settings), ladder(64, 96))
    assert fixed([picture(*size), picture()], return_tensors="np")["pixel_values"].shape == (2, 3, 64, 96)
    assert [row.shape for row in fixed(picture(*size))["pixel_values"]] == [(3, 64, 96)]


def test_processor_that_is_told_its_shortest_edge_alone() -> None:
    plain = processor("ViltImageProcessor")
    made = fix_image_processor(plain, ladder(64, 96))(picture(), return_tensors="np")["pixel_values"]
    expected = plain(picture(), size={"shortest_edge": 64}, return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_layout_type_and_name_are_the_graphs(dtype: str) -> None:
    graph = ladder(32, 48, dtype=dtype, name="data_0", roles=CHANNELS_LAST)
    fixed = fix_image_processor(processor("ViTImageProcessor"), graph)
    bytes_only = {"do_rescale": False, "do_normalize": False} if dtype == "uint8" else {}
    by_hand = processor("ViTImageProcessor", size=edges(32, 48), **bytes_only)
    expected = by_hand(picture(), return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1).astype(dtype)
    made = fixed(picture(), return_tensors="np")
    assert list(made) == ["data_0"]
    assert made["data_0"].dtype == dtype
    np.testing.assert_array_equal(made["data_0"], expected)


def test_grey_graph() -> None:
    fixed = fix_image_processor(processor("ViTImageProcessor"), ladder(32, 48, channels=1))
    assert fixed(picture(), return_tensors="np")["pixel_values"].shape == (1, 1, 32, 48)


def test_feeds_are_exact() -> None:
    fixed = fix_image_processor(processor("ViTImageProcessor"), ladder(32, 48))
    feeds = list(fixed.feeds(picture(20 + i, 30) for i in range(5)))
    assert [feed.rows for feed in feeds] == [2, 2, 1]
    assert {feed.arrays["pixel_values"].shape for feed in feeds} == {(2, 3, 32, 48)}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it)), lambda it: it])
def test_copies_and_the_plain_one(copied: Any, tmp_path: Any) -> None:
    plain = processor("ViTImageProcessor")
    before = plain.to_dict()
    fixed = copied(fix_image_processor(plain, ladder(32, 48)))
    assert fixed(picture(), return_tensors="np")["pixel_values"].shape == (1, 3, 32, 48)
    fixed.save_pretrained(tmp_path)
    assert type(plain).from_pretrained(tmp_path).to_dict() == before == plain.to_dict() == fixed.plain().to_dict()


def test_config_of_the_plain_one() -> None:
    plain = processor("ViTImageProcessor")
    fixed: Any = fix_image_processor(plain, ladder(32, 48))
    assert fixed.to_dict() == plain.to_dict()
    assert fixed.to_json_string() == plain.to_json_string()


@pytest.mark.parametrize("edge", [20, 100])
def test_image_of_another_size_without_resizing(edge: int) -> None:
    fixed = fix_image_processor(processor("ViTImageProcessor", do_resize=False), ladder(32, 48))
    with pytest.raises(ShapeMismatchError):
        fixed(picture(edge, edge), return_tensors="np")


@pytest.mark.parametrize("edge", [20, 100])
def test_size_of_the_call_contradicts_the_graph(edge: int) -> None:
    fixed = fix_image_processor(processor("ViTImageProcessor"), ladder(32, 48))
    with pytest.raises(ShapeMismatchError):
        fixed(picture(), size=edges(edge, edge), return_tensors="np")


def test_size_of_the_call_is_larger_than_the_canvas() -> None:
    fixed = fix_image_processor(processor("DetrImageProcessor"), ladder(64, 96))
    with pytest.raises(ShapeMismatchError):
        fixed(picture(), size={"shortest_edge": 70, "longest_edge": 200}, return_tensors="np")


def test_no_images() -> None:
    with pytest.raises(ProcessorError, match="There are no images to process"):
        fix_image_processor(processor("ViTImageProcessor"), ladder(32, 48))([], return_tensors="np")


def test_not_an_image_processor() -> None:
    with pytest.raises(ProcessorError):
        fix_image_processor("ViT", ladder(32, 48))


PATCHES = [
    ("Siglip2ImageProcessor", "max_num_patches", "pixel_values", 768),
    ("Pix2StructImageProcessor", "max_patches", "flattened_patches", 770),
]


@pytest.mark.parametrize(("name", "setting", "taken", "values"), PATCHES)
def test_patches_are_counted_as_when_told_by_hand(
    name: str, setting: str, taken: str, values: int, tmp_path: Any
) -> None:
    plain = processor(name)
    fixed: Any = fix_image_processor(plain, patches(taken, 64, values))
    expected = processor(name, **{setting: 64})(picture(), return_tensors="np")
    picture().save(tmp_path / "picture.png")
    for image in (picture(), tmp_path / "picture.png"):
        made = fixed(image, return_tensors="np")
        assert made[taken].shape == (1, 64, values)
        for key, value in expected.items():
            np.testing.assert_array_equal(made[key], value)
    (feed,) = fixed.feeds(picture())
    np.testing.assert_array_equal(feed.arrays[taken], expected[taken])
    assert getattr(fixed.plain(), setting) == getattr(plain, setting) != 64
    with pytest.raises(InvalidInputError, match=r"nowhere\.png"):
        fixed("nowhere.png")
