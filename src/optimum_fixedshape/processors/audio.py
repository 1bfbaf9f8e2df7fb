"""Feature extractors that know the graph: the user's own class, with what comes back in the graph's shape and dtype."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from transformers import BatchFeature, Wav2Vec2FeatureExtractor
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor

from optimum_fixedshape.contract import SAMPLES
from optimum_fixedshape.errors import InputTooLongError, InvalidInputError, ProcessorError, warn
from optimum_fixedshape.fitting import Feed
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.roles import MEL, MEL_FRAMES
from optimum_fixedshape.tasks import Overflow

from .fixed import FixedShapeProcessor, check_kind, check_overflow, feeds_of, fix, named_arguments
from .graph_sounds import Heard, Lengths, SoundInputs, sound_inputs_of
from .short_sounds import length_with_silence, with_silence
from .sounds import Samples, is_sound, load_sound
from .spectrograms import rebuilt, spectrogram_of, take_tables

_UNPADDED = (False, "do_not_pad")
_STANDARD = ("longest", "max_length", "do_not_pad", "longest_first")
_LENGTHS = ("padding", "truncation", "max_length", "pad_to_multiple_of", "return_attention_mask")
_SECONDS_OF_A_WINDOW = 0.025


class FixedShapeFeatureExtractor(FixedShapeProcessor):
    """Mixed into the user's class by `fix_feature_extractor`; adds the graph's shapes to it.

    Each sound is extracted alone, so that its normalization sees no padding, and padded afterwards with the
    extractor's own `padding_value`: waveforms to the smallest rung that holds the longest, spectrograms to the largest.

    Attributes:
        ladder: The graph's contracts.
        overflow: What happens to a sound that the graph cannot hold where the call itself does not say ``truncation``.
            What the extractor always cuts, as Whisper's cuts after 30 seconds, is cut as there and is no overflow.
            ``"window"`` is for pipelines: a call does what ``"error"`` does, unless `exact_length` is set.
        exact_length: Never pad waveforms by default: the model fits them. Pipelines use this. With
            ``overflow="window"`` too long ones come back whole.
    """

    overflow: Overflow
    exact_length: bool
    _inputs: SoundInputs
    _own_frames: int | None
    _cut_later: bool
    _added = FixedShapeProcessor._added | {"overflow", "exact_length", "_inputs", "_own_frames", "_cut_later"}

    sampling_rate: int
    padding_value: float
    padding_side: str
    model_input_names: list[str]

    @property
    def limit(self) -> int | None:
        """The samples or frames of the largest rung, or None where the graph takes any number."""
        return self.ladder.limit(self._inputs.role)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a `BatchFeature` with one row for each sound, under the graph's names and in its shapes and dtypes.

        Takes what the extractor's own class takes, and as sounds also all that `load_sound` does. Where the sounds are
        arrays, ``sampling_rate=`` is their rate, and they are resampled if it is not the extractor's. The
        ``attention_mask`` is there if the graph takes one. ``truncation=True`` cuts, ``padding=False`` leaves waveforms
        as long as they are, and ``padding="max_length"`` pads them to the rung that holds `max_length`.

        For a Whisper that writes, ``truncation=False`` and ``return_attention_mask=True`` mean what they mean in
        transformers, whose `generate()` cuts long sounds itself.

        Raises:
            InputTooLongError: The graph cannot hold a sound, and neither the call nor `overflow` allows a cut.
            InvalidInputError: An item is no sound that can be used.
            MissingExtraError: A sound needs the extra ``audio``, and that is not installed.
        """
        call = named_arguments(self._plain_class.__call__, args, kwargs)
        if self._cut_later and (call.get("truncation") is False or call.get("return_attention_mask")):
            return self._whole(call)
        return self._extract(call, 0)

    def feeds(self, items: Any, **kwargs: Any) -> Iterator[Feed]:
        """Yields feeds for a bare `InferenceSession`, exact in every dimension, in the order of `items`.

        Args:
            items: A sound, or any number of them; also a generator, read as needed.
            **kwargs: Passed on as when called.

        Raises:
            InputTooLongError: As when called.
        """

        def make(chunk: list[Any], first: int) -> Any:
            return self._extract({"padding": True, **kwargs, "raw_speech": chunk, "return_tensors": "np"}, first)

        yield from feeds_of(_many(items), make, self.ladder, self._inputs.sound.batch_role)

    def plain(self) -> Any:
        """Returns the extractor as transformers made it, without the graph's shapes."""
        twin = super().plain()
        return rebuilt(twin, {}) if spectrogram_of(twin).bins in self._told else twin

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes of the plain extractor, as `save_pretrained` writes them."""
        attributes: dict[str, Any] = self.plain().to_dict()
        return attributes

    def _whole(self, call: dict[str, Any]) -> Any:
        """What the user's own extractor makes of the sounds, whatever their length."""
        given, rate = _given(call, self.sampling_rate)
        sounds = [load_sound(_at(item, rate), self.sampling_rate) for item in _many(given)]
        if not sounds:
            return self._extract(call | {"raw_speech": sounds}, 0)
        return self._twin()(sounds, sampling_rate=self.sampling_rate, **call)

    def _extract(self, call: dict[str, Any], first: int) -> Any:
        given, rate = _given(call, self.sampling_rate)
        tensors = call.pop("return_tensors", None)
        lengths = self._lengths(call)
        rows = [
            self._heard(load_sound(_at(item, rate), self.sampling_rate), call, lengths, index)
            for index, item in enumerate(_many(given), first)
        ]
        if rows and (lengths.is_padded or self._inputs.role != SAMPLES):
            size = self._size(max(lengths.least, *(len(row.sound) for row in rows)))
            rows = [self._padded(row, size) for row in rows]
        rows = [self._laid_out(row) for row in rows]
        return BatchFeature(self._inputs.columns(rows, stacked=tensors is not None), tensor_type=tensors)

    def _lengths(self, call: dict[str, Any]) -> Lengths:
        """What a call says of lengths; what names a pattern of CLAP's is left in the call."""
        asked = {name: call.pop(name, None) for name in _LENGTHS}
        for name in ("truncation", "padding"):
            if self._own_frames and isinstance(asked[name], str) and asked[name] not in _STANDARD:
                call[name], asked[name] = asked[name], None
        cuts, padding, length = asked["truncation"], asked["padding"], asked["max_length"]
        return Lengths(
            policy=self.overflow if cuts is None else ("truncate" if cuts else "error"),
            most=length if cuts else None,
            least=(length or 0) if padding == "max_length" else 0,
            is_padded=not self.exact_length if padding is None else padding not in _UNPADDED,
        )

    def _heard(self, samples: Samples, call: dict[str, Any], lengths: Lengths, index: int) -> Heard:
        """One sound as the extractor makes it alone, cut to what the graph holds if it may be cut."""
        if self._inputs.role == SAMPLES:
            self._check(min(len(samples), lengths.most or len(samples)), lengths.policy, index)
            samples = samples[: self._most(lengths)]
        elif self._own_frames:
            frames = spectrogram_of(self).frames_of(self, len(samples))
            self._check(min(frames, self._own_frames), lengths.policy, index)
        heard = self._alone(samples, call)
        if self._inputs.role == MEL_FRAMES and not self._own_frames:
            self._check(len(heard.sound), lengths.policy, index)
            most = self._most(lengths)
            heard = Heard(heard.sound[:most], heard.mask if heard.mask is None else heard.mask[:most])
        return heard

    def _twin(self) -> Any:
        """An extractor of the user's own class, with the graph's sizes."""
        twin = object.__new__(self._plain_class)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name not in self._added})
        return twin

    def _alone(self, samples: Samples, call: dict[str, Any]) -> Heard:
        is_masked = self._inputs.mask is not None
        settings = {"return_attention_mask": is_masked, "return_tensors": "np", "sampling_rate": self.sampling_rate}
        if self._inputs.role == SAMPLES:
            settings["padding"] = False
        short = None if call else length_with_silence(self, self._plain_class, len(samples))
        if short:
            settings["max_length"] = short
        try:
            made = self._twin()([samples], **settings, **call)
        except ValueError as error:
            if len(samples) >= _SECONDS_OF_A_WINDOW * self.sampling_rate:
                raise
            few = f"{len(samples)} samples at {self.sampling_rate} Hz"
            problem = f"Not a sound that can be used: {few} are fewer than one window of a spectrogram ({error})."
            raise InvalidInputError(problem, item=few) from error
        sound = made[self.model_input_names[0]][0]
        mask = made["attention_mask"][0] if "attention_mask" in made else None
        if short:
            missing = vars(self)["nb_max_frames"] - sound.shape[1]
            sound = with_silence(sound, missing)
            mask = None if mask is None else np.pad(mask, (0, missing))
        if is_masked and mask is None:
            mask = np.ones(sound.shape[self._frames_axis()], np.int64)
        return Heard(sound, mask if is_masked else None, made["is_longer"][0] if "is_longer" in made else None)

    def _check(self, size: int, policy: str, index: int) -> None:
        limit = self.limit
        whole = policy == "window" and self.exact_length and self._inputs.role == SAMPLES
        if limit is None or size <= limit or policy == "truncate" or whole:
            return
        role = self._inputs.role
        raise InputTooLongError(
            f"Sound {index} has {role} {size}, and the largest rung holds {limit}. Ways out: truncation=True or "
            "overflow='truncate' cuts it; overflow='window' runs overlapping windows (for a pipeline); or load or "
            f"export a larger rung, shapes={{{role!r}: [..., {size}]}}.",
            index=index,
            size=size,
            limit=limit,
            axis=role,
        )

    def _most(self, lengths: Lengths) -> int | None:
        """The length to cut a sound to, or None."""
        if lengths.policy != "truncate":
            return None
        return min((size for size in (lengths.most, self.limit) if size), default=None)

    def _size(self, longest: int) -> int:
        """The length that rows are padded to."""
        limit = self.limit
        if limit is None:
            return longest
        if self._inputs.role != SAMPLES:
            return limit
        rungs = self.ladder.holding({SAMPLES: min(longest, limit)})
        return min(self.ladder.rungs[index].sizes[SAMPLES] or longest for index in rungs)

    def _padded(self, row: Heard, size: int) -> Heard:
        missing = size - len(row.sound)
        if self._own_frames or missing <= 0:
            return row
        width = (0, missing) if self.padding_side == "right" else (missing, 0)
        widths = [width, *[(0, 0)] * (row.sound.ndim - 1)]
        sound = np.pad(row.sound, widths, constant_values=self.padding_value)
        return Heard(sound, None if row.mask is None else np.pad(row.mask, width), row.is_longer)

    def _frames_axis(self) -> int:
        layout = spectrogram_of(self).layout
        return 0 if self._inputs.role == SAMPLES else layout.index(MEL_FRAMES) - len(layout)

    def _laid_out(self, row: Heard) -> Heard:
        """The row with its axes in the graph's order."""
        sound = row.sound
        if self._inputs.role != SAMPLES:
            kind = spectrogram_of(self)
            turned = self._inputs.order(kind.layout, kind.bins_of(self)) != kind.layout
            sound = np.swapaxes(sound, -1, -2) if turned else sound
        self._inputs.check(sound)
        return Heard(sound, row.mask, row.is_longer)


