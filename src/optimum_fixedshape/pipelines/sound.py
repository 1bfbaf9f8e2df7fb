"""Pipelines that hear: sounds from anywhere at any rate, and speech of any length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from transformers.pipelines.base import ChunkPipeline

from optimum_fixedshape.contract import SAMPLES
from optimum_fixedshape.errors import InputTooLongError
from optimum_fixedshape.models.base import FixedShapeMixin
from optimum_fixedshape.processors.sounds import load_sound

from .base import FixedShapePipeline

_SOUND = ("raw", "array", "bytes", "path", "sampling_rate", "stride")


class SoundPipeline(FixedShapePipeline):
    """Loads sounds before transformers sees them: neither ffmpeg nor torchaudio need be installed."""

    feature_extractor: Any

    def preprocess(self, item: Any, *args: Any, **params: Any) -> Any:
        """Returns what transformers makes of the sound.

        Args:
            item: A path, URL, bytes, an array at the extractor's rate, or a dict of ``raw`` or ``array`` and
                ``sampling_rate``.
            *args: As in transformers.
            **params: As in transformers.
        """
        base: Any = super()
        return base.preprocess(load_sound(item, self.feature_extractor.sampling_rate), *args, **params)


class SpeechPipeline(FixedShapePipeline):
    """Writes down speech of any length: what no rung holds is cut into windows as long as the largest.

    Models that write word by word, such as Whisper, have their own ways with long sounds, which are transformers'.
    """

    feature_extractor: Any

    def __init__(self, model: Any, *args: Any, **kwargs: Any) -> None:
        self._writes = isinstance(model, FixedShapeMixin) and model.can_generate()
        super().__init__(model, *args, **kwargs)

    @property
    def type(self) -> str:
        """What transformers calls the kind of the model, which it tells from the names of its own classes."""
        return self._type

    @type.setter
    def type(self, told: str) -> None:
        self._type = "seq2seq" if told == "ctc" and self._writes else told

    def get_iterator(self, *args: Any) -> Any:
        """Returns the answers, computed as they are asked for."""
        return (ChunkPipeline if self._writes else FixedShapePipeline).get_iterator(self, *args)

    def preprocess(self, inputs: Any, chunk_length_s: float = 0, stride_length_s: Any = None) -> Iterator[Any]:
        """Yields the windows of a sound, as transformers cuts them for ``chunk_length_s=``.

        Args:
            inputs: As in `SoundPipeline`; a dict may also have ``stride``, the samples to leave out at both ends, and
                fields that come back with the answer.
            chunk_length_s: Seconds of a window. By default those of the largest rung, where the sound is longer and
                `overflow` is ``"window"``.
            stride_length_s: Seconds that windows share on both sides; by default a sixth of a window.
        """
        rate = self.feature_extractor.sampling_rate
        samples = load_sound(inputs, rate)
        limit = self.model.ladder.limit(SAMPLES)
        if limit is not None and chunk_length_s * rate > limit:
            asked = round(chunk_length_s * rate)
            raise InputTooLongError(
                f"chunk_length_s={chunk_length_s} asks for windows of {asked} samples, and the largest rung holds "
                f"{limit}. Leave it out, or pass at most {limit / rate}.",
                size=asked,
                limit=limit,
                axis=SAMPLES,
            )
        if not chunk_length_s and limit is not None and len(samples) > limit and self.overflow == "window":
            frame = getattr(self.model.config, "inputs_to_logits_ratio", 1)
            chunk_length_s = limit // frame * frame / rate
        heard: Any = samples
        if isinstance(inputs, Mapping):
            heard = {name: value for name, value in inputs.items() if name not in _SOUND}
            heard |= {"raw": samples, "sampling_rate": rate}
            if stride := inputs.get("stride"):
                ratio = rate / inputs["sampling_rate"]
                heard["stride"] = tuple(round(part * ratio) for part in stride)
        base: Any = super()
        yield from base.preprocess(heard, chunk_length_s, stride_length_s)

    def _windows(self, inputs: Mapping[str, Any]) -> None:
        """`preprocess` has cut already, so that words are not torn."""
