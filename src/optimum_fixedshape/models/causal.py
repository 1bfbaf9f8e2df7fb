"""Models that write on from a text: `forward` of decoders alone."""

from __future__ import annotations

from typing import Any

from transformers.cache_utils import Cache, DynamicCache
from transformers.modeling_outputs import CausalLMOutputWithPast

from optimum_fixedshape.decoding import Tokens
from optimum_fixedshape.tasks import Overflow

from .base import as_tensor, is_tensor
from .cache import CacheMemory
from .generation import GenerationBase, mask_or_ones, positions_or_counted, tokens_among


class CausalMixin(GenerationBase):
    """Put before optimum's `ORTModelForCausalLM`."""

    def forward(  # type: ignore[override]  # the arguments of transformers' decoders
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Cache | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        overflow: Overflow | None = None,
        **ignored: Any,
    ) -> Any:
        """Returns a `CausalLMOutputWithPast`: logits ``(rows, tokens, vocabulary)``, and the cache with the tokens.

        Args:
            input_ids: New tokens ``(rows, tokens)``: any number, behind a cache or without.
            attention_mask: 1 for each real token, those in the cache first ``(rows, cached + tokens)``.
            position_ids: ``(rows, tokens)``; by default counted on from the cache.
            past_key_values: A cache of transformers, which takes in the new tokens.
            use_cache: Whether to return a cache; by default what the config says.
            logits_to_keep: Logits of the last tokens only; 0 for all.
            return_dict: False returns a tuple.
            overflow: ``"window"`` forgets the first tokens of texts longer than the graphs hold.
            **ignored: What transformers passes and no graph takes.

        Raises:
            InputTooLongError: The text is longer than the graphs hold.
            MissingInputError: There are no `input_ids`.
        """
        ids = tokens_among({"input_ids": input_ids, **ignored}, "input_ids", type(self).__name__)
        self.say_ignored(ignored)
        rows, new = ids.shape
        seen = past_key_values.get_seq_length() if past_key_values is not None else 0
        tokens = Tokens(
            ids, mask_or_ones(attention_mask, rows, seen + new), positions_or_counted(position_ids, seen, rows, new)
        )
        how: dict[str, Any] = {"keep": logits_to_keep, "slide": overflow == "window"}
        cache = None
        if self.engine.decoder is None:
            logits = self.read_whole(tokens, {}, **how)
        else:
            cache = DynamicCache() if past_key_values is None else past_key_values
            logits = self.engine.decoder.run(tokens, CacheMemory(cache), {}, **how)
            is_wanted = getattr(self.config, "use_cache", True) if use_cache is None else use_cache
            cache = cache if is_wanted else None
        value = as_tensor(logits, input_ids.device) if is_tensor(input_ids) else logits
        output = CausalLMOutputWithPast(logits=value, past_key_values=cache)
        return output if return_dict in (None, True) else output.to_tuple()
