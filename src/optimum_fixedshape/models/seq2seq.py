"""Models that read with an encoder and write with a decoder."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from optimum_fixedshape.decoding import Tokens
from optimum_fixedshape.errors import MissingInputError, UnsupportedTaskError
from optimum_fixedshape.fitting import Array
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.tasks import Overflow

from .base import as_array, as_tensor, is_tensor
from .cache import CacheMemory
from .generation import GenerationBase, mask_or_ones, positions_or_counted, tokens_among


class GraphEncoder:
    """An encoder, callable as transformers calls it.

    Args:
        runtime: The encoder's graphs.
        main_input_name: The input that the encoder is about.
    """

    def __init__(self, runtime: Runtime, main_input_name: str) -> None:
        self._runtime = runtime
        self.main_input_name = main_input_name

    def __call__(self, *args: Any, **inputs: Any) -> BaseModelOutput:
        """Returns what `forward` returns."""
        return self.forward(*args, **inputs)

    def forward(self, main_input: Any = None, attention_mask: Any = None, **inputs: Any) -> BaseModelOutput:
        """Returns a `BaseModelOutput`: ``last_hidden_state`` is ``(rows, places, features)``.

        Args:
            main_input: Token ids, a spectrogram or pixels, also by its own name.
            attention_mask: 1 for each real token.
            **inputs: What else the graph takes.

        Raises:
            InputTooLongError: The text is longer than the largest rung.
            MissingInputError, ShapeMismatchError: The inputs contradict the graph.
        """
        named = {self.main_input_name: main_input, "attention_mask": attention_mask, **inputs}
        given = {name: value for name, value in named.items() if value is not None}
        names = self._runtime.ladder.largest.input_names
        feed = {name: as_array(given[name]) for name in names if name in given}
        if self.main_input_name not in feed:
            raise MissingInputError(
                f"The encoder needs {self.main_input_name}; what came is: {', '.join(given) or 'nothing'}.",
                missing=(self.main_input_name,),
                given=tuple(given),
            )
        states = self._runtime.run([feed])[0]["last_hidden_state"]
        source = given[self.main_input_name]
        return BaseModelOutput(last_hidden_state=as_tensor(states, source.device) if is_tensor(source) else states)


class Seq2SeqMixin(GenerationBase):
    """Put before optimum's `ORTModelForSeq2SeqLM` and its like."""

    def get_encoder(self, *args: Any, **kwargs: Any) -> GraphEncoder:
        """Returns the encoder, callable by itself."""
        assert self.engine.encoder is not None  # find_parts has made sure
        return GraphEncoder(self.engine.encoder, self.main_input_name)

    encoder = property(get_encoder)

    def forward(  # type: ignore[override]  # the arguments of transformers' encoder-decoders
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        past_key_values: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        overflow: Overflow | None = None,
        input_features: Any = None,
        pixel_values: Any = None,
        **inputs: Any,
    ) -> Any:
        """Returns a `Seq2SeqLMOutput`: logits ``(rows, tokens, vocabulary)``, and the cache with the tokens.

        Args:
            input_ids: What an encoder of texts reads ``(rows, tokens)``.
            attention_mask: 1 for each real token of it.
            decoder_input_ids: New tokens ``(rows, new)``, behind a cache or without.
            decoder_attention_mask: 1 for each real token, those in the cache first ``(rows, cached + new)``.
            encoder_outputs: What the encoder gave, in place of its inputs.
            past_key_values: A cache of transformers, which takes in the new tokens.
            use_cache: Whether to return a cache; by default what the config says.
            return_dict: False returns a tuple.
            overflow: ``"window"`` forgets the first tokens of answers longer than the graphs hold.
            input_features: What an encoder of sounds reads ``(rows, mel, frames)``.
            pixel_values: What an encoder of images reads ``(rows, channels, height, width)``.
            **inputs: What transformers passes and no graph takes.

        Raises:
            InputTooLongError: A text is longer than the graphs hold.
            MissingInputError: There are no `decoder_input_ids`, or nothing to read.
        """
        seen_or_heard = {"input_features": input_features, "pixel_values": pixel_values}
        inputs |= {name: value for name, value in seen_or_heard.items() if value is not None}
        ids = tokens_among({**inputs, "decoder_input_ids": decoder_input_ids}, "decoder_input_ids", type(self).__name__)
        positions = inputs.pop("decoder_position_ids", None)
        if encoder_outputs is None:
            main = inputs.pop(self.main_input_name, None) if self.main_input_name != "input_ids" else input_ids
            encoder_outputs = self.get_encoder()(main, attention_mask=attention_mask)
        inputs.pop(self.main_input_name, None)
        self.say_ignored(inputs)
        states = as_array(encoder_outputs[0])
        sources = {
            "encoder_hidden_states": states,
            "encoder_attention_mask": self._source_mask(attention_mask, states),
        }
        cache = past_key_values
        seen = cache.get_seq_length() if cache is not None else 0
        tokens = Tokens(
            ids,
            mask_or_ones(decoder_attention_mask, len(ids), seen + ids.shape[1]),
            positions_or_counted(positions, seen, *ids.shape),
        )
        logits, cache = self._write(tokens, sources, cache, slide=overflow == "window")
        if not (getattr(self.config, "use_cache", True) if use_cache is None else use_cache):
            cache = None
        output = Seq2SeqLMOutput(
            logits=as_tensor(logits, decoder_input_ids.device) if is_tensor(decoder_input_ids) else logits,
            past_key_values=cache,
            encoder_last_hidden_state=encoder_outputs[0],
        )
        return output if return_dict in (None, True) else output.to_tuple()

    def _write(
        self, tokens: Tokens, sources: Mapping[str, Array], cache: Any, *, slide: bool
    ) -> tuple[Array, EncoderDecoderCache | None]:
        if self.engine.decoder is None:
            return self.read_whole(tokens, sources, keep=0, slide=slide), None
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if cache is None else cache
        memory = CacheMemory(cache.self_attention_cache, cache.cross_attention_cache)
        logits = self.engine.decoder.run(tokens, memory, sources, slide=slide)
        cache.is_updated = dict.fromkeys(range(len(cache.cross_attention_cache.layers)), True)
        return logits, cache

    def _source_mask(self, attention_mask: Any, states: Array) -> Array:
        """The mask of what the encoder read; encoders that change its length have none that decoders could use."""
        rows, places = states.shape[:2]
        given = None if attention_mask is None else np.asarray(as_array(attention_mask))
        return mask_or_ones(given if given is not None and given.shape == (rows, places) else None, rows, places)