def fix_feature_extractor(
    plain: Any, ladder: ShapeLadder, *, overflow: Overflow = "error", exact_length: bool = False
) -> FixedShapeFeatureExtractor:
    """Returns a feature extractor of the same class, told what the graph takes. The one given stays as it was.

    Args:
        plain: A feature extractor of transformers, fixed already or not.
        ladder: The graph's contracts.
        overflow: See `FixedShapeFeatureExtractor`.
        exact_length: See `FixedShapeFeatureExtractor`.

    Raises:
        ProcessorError: `plain` is no feature extractor, or makes what the graph does not take.
        ValueError: `overflow` is unknown.
    """
    check_kind(plain, SequenceFeatureExtractor, "A feature extractor")
    check_overflow(overflow)
    own = plain.plain() if isinstance(plain, FixedShapeFeatureExtractor) else copy.deepcopy(plain)
    inputs = sound_inputs_of(ladder.largest)
    kind = spectrogram_of(own)
    told = {} if inputs.role == SAMPLES else _told_by(inputs, own)
    facts: dict[str, Any] = {"overflow": overflow, "exact_length": exact_length, "_inputs": inputs}
    facts["_own_frames"] = kind.own_frames(own)
    facts["_cut_later"] = kind.is_cut_later and ladder.largest.output_names == ("last_hidden_state",)
    if (inputs.role == SAMPLES) != (own.model_input_names[0] == "input_values" and kind.bins is None):
        raise _no_match(own, inputs)
    fixed: FixedShapeFeatureExtractor = fix(FixedShapeFeatureExtractor, own, ladder, told, **facts)
    if kind.bins in told:
        take_tables(fixed, rebuilt(own, {kind.bins: told[kind.bins]}))
    return fixed


