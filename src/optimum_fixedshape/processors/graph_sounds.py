"""The inputs through which a graph hears, and rows in their names, layout and dtypes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optimum_fixedshape.contract import SAMPLES, Mismatch, ShapeContract, TensorSpec
from optimum_fixedshape.errors import ProcessorError, ShapeMismatchError
from optimum_fixedshape.roles import MEL, MEL_FRAMES

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Heard:
    """One sound as the extractor made it.

    Attributes:
        sound: Samples, or a spectrogram in the extractor's own layout.
        mask: 1 for each sample or frame, or None where the graph takes no mask.
        is_longer: What CLAP says of sounds that it cut, or None.
    """

    sound: Array
    mask: Array | None = None
    is_longer: Array | None = None


@dataclass(frozen=True)
class Lengths:
    """What a call asks of lengths, in samples.

    Attributes:
        policy: What happens to what the graph cannot hold.
        most: What sounds are cut to, or None.
        least: What sounds are padded to at least.
        is_padded: Whether rows are padded to a rung at all.
    """

    policy: str
    most: int | None
    least: int
    is_padded: bool


@dataclass(frozen=True)
class SoundInputs:
    """The inputs of a graph that come from a feature extractor.

    Attributes:
        sound: The samples or the spectrogram.
        mask: Which of its places are real, or None.
        is_longer: Which sounds were cut, or None.
        role: What its length is counted in: `SAMPLES` or `MEL_FRAMES`.
    """

    sound: TensorSpec
    mask: TensorSpec | None
    is_longer: TensorSpec | None
    role: str

    def order(self, layout: tuple[str, str], bins: int) -> tuple[str, str]:
        """Returns the roles of a spectrogram's last two axes.

        Roles that were told by the smaller size are wrong for very short sounds: an axis as long as the extractor has
        features, where the extractor has them, holds the features.

        Args:
            layout: The roles as the extractor makes them.
            bins: How many features it makes.
        """
        roles = self.sound.roles()[-2:]
        stated = (self.sound.axes or ())[-2:][layout.index(MEL)].size
        return layout if stated == bins or set(roles) != {MEL, MEL_FRAMES} else (str(roles[0]), str(roles[1]))

    def columns(self, rows: Sequence[Heard], *, stacked: bool) -> dict[str, Any]:
        """Returns rows under the graph's names and in its dtypes.

        Args:
            rows: The sounds, in the graph's layout.
            stacked: Whether each input is one array of all rows, where these have one shape.
        """
        columns: dict[str, list[Array]] = {self.sound.name: [_cast(row.sound, self.sound) for row in rows]}
        if self.mask:
            columns[self.mask.name] = [_cast(row.mask, self.mask) for row in rows if row.mask is not None]
        if self.is_longer:
            shape = (1,) * (len(self.is_longer.axes or (0,)) - 1)
            columns[self.is_longer.name] = [
                _cast(row.is_longer, self.is_longer).reshape(shape) for row in rows if row.is_longer is not None
            ]
        if not rows:
            specs = [spec for spec in (self.sound, self.mask, self.is_longer) if spec]
            return {spec.name: np.zeros([0, *_item_shape(spec)], spec.dtype) for spec in specs}
        return {name: _stacked(column) if stacked else column for name, column in columns.items()}

    def check(self, row: Array) -> None:
        """Raises an error if a row is not what the graph takes.

        Raises:
            ShapeMismatchError: Its axes or a size contradict the graph.
        """
        wanted = [axis.size for axis in (self.sound.axes or ())[1:]]
        fits = len(wanted) == row.ndim and all(
            size is None or self.role == SAMPLES or size == given for size, given in zip(wanted, row.shape, strict=True)
        )
        if not fits:
            mismatch = Mismatch(self.sound.name, None, str(self.sound), f"a row of shape {row.shape}")
            raise ShapeMismatchError(
                f"{mismatch}. The feature extractor does not belong to this graph.", mismatches=(mismatch,)
            )


def sound_inputs_of(contract: ShapeContract) -> SoundInputs:
    """Returns the inputs through which a graph hears.

    Raises:
        ProcessorError: It has none.
    """
    for spec in contract.inputs:
        role = next((role for role in (SAMPLES, MEL_FRAMES) if role in spec.roles()), None)
        if role and spec.dtype.startswith("float") and "mask" not in spec.name:
            return SoundInputs(spec, _mask_of(contract, role), _longer_of(contract), role)
    what = ", ".join(map(str, contract.inputs))
    raise ProcessorError(
        f"This graph takes no sound: {what}. A feature extractor needs an input of samples or of a spectrogram.",
        expected="a graph that takes sounds",
        given=what,
    )


def _mask_of(contract: ShapeContract, role: str) -> TensorSpec | None:
    return next((spec for spec in contract.inputs if "mask" in spec.name and role in spec.roles()), None)


def _longer_of(contract: ShapeContract) -> TensorSpec | None:
    return next((spec for spec in contract.inputs if spec.name == "is_longer"), None)


def _cast(array: Any, spec: TensorSpec) -> Array:
    cast: Array = np.asarray(array).astype(spec.dtype, copy=False)
    return cast


def _item_shape(spec: TensorSpec) -> list[int]:
    return [axis.size or 0 for axis in (spec.axes or ())[1:]]


def _stacked(rows: list[Array]) -> Any:
    return np.stack(rows) if len({row.shape for row in rows}) == 1 else rows
