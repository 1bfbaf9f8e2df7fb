"""The sizes that a model, or else its processor, was made for: those of an export where the caller names none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optimum_fixedshape.contract import SAMPLES, SEQUENCE, TEXTS
from optimum_fixedshape.roles import CHANNELS, CHOICES, FRAMES, HEIGHT, MEL, MEL_FRAMES, WIDTH

_TEN_SECONDS = 160_000
_TOKENS = 512
_PIXELS = 224
_LABELS = 4


_POSITIONS_START_AFTER_PADDING = frozenset(
    {
        *("camembert", "clap_text_model", "data2vec-text", "ibert", "layoutlmv3", "lilt", "longformer", "luke"),
        *("mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
_PADDING_OF_POSITIONS = {"mpnet": 1}
"""Where it is not the config's ``pad_token_id``."""


def default_size(key: str, config: Any, processor: Any = None) -> int:
    """Returns the size along `key` of a graph whose user asked for none; 1 where nothing tells.

    Args:
        key: The shape key.
        config: The model's configuration.
        processor: The model's processor, or None.
    """
    return _DEFAULTS.get(key, _one)(config, processor)


def image_size(config: Any, processor: Any) -> tuple[int, int]:
    """Returns the height and width that images have when they reach the original model.

    Where its images keep their shape, these are squares of the longest edge, which hold them all.
    """
    part = getattr(processor, "image_processor", processor)
    sizes = [
        getattr(part, "crop_size", None) if getattr(part, "do_center_crop", False) else getattr(part, "size", None)
    ]
    sizes += [getattr(each, name, None) for each in _parts(config) for name in ("image_size", "input_size")]
    return next((found for size in sizes if (found := _height_and_width(size))), (_PIXELS, _PIXELS))


def positions_of(config: Any) -> int | None:
    """Returns how many tokens the model can place, or None where it does not count them."""
    most = getattr(config, "max_position_embeddings", None)
    if most is None or most < 1 or not getattr(config, "position_biased_input", True):
        return None
    if config.model_type not in _POSITIONS_START_AFTER_PADDING:
        return int(most)
    return int(most) - 1 - int(_PADDING_OF_POSITIONS.get(config.model_type, config.pad_token_id or 0))


def _height_and_width(size: Any) -> tuple[int, int] | None:
    if isinstance(size, int):
        return size, size
    if isinstance(size, (list, tuple)) and len(size) == 2:
        return int(size[0]), int(size[1])
    sizes = dict(size or {})
    for names in (("height", "width"), ("longest_edge",) * 2, ("shortest_edge",) * 2, ("max_height", "max_width")):
        if all(sizes.get(name) for name in names):
            return int(sizes[names[0]]), int(sizes[names[1]])
    return None


def _parts(config: Any) -> Iterator[Any]:
    for name in ("vision_config", "audio_config", "backbone_config", "encoder"):
        if (part := getattr(config, name, None)) is not None:
            yield part
    yield config


def _first(name: str, config: Any, otherwise: int) -> int:
    found = (getattr(part, name, None) for part in _parts(config))
    return next((int(size) for size in found if size), otherwise)


def _one(config: Any, processor: Any) -> int:
    return 1


def _mel(config: Any, processor: Any) -> int:
    return _first("num_mel_bins", config, int(getattr(processor, "feature_size", 80)))


def _mel_frames(config: Any, processor: Any) -> int:
    if positions := getattr(config, "max_source_positions", None):
        return 2 * int(positions)  # two convolutions, one of which halves them
    extractor = getattr(processor, "feature_extractor", processor)
    if samples := getattr(extractor, "nb_max_samples", None):
        return int(samples) // int(extractor.hop_length) + 1
    return _first("max_length", config, 1001)


def _tokens(config: Any, processor: Any) -> int:
    return positions_of(config.get_text_config()) or _TOKENS


_DEFAULTS: Mapping[str, Callable[[Any, Any], int]] = {
    CHANNELS: lambda config, processor: _first("num_channels", config, 3),
    HEIGHT: lambda config, processor: image_size(config, processor)[0],
    WIDTH: lambda config, processor: image_size(config, processor)[1],
    FRAMES: lambda config, processor: _first("num_frames", config, 16),
    SAMPLES: lambda config, processor: _TEN_SECONDS,
    MEL: _mel,
    MEL_FRAMES: _mel_frames,
    SEQUENCE: _tokens,
    CHOICES: lambda config, processor: _LABELS,
    TEXTS: lambda config, processor: _LABELS,
}