class WhisperMixin(Seq2SeqMixin):
    """Put before optimum's `ORTModelForWhisper`: transformers' own long-form transcription, languages and tasks."""

    def prepare_inputs_for_generation(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the arguments of `forward` for one step: rows that are padded on the left count from their start."""
        if (mask := kwargs.get("decoder_attention_mask")) is not None:
            kwargs.setdefault("decoder_position_ids", (mask.long().cumsum(-1) - 1).clamp(min=0))
        return super().prepare_inputs_for_generation(*args, **kwargs)

    def forward(  # type: ignore[override]  # those of Whisper
        self,
        input_features: Any = None,
        attention_mask: Any = None,
        decoder_input_ids: Any = None,
        decoder_attention_mask: Any = None,
        encoder_outputs: Any = None,
        past_key_values: EncoderDecoderCache | None = None,
        decoder_position_ids: Any = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        overflow: Overflow | None = None,
        **ignored: Any,
    ) -> Any:
        """Returns a `Seq2SeqLMOutput`; see `Seq2SeqMixin.forward`.

        Args:
            input_features: A spectrogram ``(rows, mel, frames)``.
            attention_mask: Taken and ignored, as in PyTorch.
            decoder_input_ids: As there, and so are all that follow.
            decoder_attention_mask: As there.
            encoder_outputs: As there.
            past_key_values: As there.
            decoder_position_ids: Where each new token stands ``(rows, new)``; by default counted on from the cache.
            use_cache: As there.
            return_dict: As there.
            overflow: As there.
            **ignored: What transformers passes and no graph takes.
        """
        return super().forward(
            None,
            attention_mask,
            decoder_input_ids,
            decoder_attention_mask,
            encoder_outputs,
            past_key_values,
            use_cache,
            return_dict,
            overflow,
            input_features,
            decoder_position_ids=decoder_position_ids,
            **ignored,
        )

    def generate(self, *args: Any, overflow: Overflow | None = None, **kwargs: Any) -> Any:
        """Returns what Whisper's `generate` of transformers returns, and takes what it takes.

        Raises:
            UnsupportedTaskError: ``return_token_timestamps=True``, which needs the attention to the sound.
        """
        if kwargs.get("return_token_timestamps"):
            raise UnsupportedTaskError(
                "return_token_timestamps=True (return_timestamps='word' in a pipeline) needs the attention to the "
                "sound, which the graphs do not give. return_timestamps=True tells where each phrase starts and ends.",
                task="automatic-speech-recognition",
            )
        return super().generate(*args, overflow=overflow, **kwargs)

    @property
    def model(self) -> Any:
        """What transformers asks of Whisper's model: how many frames make one place of the encoder."""
        halves, keeps = SimpleNamespace(stride=(2,)), SimpleNamespace(stride=(1,))
        return SimpleNamespace(encoder=SimpleNamespace(conv1=keeps, conv2=halves), config=self.config)

    @model.setter
    def model(self, value: None) -> None:
        """Takes what optimum's constructor sets."""
