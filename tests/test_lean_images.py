"""Pixels made in the fewest passes are the plain processor's, to the last bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from optimum_fixedshape.processors.image import fix_image_processor
from optimum_fixedshape.processors.images import load_images

from .pictures import CHANNELS_LAST, ladder, picture, processor

SIDE = 24
EXACT = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": 29}, "crop_size": {"height": SIDE, "width": SIDE}}
PROCESSORS = {
    "BeitImageProcessor": EXACT | {"do_center_crop": False},
    "BitImageProcessor": CROPPED,
    "BlipImageProcessor": EXACT,
    "CLIPImageProcessor": CROPPED,
    "ConvNextImageProcessor": {"size": {"shortest_edge": SIDE}},
    "DeiTImageProcessor": {"size": {"height": 30, "width": 27}, "crop_size": {"height": SIDE, "width": SIDE}},
    "LevitImageProcessor": {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}},
    "MobileNetV1ImageProcessor": CROPPED,
    "MobileNetV2ImageProcessor": CROPPED,
    "PvtImageProcessor": EXACT,
    "SegformerImageProcessor": EXACT,
    "SiglipImageProcessor": EXACT,
    "ViTImageProcessor": EXACT,
}
SIZES = [(1, 1), (7, 5), (60, 40), (24, 24), (3, 90), (201, 33)]
VALUES: list[dict[str, Any]] = [
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": 0.4, "image_std": 0.7},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]},
    {"resample": 0},
    {"resample": 1},
]


def lean_and_plain(plain: Any, images: list[Any], graph: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the lean path, which must have been taken, and those of transformers' own processor."""
    fixed: Any = fix_image_processor(plain, graph)
    lean = fixed.lean_rows(load_images(images, 3))
    assert lean is not None
    np.testing.assert_array_equal(fixed(images, return_tensors="np")[fixed.canvas.name], lean)
    upright = load_images(images, 3)
    expected = [plain(each, input_data_format="channels_last", return_tensors="np")["pixel_values"] for each in upright]
    return lean, np.concatenate(expected)


@pytest.mark.parametrize("name", PROCESSORS)
def test_every_kind_of_processor(name: str) -> None:
    images = [picture(*size) for size in SIZES if name != "ConvNextImageProcessor" or 3 not in size]
    lean, plain = lean_and_plain(processor(name, **PROCESSORS[name]), images, ladder(SIDE, SIDE))
    np.testing.assert_array_equal(lean, plain)


@pytest.mark.parametrize("values", VALUES, ids=str)
@pytest.mark.parametrize("name", ["ViTImageProcessor", "CLIPImageProcessor", "ConvNextImageProcessor"])
def test_every_value(name: str, values: dict[str, Any]) -> None:
    plain = processor(name, **PROCESSORS[name], **values)
    lean, expected = lean_and_plain(plain, [picture(60, 40), picture(31, 77)], ladder(SIDE, SIDE))
    np.testing.assert_array_equal(lean, expected)


def test_convnext_that_only_warps() -> None:
    plain = processor("ConvNextImageProcessor", size={"shortest_edge": 384})
    lean, expected = lean_and_plain(plain, [picture(60, 40)], ladder(384, 384))
    np.testing.assert_array_equal(lean, expected)


def test_levit_told_both_edges() -> None:
    plain = processor("LevitImageProcessor", **EXACT, do_center_crop=False)
    lean, expected = lean_and_plain(plain, [picture(60, 40)], ladder(SIDE, SIDE))
    np.testing.assert_array_equal(lean, expected)


