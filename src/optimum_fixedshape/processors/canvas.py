"""What a graph takes for an image, and the image processor of a graph that came without one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from optimum_fixedshape.errors import ProcessorError, ShapeMismatchError, warn
from optimum_fixedshape.fitting import Array
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.roles import CHANNELS, HEIGHT, WIDTH

from .image_sizes import Size

_MASK = "pixel_mask"
_VALUES = {3: ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), 1: ([0.449], [0.226])}
"""Mean and standard deviation of ImageNet's pixels, by channels."""


@dataclass(frozen=True)
class Canvas:
    """What a graph takes for an image.

    Attributes:
        name: The input.
        height: Pixels, or None where the graph takes any number.
        width: Likewise.
        channels: 3 where the graph takes any number.
        is_channels_last: Whether the graph wants ``(height, width, channels)``.
        dtype: The NumPy name of the type of its values.
        has_mask: Whether the graph takes a ``pixel_mask``.
    """

    name: str
    height: int | None
    width: int | None
    channels: int
    is_channels_last: bool
    dtype: str
    has_mask: bool

    @property
    def size(self) -> Size | None:
        """Height and width, where the graph fixes both."""
        return (self.height, self.width) if self.height and self.width else None


def canvas_of(ladder: ShapeLadder) -> Canvas:
    """Returns what the largest rung takes for an image.

    Raises:
        ProcessorError: It takes no image, or several.
    """
    contract = ladder.largest
    found = [spec for spec in contract.inputs if spec.axis_of(HEIGHT) is not None and spec.name != _MASK]
    if len(found) != 1:
        taken = ", ".join(str(spec) for spec in found or contract.inputs)
        what = "several images" if found else "no image"
        raise ProcessorError(
            f"The graph takes {what}: {taken}. Say which axes stand for what: from_model takes the contract that "
            "read_contract(path, roles={...}) gives, and a role of None says that an axis is something else.",
            expected="one image",
            given=taken,
        )
    (spec,) = found
    sizes = dict(zip(spec.roles(), (axis.size for axis in spec.axes or ()), strict=True))
    last = spec.axis_of(CHANNELS) == len(spec.axes or ()) - 1
    return Canvas(
        spec.name,
        sizes[HEIGHT],
        sizes[WIDTH],
        sizes.get(CHANNELS) or 3,
        last,
        spec.dtype,
        _MASK in contract.input_names,
    )


def default_image_processor(ladder: ShapeLadder) -> Any:
    """Returns the plain image processor of most models trained on ImageNet, for a graph that nobody saved one with.

    A warning says what it does: it resizes the shortest edge to 8/7 of the graph's, crops the middle, scales to 0..1
    and normalizes with ImageNet's mean and standard deviation; graphs of uint8 get plain bytes,
    and grey ones the mean of both over the colours.

    Raises:
        ProcessorError: The graph takes no image, or several.
    """
    import transformers

    canvas = canvas_of(ladder)
    height, width = canvas.size or (224, 224)
    name = "BitImageProcessor"
    make: Any = getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)
    mean, std = _VALUES.get(canvas.channels, _VALUES[3])
    edge = round(max(height, width) * 256 / 224)
    values = "plain bytes" if canvas.dtype == "uint8" else f"scaled to 0..1, mean {mean}, standard deviation {std}"
    warn(
        f"No image processor was saved with this graph. Its images get the usual settings of models trained on "
        f"ImageNet: shortest edge {edge}, the middle {height} x {width}, {values}. Pass image_processor= for others.",
    )
    crop = {"height": height, "width": width}
    return make(size={"shortest_edge": edge}, crop_size=crop, image_mean=mean, image_std=std)


def mismatch(canvas: Canvas, pixels: Array) -> ShapeMismatchError:
    """Returns an error for pixels ``(channels, height, width)`` that the graph does not take."""
    wanted = f"{canvas.channels} x {canvas.height} x {canvas.width}"
    given = " x ".join(map(str, pixels.shape))
    return ShapeMismatchError(
        f"The image came out as {given} (channels, height, width), and the graph takes {wanted}. Leave size=, "
        "crop_size= and do_resize= to the graph."
    )
