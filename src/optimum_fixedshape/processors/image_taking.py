"""What all image processors that know a graph do with images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any

from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.fitting import Feed

from .fixed import FixedShapeProcessor, feeds_of
from .images import load_images


class ImageTaking(FixedShapeProcessor):
    """An image processor that knows a graph."""

    preprocess: Any

    @property
    @abstractmethod
    def batch_role(self) -> str | None:
        """What the graph calls the rows of images."""

    def __call__(self, images: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Returns a `BatchFeature` with one row for each image, in the graph's size, layout and dtype.

        Args:
            images: See `images.load_images`.
            *args: As the plain class takes them.
            **kwargs: Likewise; ``return_tensors=`` says what comes back, by default lists of arrays.

        Raises:
            InvalidInputError: One is no image.
            ShapeMismatchError: An argument of the call leads to another size than the graph's.
        """
        return self.preprocess(images, *args, **kwargs)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings of the processor as transformers made it."""
        settings: dict[str, Any] = self.plain().to_dict()
        return settings

    def feeds(self, items: Any, **kwargs: Any) -> Iterator[Feed]:
        """Yields feeds for a bare `InferenceSession`, exact in every dimension, in the order of `items`.

        Args:
            items: As for a call; also a generator, read as needed.
            **kwargs: As for a call.
        """
        is_single = isinstance(items, str) or not isinstance(items, Iterable) or getattr(items, "ndim", 4) < 4
        several = [items] if is_single or hasattr(items, "convert") else items

        def make(chunk: list[Any], first: int) -> Any:
            return self(chunk, **{**kwargs, "return_tensors": "np"})

        yield from feeds_of(several, make, self.ladder, self.batch_role)


def load_some(images: Any, channels: int) -> list[Any]:
    """Returns what `images.load_images` does.

    Raises:
        InvalidInputError: As there.
        ProcessorError: There are none.
    """
    loaded = load_images(images, channels)
    if not loaded:
        raise ProcessorError("There are no images to process.", expected="an image", given="nothing")
    return loaded