def test_no_resize() -> None:
    plain = processor("ViTImageProcessor", do_resize=False)
    lean, expected = lean_and_plain(plain, [picture(SIDE, SIDE)], ladder(SIDE, SIDE))
    np.testing.assert_array_equal(lean, expected)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_every_mode(mode: str) -> None:
    image = Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50) if mode == "I;16" else None
    image = image or picture(40, 30, mode)
    plain = processor("ViTImageProcessor", **EXACT)
    lean, expected = lean_and_plain(plain, [image], ladder(SIDE, SIDE))
    np.testing.assert_array_equal(lean, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_that_are_turned(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.jpg"
    picture(60, 40).save(path, exif=exif)
    plain = processor("CLIPImageProcessor", **CROPPED)
    fixed: Any = fix_image_processor(plain, ladder(SIDE, SIDE))
    lean = fixed.lean_rows(load_images([str(path), Image.open(path)], 3))
    expected = plain(transformers.image_utils.load_image(str(path)), return_tensors="np")["pixel_values"]
    np.testing.assert_array_equal(lean, np.concatenate([expected, expected]))


def test_arrays() -> None:
    image = picture(60, 40)
    fixed: Any = fix_image_processor(processor("ViTImageProcessor", **EXACT), ladder(SIDE, SIDE))
    expected = fixed.lean_rows(load_images([image], 3))
    np.testing.assert_array_equal(fixed.lean_rows(load_images([np.asarray(image)], 3)), expected)
    assert fixed.lean_rows(load_images([np.asarray(image) / 255], 3)) is None
    assert fixed.lean_rows(load_images([np.asarray(image).transpose(2, 0, 1)], 3)) is None
    np.testing.assert_array_equal(
        fixed(np.asarray(image).transpose(2, 0, 1), return_tensors="np")["pixel_values"], expected
    )


@pytest.mark.parametrize("dtype", ["float16", "uint8", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("roles", [("batch_size", "num_channels", "height", "width"), CHANNELS_LAST])
def test_the_graphs_layout_and_type(dtype: str, channels: int, roles: tuple[str, ...]) -> None:
    graph = ladder(SIDE, SIDE, dtype=dtype, channels=channels, roles=roles)
    fixed: Any = fix_image_processor(processor("ViTImageProcessor", **EXACT), graph)
    image = picture(60, 40)
    lean = fixed.lean_rows(load_images([image], channels))
    taken = {"do_convert_rgb": False, "do_rescale": dtype != "uint8", "do_normalize": dtype != "uint8"}
    told = fixed(image, return_tensors="np", **taken)["pixel_values"]  # an argument: the way of transformers
    assert (lean.dtype, lean.shape) == (told.dtype, told.shape)
    np.testing.assert_array_equal(lean, told)


class Brighter(type(processor("ViTImageProcessor"))):  # type: ignore[misc]
    def rescale(self, image: Any, *args: Any, **kwargs: Any) -> Any:
        return super().rescale(image, *args, **kwargs) * 2


def brighter_by_hand() -> Any:
    plain = processor("ViTImageProcessor", **EXACT)
    plain.rescale = lambda image, *args, **kwargs: image * 2
    return plain


@pytest.mark.parametrize(
    "plain",
    [
        Brighter(**EXACT),
        brighter_by_hand(),
        processor("MobileViTImageProcessor", size={"shortest_edge": SIDE}, crop_size=EXACT["size"]),
        processor("DetrImageProcessor", size={"shortest_edge": SIDE, "longest_edge": SIDE}),
        processor("CLIPImageProcessor", **CROPPED | {"size": {"shortest_edge": SIDE - 4}}),
    ],
    ids=["subclass", "attribute", "another class", "letterbox", "crop beyond the image"],
)
def test_all_others_go_the_plain_way(plain: Any) -> None:
    fixed: Any = fix_image_processor(plain, ladder(SIDE, SIDE))
    assert fixed.lean_rows([picture(60, 40)]) is None
    assert fixed(picture(60, 40), return_tensors="np")["pixel_values"].shape == (1, 3, SIDE, SIDE)


def test_settings_may_change() -> None:
    fixed: Any = fix_image_processor(processor("ViTImageProcessor", **EXACT), ladder(SIDE, SIDE))
    before = fixed(picture(), return_tensors="np")["pixel_values"]
    fixed.image_mean = [0.1, 0.1, 0.1]
    after = fixed(picture(), return_tensors="np")["pixel_values"]
    np.testing.assert_allclose(after - before, 0.8, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("ViTImageProcessor", "size", {"longest_edge": SIDE}),
        ("ConvNextImageProcessor", "size", EXACT["size"]),
        ("ViTImageProcessor", "do_center_crop", True),
        ("ViTImageProcessor", "do_pad", True),
        ("ViTImageProcessor", "image_mean", None),
        ("ViTImageProcessor", "image_std", [0.5, 0.5]),
    ],
)
def test_settings_that_only_transformers_may_know(name: str, setting: str, value: Any) -> None:
    fixed: Any = fix_image_processor(processor(name, **PROCESSORS[name]), ladder(SIDE, SIDE))
    assert fixed.lean_rows([picture()]) is not None
    setattr(fixed, setting, value)
    assert fixed.lean_rows([picture()]) is None
