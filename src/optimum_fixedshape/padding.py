"""When padding can change an answer. Pure functions on contracts and configs."""

from __future__ import annotations

from typing import Any

from .contract import SAMPLES, SEQUENCE
from .ladder import ShapeLadder

ALWAYS_PADDED = frozenset({"siglip", "siglip2"})
"""Models that were trained to see padding: their tokenizers give no mask, and always pad to the same length."""


def text_padding_matters(ladder: ShapeLadder, config: Any) -> str | None:
    """Returns why padding a text to the graph's size can change the answer, in words, or None where it cannot.

    Args:
        ladder: The graph's contracts.
        config: The model's config, or None.
    """
    names = ladder.largest.input_names
    if ladder.limit(SEQUENCE) is None or "input_ids" not in names or "attention_mask" in names:
        return None
    if getattr(config, "model_type", None) in ALWAYS_PADDED:
        return None
    return "the graph takes no attention_mask, so that it cannot tell padding from text"


def audio_padding_matters(ladder: ShapeLadder, config: Any) -> str | None:
    """Returns why padding a sound to the graph's size can change the answer, in words, or None where it cannot.

    Args:
        ladder: The graph's contracts.
        config: The model's config, or None. Read is ``feat_extract_norm``, as wav2vec 2.0 and its kin have it.
    """
    contract = ladder.largest
    if ladder.limit(SAMPLES) is None:
        return None
    if getattr(config, "feat_extract_norm", None) == "group":
        return (
            "the model normalizes over the whole of the padded sound (config.feat_extract_norm is 'group'), so that "
            "silence after it changes every frame"
        )
    masks = [spec for spec in contract.inputs if spec.name == "attention_mask" and SAMPLES in spec.roles()]
    if not masks:
        return "the graph takes no attention_mask, so that it cannot tell a sound from the silence after it"
    return None
