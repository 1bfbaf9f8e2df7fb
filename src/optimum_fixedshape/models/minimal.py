"""The configuration of a graph that came without one: what the graph tells, under a model type that has room for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from optimum_fixedshape.contract import SAMPLES, SEQUENCE, Axis, ShapeContract
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.graph.heads import activation_of
from optimum_fixedshape.graph.lookups import Lookups
from optimum_fixedshape.graph.outline import outline_of
from optimum_fixedshape.roles import CHANNELS, FRAMES, HEIGHT, MEL, MEL_FRAMES, WIDTH
from optimum_fixedshape.tasks import Task

Facts = dict[str, Any]

_ONE_ROW_AN_ITEM: Final = ("SequenceClassifierOutput", "ImageClassifierOutput")
"""The outputs whose logits are ``(rows, labels)``."""

_TYPES: Final[Mapping[str, str]] = {
    "ORTModelForObjectDetection": "yolos",
    "ORTModelForSemanticSegmentation": "segformer",
    "ORTModelForDepthEstimation": "dpt",
    "ORTModelForVideoClassification": "videomae",
    "ORTModelForZeroShotImageClassification": "clip",
    "ORTModelForZeroShotAudioClassification": "clap",
    "ORTModelForDocumentQuestionAnswering": "layoutlmv3",
    "ORTModelForCausalLM": "llama",
    "ORTModelForCTC": "wav2vec2",
    "ORTModelForAudioFrameClassification": "wav2vec2",
    "ORTModelForAudioXVector": "wav2vec2",
}
"""The type of a model by its class: one that transformers 4 and 5 know, and whose configuration has the graph's facts.

What is not among those facts keeps the type's default and means nothing.
"""

_TYPES_BY_ROLE: Final = {HEIGHT: "vit", SAMPLES: "audio-spectrogram-transformer", MEL: "audio-spectrogram-transformer"}
_OF_TEXTS: Final = "bert"
_SHORTEST_TABLE: Final = 512

_LABELS_OF_PIXELS: Final = "ORTModelForSemanticSegmentation"
_WITH_NO_OBJECT: Final = "ORTModelForObjectDetection"
_OF_WORDS: Final = ("ORTModelForMaskedLM", "ORTModelForCausalLM", "ORTModelForCTC")


def minimal_config(contract: ShapeContract, row: Task | None, labels: Sequence[str] | None = None) -> Facts:
    """Returns a ``config.json`` that stock transformers reads, of what the graph tells and no more.

    Args:
        contract: The graph, under standard names.
        row: Its task, or None where nobody knows.
        labels: Names of the labels, in order.

    Raises:
        ShapeMismatchError: There are more or fewer labels than the graph has.
    """
    sizes, kind = contract.sizes, model_type_of(contract, row)
    facts: Facts = {"model_type": kind}
    for role, make in _FACTS.items():
        if role in sizes:
            facts |= make(contract)
    if kind == "llama":
        facts |= _of_cache(contract)
    words = _words_of(contract, row)
    if words:
        facts["vocab_size"] = words
    if kind in ("clip", "clap"):
        facts = _in_towers(facts, kind)
    return facts | label_facts(contract, row, labels)


def model_type_of(contract: ShapeContract, row: Task | None) -> str:
    """Returns the model type that stands for a graph whose original nobody knows."""
    if row and row.model in _TYPES:
        return _TYPES[row.model]
    return next((kind for role, kind in _TYPES_BY_ROLE.items() if role in contract.sizes), _OF_TEXTS)


def label_facts(contract: ShapeContract, row: Task | None, labels: Sequence[str] | None = None) -> Facts:
    """Returns what ``config.json`` says of labels: their number or their names, and what kind of problem it is.

    Raises:
        ShapeMismatchError: There are more or fewer labels than the graph has.
    """
    count = None if row and row.model in _OF_WORDS else labels_of(contract, row)
    if labels and count and len(labels) != count:
        raise ShapeMismatchError(f"labels= names {len(labels)} labels, and the graph has {count}: {_logits(contract)}.")
    facts: Facts = {}
    if labels:
        facts["id2label"] = {str(index): label for index, label in enumerate(labels)}
        facts["label2id"] = {label: index for index, label in enumerate(labels)}
    elif count:
        facts["num_labels"] = count
    if is_row_an_item(row) and (count := count or len(labels or ())):
        facts["problem_type"] = _problem(count, activation(contract))
    return facts


def labels_of(contract: ShapeContract, row: Task | None = None) -> int | None:
    """Returns how many labels a classifier's logits have, or None where the graph does not tell."""
    logits = _logits(contract)
    axes: tuple[Axis, ...] = (logits.axes if logits else None) or ()
    if row and row.model == _LABELS_OF_PIXELS:
        return axes[1].size if len(axes) > 1 else None
    while len(axes) > 2 and axes[-1].size == 1:  # what is left of an image that was pooled
        axes = axes[:-1]
    last = axes[-1] if axes else None
    size = last.size if last and last.role is None else None
    return size - 1 if size and row and row.model == _WITH_NO_OBJECT else size