def default_feature_extractor(ladder: ShapeLadder) -> FixedShapeFeatureExtractor:
    """Returns a feature extractor for a graph that came with none, and says so: that of wav2vec 2.0, at 16 kHz.

    Args:
        ladder: The contracts of a graph that takes waveforms.

    Raises:
        ProcessorError: The graph takes spectrograms, and nobody knows of which kind.
    """
    inputs = sound_inputs_of(ladder.largest)
    if inputs.role != SAMPLES:
        raise ProcessorError(
            f"The graph takes spectrograms, {inputs.sound}, and nothing says how they are made. "
            "Pass feature_extractor=, an object, a folder or a Hub repo id.",
            expected="feature_extractor=",
            given="nothing",
        )
    warn(
        "The graph came without a feature extractor: using Wav2Vec2FeatureExtractor(sampling_rate=16000, "
        "do_normalize=True). Pass feature_extractor= if the model was trained on other sounds."
    )
    return fix_feature_extractor(Wav2Vec2FeatureExtractor(sampling_rate=16000, do_normalize=True), ladder)


def _told_by(inputs: SoundInputs, plain: Any) -> dict[str, Any]:
    """The attributes in which an extractor that knows the graph differs."""
    kind = spectrogram_of(plain)
    bins = kind.bins_of(plain)
    sizes = [axis.size for axis in (inputs.sound.axes or ())[-2:]]
    by_role = dict(zip(inputs.order(kind.layout, bins), sizes, strict=True))
    frames, wanted = by_role[MEL_FRAMES], by_role[MEL]
    if wanted and wanted != bins and kind.bins is None:
        raise _no_match(plain, inputs)
    told = dict(kind.told(plain, frames)) if frames else {}
    return told | ({kind.bins: wanted} if kind.bins and wanted and wanted != bins else {})


def _no_match(plain: Any, inputs: SoundInputs) -> ProcessorError:
    kind = spectrogram_of(plain)
    makes = plain.model_input_names[0]
    return ProcessorError(
        f"{type(plain).__name__} makes {makes} with {kind.bins_of(plain)} features, but the graph takes "
        f"{inputs.sound}. Pass the feature extractor that the model was trained with.",
        expected=str(inputs.sound),
        given=type(plain).__name__,
    )


def _given(call: dict[str, Any], rate: int) -> tuple[Any, int]:
    """The sounds of a call and the rate that it states, which are no longer among its arguments."""
    given = call.pop("raw_speech") if "raw_speech" in call else call.pop("audio", None)
    return given, call.pop("sampling_rate", None) or rate


def _many(given: Any) -> Iterable[Any]:
    is_stream = isinstance(given, Iterator) and not hasattr(given, "read")
    return given if is_stream or not is_sound(given) else [given]


def _at(item: Any, rate: int) -> Any:
    """The item with the rate that the call states for arrays."""
    is_array = isinstance(item, (list, tuple)) or hasattr(item, "shape")
    return {"array": item, "sampling_rate": rate} if is_array else item
