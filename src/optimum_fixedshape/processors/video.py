"""Video processors that know the graph: clips of any length, as the frames, the size and the layout it takes."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import BaseImageProcessor, BatchFeature
from transformers.video_processing_utils import BaseVideoProcessor
from transformers.video_utils import VideoMetadata

from optimum_fixedshape.contract import Mismatch, ShapeContract, TensorSpec
from optimum_fixedshape.errors import ProcessorError, ShapeMismatchError
from optimum_fixedshape.fitting import Feed
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.roles import CHANNELS, FRAMES, HEIGHT, WIDTH

from .clips import invalid, is_clip, is_file, sample_clip
from .fixed import FixedShapeProcessor, check_kind, feeds_of, fix, named_arguments
from .image_sizes import told_sizes

Array = npt.NDArray[Any]

_LAYOUT = (FRAMES, CHANNELS, HEIGHT, WIDTH)
_SET_BY_THE_GRAPH = ("num_frames", "fps", "do_sample_frames", "video_metadata", "return_metadata", "data_format")


class FixedShapeVideoProcessor(FixedShapeProcessor):
    """Mixed into the user's class by `fix_video_processor`; adds the graph's shapes to it.

    Of a clip, as many frames are taken as the graph has: by the `sample_frames` of a video processor, else (image
    processors that take clips have no rule) evenly from the first frame to the last. A clip of just as many frames is
    taken as it is. A shorter one is an error: no frame is made up.

    Attributes:
        ladder: The graph's contracts. Clips are made for the largest.
    """

    _pixels: TensorSpec
    _added = FixedShapeProcessor._added | {"_pixels"}

    model_input_names: list[str]

    @property
    def frames(self) -> int | None:
        """The frames that the graph takes, or None where it takes any number."""
        return _size_of(self._pixels, FRAMES)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a `BatchFeature` with one row for each clip, under the graph's name, in its shape, layout and dtype.

        Takes what the processor's own class takes, and as clips also all that `sample_clip` does.

        Raises:
            InvalidInputError: An item is no clip, cannot be read, or has fewer frames than the graph takes.
            MissingExtraError: A clip needs the extra ``video`` or ``vision``, and that is not installed.
        """
        call = named_arguments(self._plain_class.preprocess, args, kwargs)
        given: Any = next((call.pop(name) for name in ("videos", "images") if call.get(name) is not None), [])
        tensors = call.pop("return_tensors", None)
        settings = {name: value for name, value in call.items() if name not in _SET_BY_THE_GRAPH and value is not None}
        rows = [self._row(clip, settings) for clip in _many(given)]
        if tensors is None:
            return BatchFeature({self._pixels.name: rows})
        return BatchFeature({self._pixels.name: _stacked(rows, self._pixels)}, tensor_type=tensors)

    def preprocess(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what a call does."""
        return self(*args, **kwargs)

    def feeds(self, items: Any, **kwargs: Any) -> Iterator[Feed]:
        """Yields feeds for a bare `InferenceSession`, exact in every dimension, in the order of `items`.

        Args:
            items: A clip, or any number of them; also a generator, read as needed.
            **kwargs: Passed on as when called.

        Raises:
            InvalidInputError: As when called.
        """

        def make(chunk: list[Any], first: int) -> Any:
            return self(chunk, **kwargs, return_tensors="np")

        yield from feeds_of(_many(items), make, self.ladder, self._pixels.batch_role)

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes of the plain processor, as `save_pretrained` writes them."""
        attributes: dict[str, Any] = self.plain().to_dict()
        return attributes

    def _row(self, clip: Any, settings: dict[str, Any]) -> Array:
        frames = sample_clip(clip, lambda frames, rate: self._chosen(clip, frames, rate))
        twin = object.__new__(self._plain_class)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name not in self._added})
        if isinstance(twin, BaseVideoProcessor):  # pragma: no cover  # they run on torchvision alone
            made = twin([np.stack(frames)], **settings, do_sample_frames=False, return_tensors="pt")
        else:
            made = twin(list(frames), **settings, return_tensors="np")
        pixels = np.asarray(made[self.model_input_names[0]])
        return self._laid_out(pixels[0] if pixels.ndim > len(_LAYOUT) else pixels)

    def _chosen(self, clip: Any, frames: int, rate: float | None) -> Sequence[int]:
        """Which frames of a clip the graph gets."""
        wanted = self.frames
        if wanted is None or frames == wanted:
            return range(frames)
        if frames < wanted:
            raise invalid(clip, f"it has {frames} frames, and the graph takes {wanted}")
        if issubclass(self._plain_class, BaseVideoProcessor):  # pragma: no cover  # they run on torchvision alone
            metadata = VideoMetadata(total_num_frames=frames, fps=rate)
            own: Any = super()
            return [int(index) for index in own.sample_frames(metadata=metadata, num_frames=wanted)]
        return [int(index) for index in np.linspace(0, frames - 1, wanted, dtype=np.int64)]

    def _laid_out(self, row: Array) -> Array:
        """The row with its axes in the graph's order, in its dtype."""
        roles = self._pixels.roles()[1:]
        order = [_LAYOUT.index(str(role)) for role in roles] if set(roles) == set(_LAYOUT) else range(row.ndim)
        turned = row.transpose(*order)
        sizes = [axis.size for axis in (self._pixels.axes or ())[1:]]
        if any(size is not None and size != given for size, given in zip(sizes, turned.shape, strict=True)):
            mismatch = Mismatch(self._pixels.name, None, str(self._pixels), f"a row of shape {turned.shape}")
            raise ShapeMismatchError(
                f"{mismatch}. The processor does not make frames of the graph's size.", mismatches=(mismatch,)
            )
        return turned.astype(self._pixels.dtype, copy=False)