def activation(contract: ShapeContract) -> str | None:
    """Returns the operator that makes probabilities of the logits within the graph, or None."""
    logits, outline = _logits(contract), outline_of(contract)
    return activation_of(outline, logits.session_name) if logits and outline else None


def is_row_an_item(row: Task | None) -> bool:
    """Whether models of the task give ``(rows, labels)``."""
    return row is not None and row.output in _ONE_ROW_AN_ITEM


def pipeline_settings(contract: ShapeContract, row: Task | None) -> dict[str, Any]:
    """Returns how a pipeline is to treat a graph whose scores are probabilities already: as they are."""
    takes_it = row and is_row_an_item(row) and not row.name.startswith("zero-shot")
    return {"function_to_apply": "none"} if takes_it and activation(contract) else {}


def _logits(contract: ShapeContract) -> Any:
    return next((spec for spec in contract.outputs if spec.name == "logits" and spec.axes), None)


def _problem(labels: int, activation: str | None) -> str:
    if activation == "Sigmoid":
        return "multi_label_classification"
    return "regression" if labels == 1 else "single_label_classification"


def _of_pixels(contract: ShapeContract) -> Facts:
    sizes = contract.sizes
    height, width = sizes[HEIGHT], sizes.get(WIDTH)
    size: Any = height if height == width else [height, width]
    return ({"image_size": size} if height and width else {}) | {"num_channels": sizes.get(CHANNELS) or 3}


def _of_texts(contract: ShapeContract) -> Facts:
    return {"max_position_embeddings": max(contract.sequence_length or 0, _SHORTEST_TABLE)}


def _of_frames(contract: ShapeContract) -> Facts:
    return {"num_frames": contract.sizes[FRAMES]} if contract.sizes[FRAMES] else {}


def _of_spectrograms(contract: ShapeContract) -> Facts:
    named = {"num_mel_bins": contract.sizes.get(MEL), "max_length": contract.sizes.get(MEL_FRAMES)}
    return {name: size for name, size in named.items() if size}


_FACTS: Final[Mapping[str, Callable[[ShapeContract], Facts]]] = {
    SEQUENCE: _of_texts,
    HEIGHT: _of_pixels,
    FRAMES: _of_frames,
    MEL: _of_spectrograms,
}
"""What the axes of a graph tell its configuration, by a role that it has."""


def _words_of(contract: ShapeContract, row: Task | None) -> int | None:
    """The size of the vocabulary: of the logits of what writes words, else of the table that ids are looked up in."""
    logits = _logits(contract)
    if row and row.model in _OF_WORDS and logits and logits.axes[-1].size:
        return int(logits.axes[-1].size)
    spec = next((spec for spec in contract.inputs if spec.name == "input_ids"), None)
    outline = outline_of(contract) if spec else None
    return Lookups(outline).rows(spec.session_name) if spec and outline else None


def _of_cache(contract: ShapeContract) -> Facts:
    """Layers and heads, as stock optimum needs them to start a cache."""
    pasts = [tensor for tensor in contract.cache if tensor.past]
    if not pasts:
        return {}
    _, heads, _, features = (axis.size for axis in contract.input(pasts[0].past or "").axes or ())
    layers = len({tensor.place.layer for tensor in pasts})
    if not heads or not features:
        return {"num_hidden_layers": layers}
    shared = {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": features}
    return {"num_hidden_layers": layers, **shared, "hidden_size": heads * features}


def _in_towers(facts: Facts, kind: str) -> Facts:
    """The facts of two towers, each under the tower's own name."""
    texts = {name: facts[name] for name in ("vocab_size", "max_position_embeddings") if name in facts}
    seen = {name: facts[name] for name in ("image_size", "num_channels") if name in facts}
    return {"model_type": kind, "text_config": texts} | ({"vision_config": seen} if seen else {})
