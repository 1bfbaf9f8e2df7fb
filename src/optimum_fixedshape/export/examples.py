"""What a model is exported with: which inputs, which axes they have, and numbers to put there."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from optimum_fixedshape.contract import BATCH, SAMPLES, SEQUENCE
from optimum_fixedshape.fitting import pad_id_of
from optimum_fixedshape.padding import ALWAYS_PADDED
from optimum_fixedshape.roles import BOXES, INPUT_ROLES, MEL, MEL_FRAMES, Roles, tower_of
from optimum_fixedshape.tasks import TASKS, Task

from .shapes import Combination

Axes = Mapping[str, Roles]

_RANKS = {"multiple-choice": 3, "video-classification": 5}
_RANKS_OF_MODELS = {"audio-spectrogram-transformer": 3, "clap": 4}
_FRAMES_FIRST = frozenset({"seamless_m4t", "seamless_m4t_v2", "speech_to_text", "wav2vec2-bert"})


def axes_of(model: Any, row: Task) -> dict[str, Roles]:
    """Returns the inputs that the graph of a model takes, with the roles of their axes.

    Args:
        model: A PyTorch model of transformers.
        row: The task, which says what its pipelines feed.
    """
    taken = inspect.signature(model.forward).parameters
    axes = {name: _row(name, model.config, row) for name in _names_of(model, row) if name in taken}
    known = {role for name, roles in axes.items() if name != "attention_mask" for role in roles}
    if SEQUENCE not in known and SAMPLES in known and "attention_mask" in taken:
        axes["attention_mask"] = (BATCH, SAMPLES)
    if known.isdisjoint({SEQUENCE, SAMPLES}) or model.config.model_type in ALWAYS_PADDED:
        axes.pop("attention_mask", None)
    if getattr(model.config, "type_vocab_size", 0) < 2:
        axes.pop("token_type_ids", None)
    if "logits_per_text" not in row.outputs:
        return axes
    return {name: tuple(tower_of(roles) if role == BATCH else role for role in roles) for name, roles in axes.items()}


def keys_of(axes: Axes) -> list[str]:
    """Returns the shape keys of a graph's inputs."""
    return list(dict.fromkeys(role for roles in axes.values() for role in roles if role not in (None, BOXES)))


def example_of(model: Any, axes: Axes, sizes: Combination, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Returns random inputs of these sizes with real padding: each row is a little shorter than the one before."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: [sizes.get(role or "", _OTHERS.get(role, 1)) for role in roles] for name, roles in axes.items()}
    example = {name: _numbers(name, shape, model.config, generator) for name, shape in shapes.items()}
    mask = example.get("attention_mask")
    if mask is not None:
        _shorten(mask)
        pad = pad_id_of(model.config.get_text_config())
        for name, filler in (("input_ids", pad), ("token_type_ids", 0), ("input_values", 0)):
            if name in example and example[name].shape == mask.shape:
                example[name][mask == 0] = filler
    if "pixel_mask" in example:
        example["pixel_mask"][-1, 3 * sizes["height"] // 4 :] = 0
    return {name: tensor.to(model.device) for name, tensor in example.items()}


_OTHERS: Mapping[str | None, int] = {BOXES: 4}


def _names_of(model: Any, row: Task) -> tuple[str, ...]:
    """The task's inputs; of encoders, which embed what they take, those of any task that takes the same."""
    main = model.main_input_name
    return row.inputs if main in row.inputs else next((each.inputs for each in TASKS if main in each.inputs), (main,))


def _row(name: str, config: Any, row: Task) -> Roles:
    rows = INPUT_ROLES["pixel_values" if name == "image" else name]
    rank = _RANKS_OF_MODELS.get(config.model_type, _RANKS.get(row.name))
    found = next((roles for roles in rows if len(roles) == rank), rows[0])
    if found == (BATCH, MEL, MEL_FRAMES) and config.model_type in _FRAMES_FIRST:
        return BATCH, MEL_FRAMES, MEL
    return found


def _numbers(name: str, shape: list[int], config: Any, generator: torch.Generator) -> torch.Tensor:
    if name == "input_ids":
        words = config.get_text_config()
        ids = torch.randint(0, words.vocab_size, shape, generator=generator)
        pad = pad_id_of(words)
        return ids.masked_fill(ids == pad, (pad + 1) % words.vocab_size)
    if name == "token_type_ids":
        return (torch.arange(shape[-1]) > shape[-1] // 2).long().expand(shape).clone()
    if name == "bbox":
        corners = torch.randint(0, 500, shape, generator=generator)
        return corners + torch.tensor([0, 0, 500, 500])
    if name.endswith("mask"):
        return torch.ones(shape, dtype=torch.long)
    return torch.randn(shape, generator=generator)


def _shorten(mask: torch.Tensor) -> None:
    length = mask.shape[-1]
    for number, row in enumerate(mask.view(-1, length)):
        row[max(length // 2, 1, length - number * max(1, length // 64)) :] = 0
