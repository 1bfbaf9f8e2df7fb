"""Images from anywhere: upright, in RGB or grey, or an error that names them."""

from __future__ import annotations

import functools
import http.server
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import PIL.Image
import pytest
import torch

from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InvalidInputError, ProcessorError
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.processors.image import fix_image_processor
from optimum_fixedshape.processors.images import load_images

from .pictures import IMAGE, ladder, picture, processor


def pixels_of(image, channels=3):
    (loaded,) = load_images(image, channels)
    return np.asarray(loaded)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "CMYK", "1", "YCbCr"])
def test_any_mode_of_pillow_is_rgb(mode):
    image = picture(20, 10, mode)
    assert np.array_equal(pixels_of(image), np.asarray(image.convert("RGB")))
    assert np.array_equal(pixels_of(image, 1)[..., 0], np.asarray(image.convert("RGB").convert("L")))


def test_sixteen_bits_keep_their_upper_eight():
    deep = PIL.Image.fromarray((np.arange(200, dtype=np.uint16) * 327).reshape(10, 20))
    assert np.array_equal(pixels_of(deep)[..., 0], np.asarray(deep) >> 8)


def test_wide_integers_that_hold_eight_bits_stay_as_they_are():
    grey = np.asarray(picture(20, 10, "L"))
    assert np.array_equal(pixels_of(PIL.Image.fromarray(grey.astype(np.int32)))[..., 0], grey)


def test_photos_are_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # taken with the camera on its side
    picture(30, 20).save(tmp_path / "turned.png", exif=exif)
    expected = np.rot90(np.asarray(picture(30, 20)), -1)
    for image in (tmp_path / "turned.png", str(tmp_path / "turned.png"), PIL.Image.open(tmp_path / "turned.png")):
        assert np.array_equal(pixels_of(image), expected)


def test_urls(tmp_path):
    picture(30, 20).save(tmp_path / "picture.png")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        assert np.array_equal(pixels_of(address + "picture.png"), np.asarray(picture(30, 20)))
        with pytest.raises(InvalidInputError, match=r"nothing\.png"):
            load_images(address + "nothing.png", 3)
        server.shutdown()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_arrays_of_any_layout(as_tensor):
    rgb = np.asarray(picture(20, 10))
    make = torch.from_numpy if as_tensor else np.asarray
    alpha = np.concatenate([rgb, rgb[..., :1]], -1)
    assert np.array_equal(pixels_of(make(rgb.copy())), rgb)
    assert np.array_equal(pixels_of(make(rgb.transpose(2, 0, 1).copy())), rgb.transpose(2, 0, 1))
    assert np.array_equal(pixels_of(make(alpha)), rgb)
    assert np.array_equal(pixels_of(make(rgb[..., 0].copy())), np.repeat(rgb[..., :1], 3, -1))
    assert pixels_of(make(rgb.copy()), 1).shape == (10, 20, 1)
    assert len(load_images(make(np.stack([rgb, rgb])), 3)) == 2


BAD = {
    "no pixels": (PIL.Image.new("RGB", (0, 3)), "it has no pixels"),
    "an empty array": (np.zeros((0, 4, 3)), r"shape \(0, 4, 3\)"),
    "a row of numbers": (np.zeros(4), r"shape \(4,\)"),
    "not a number": (np.full((4, 4, 3), np.nan), "NaN or infinite"),
    "a number": (3, "neither a path, a URL, a PIL image nor an array"),
    "text": ("nowhere.png", r"nowhere\.png"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_image(what):
    image, message = BAD[what]
    with pytest.raises(InvalidInputError, match=message):
        load_images(image, 3)
    with pytest.raises(InvalidInputError, match=message):
        load_images([picture(), image], 3)


def test_a_truncated_file_is_named(tmp_path):
    picture(64, 64).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:700])
    with pytest.raises(InvalidInputError, match=r"half\.jpg"):
        load_images(tmp_path / "half.jpg", 3)


def graph(*inputs):
    sizes = {"batch_size": 1, "num_channels": 3, "height": 32, "width": 48}
    specs = [
        TensorSpec(name, "float32", tuple(Axis(sizes.get(role, 4), role=role) for role in roles))
        for name, roles in inputs
    ]
    return ShapeLadder((ShapeContract(tuple(specs), ()),))


def test_graphs_of_no_image_or_of_two():
    plain = processor("ViTImageProcessor")
    with pytest.raises(ProcessorError, match=r"several images: left: float32\[1, 3, 32, 48\], right: .* roles="):
        fix_image_processor(plain, graph(("left", IMAGE), ("right", IMAGE)))
    with pytest.raises(ProcessorError, match=r"no image: x: float32\[1, 4\]"):
        fix_image_processor(plain, graph(("x", ("batch_size", None))))


@pytest.mark.parametrize("tensors", [None, "np", "pt"])
def test_what_comes_back(tensors):
    made = fix_image_processor(processor("ViTImageProcessor"), ladder(32, 48))(
        [picture(), picture(9, 9)], return_tensors=tensors
    )
    kind = {None: list, "np": np.ndarray, "pt": torch.Tensor}[tensors]
    assert isinstance(made["pixel_values"], kind)
    assert [tuple(row.shape) for row in made["pixel_values"]] == [(3, 32, 48)] * 2


def test_threads_share_a_processor():
    fixed = fix_image_processor(
        processor("DetrImageProcessor", size={"shortest_edge": 40, "longest_edge": 64}), ladder(64, 64, has_mask=True)
    )
    images = [picture(20 + i, 60 - i) for i in range(24)]
    expected = [fixed(image, return_tensors="np")["pixel_values"] for image in images]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda image: fixed(image, return_tensors="np")["pixel_values"], images))
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))
