"""Image processors of graphs that take an image in patches: the user's own class, with the graph's number of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optimum_fixedshape.contract import BATCH, Axis, TensorSpec
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.roles import PATCHES

from .fixed import named_arguments
from .image_taking import ImageTaking, load_some

_ATTRIBUTES = ("max_num_patches", "max_patches")


class FixedShapePatchProcessor(ImageTaking):
    """Mixed into the user's image processor class by `image.fix_image_processor`; sets the number of patches.

    Attributes:
        ladder: The graph's contracts.
    """

    @property
    def batch_role(self) -> str:
        """What the graph calls the rows of images."""
        return BATCH

    def preprocess(self, images: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns what the plain class makes of images, see `images.load_images`."""
        call = named_arguments(self._plain_class.preprocess, (images, *args), kwargs)
        base: Any = super()
        return base.preprocess(load_some(call.pop("images"), 3), **call)


def patches_of(ladder: ShapeLadder) -> Axis | None:
    """Returns the axis of the patches that a graph takes, or None where it takes none."""
    specs: Iterable[TensorSpec] = ladder.largest.inputs
    axes = ((spec.axes or ())[axis] for spec in specs if (axis := spec.axis_of(PATCHES)) is not None)
    return next(axes, None)


def told_patches(plain: Any, patches: Axis) -> dict[str, Any]:
    """Returns the attributes to change so that a processor makes as many patches as the graph takes."""
    names = [name for name in _ATTRIBUTES if hasattr(plain, name)]
    return {name: patches.size for name in names if patches.size != getattr(plain, name)}