def fix_video_processor(plain: Any, ladder: ShapeLadder) -> FixedShapeVideoProcessor:
    """Returns a processor of the same class, told what the graph takes. The one given stays as it was.

    Args:
        plain: A video processor of transformers, or an image processor that takes clips, fixed already or not.
        ladder: The graph's contracts.

    Raises:
        ProcessorError: `plain` is neither, cannot be told the size, or the graph takes no clips.
    """
    check_kind(plain, BaseImageProcessor, "A video processor, or an image processor that takes clips,")
    own = plain.plain() if isinstance(plain, FixedShapeProcessor) else copy.deepcopy(plain)
    pixels = _pixels_of(ladder.largest)
    height, width = (_size_of(pixels, role) for role in (HEIGHT, WIDTH))
    told = told_sizes(own, height, width) if height and width else {}
    if pixels.dtype == "uint8":
        told |= {name: False for name in ("do_rescale", "do_normalize") if getattr(own, name, False)}
    fixed: FixedShapeVideoProcessor = fix(FixedShapeVideoProcessor, own, ladder, told, _pixels=pixels)
    return fixed


def _pixels_of(contract: ShapeContract) -> TensorSpec:
    for spec in contract.inputs:
        if {FRAMES, HEIGHT, WIDTH} <= set(spec.roles()):
            return spec
    what = ", ".join(map(str, contract.inputs))
    raise ProcessorError(
        f"This graph takes no clips: {what}. A video processor needs an input of frames, with five axes.",
        expected="a graph that takes clips",
        given=what,
    )


def _size_of(spec: TensorSpec, role: str) -> int | None:
    axis = spec.axis_of(role)
    return None if axis is None or spec.axes is None else spec.axes[axis].size


def _many(given: Any) -> Iterable[Any]:
    is_stream = isinstance(given, Iterator) and not is_file(given)
    return given if is_stream or not is_clip(given) else [given]


def _stacked(rows: list[Array], spec: TensorSpec) -> Any:
    if not rows:
        return np.zeros([0, *(axis.size or 0 for axis in (spec.axes or ())[1:])], spec.dtype)
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows
