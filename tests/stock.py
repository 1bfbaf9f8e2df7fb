"""Models that write, and the graphs that optimum's own exporter makes of them.

``python -m tests.stock FOLDER`` makes them once, where that exporter is (transformers 4.57); tests on both stacks read
them. Each model has two folders: ``original`` and ``onnx``.
"""

from __future__ import annotations

import copy
import functools
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from . import tiny, writers, zoo

FOLDER = Path(__file__).parents[1] / ".stock"
VOCABULARY = 433  # the tokenizer is a byte-level BPE, as transformers 5 takes any of Qwen2 or Whisper for one

# Each config takes the name of the spread that it knows. As in tests/tiny.py, it is wide enough to tell inputs apart.
_COMMON = {
    **{"vocab_size": VOCABULARY, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    **{"initializer_range": 0.4, "init_std": 0.4},
}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 128}
_GROUPED = {**_SMALL, "intermediate_size": 48, "num_key_value_heads": 2}
_DECODER = {"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48, "max_position_embeddings": 64}
_HALVES = {**_DECODER, "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1}
_WHISPER = {**_HALVES, "max_target_positions": 64, "decoder_start_token_id": 0, "begin_suppress_tokens": None}
_PICTURES = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}


@dataclass(frozen=True)
class Original:
    """How to make a model, and the task that its graphs are exported for."""

    name: str  # of the class, without its head
    sizes: Mapping[str, Any]
    head: str = "ForCausalLM"
    task: str = "text-generation-with-past"

    @property
    def kind(self) -> Any:
        return getattr(transformers, self.name + self.head)

    def config(self) -> Any:
        return getattr(transformers, f"{self.name}Config")(**_COMMON, **self.sizes)

    def model(self) -> Any:
        return self.kind(self.config())

    def processors(self) -> list[Any]:
        words = copy.deepcopy(tiny.tokenizer("bpe"))
        if self.head in ("ForCausalLM", "LMHeadModel"):  # prompts are padded on the left, and have no end
            words.padding_side = words.init_kwargs["padding_side"] = "left"
            words.backend_tokenizer.post_processor = tokenizers.processors.ByteLevel()
        return [words]


class _Sounds(Original):
    def processors(self) -> list[Any]:
        return [*super().processors(), transformers.WhisperFeatureExtractor()]


class _Speech(Original):
    def model(self) -> Any:
        return writers.whisper()

    def processors(self) -> list[Any]:
        return [writers.whisper_processor()]


class _Pictures(Original):
    def config(self) -> Any:
        vision = transformers.ViTConfig(**_PICTURES, image_size=16, patch_size=8)
        text = transformers.TrOCRConfig(**_COMMON, **self.sizes)
        config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vision, text)
        config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 0, 1, 2
        return config

    def processors(self) -> list[Any]:
        return [*super().processors(), zoo.image_processor("ViT", size={"height": 16, "width": 16})]


_WRITES = "ForConditionalGeneration"
ORIGINALS: Mapping[str, Original] = {
    "gpt2": Original("GPT2", _GPT2, "LMHeadModel"),
    "gpt2-plain": Original("GPT2", _GPT2, "LMHeadModel", "text-generation"),
    "llama": Original("Llama", _GROUPED),
    "qwen2": Original("Qwen2", {**_GROUPED, "tie_word_embeddings": True}),
    "opt": Original("OPT", {**_SMALL, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": Original("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "t5": Original("T5", _T5, _WRITES, "text2text-generation-with-past"),
    "bart": Original("Bart", _HALVES, _WRITES, "text2text-generation-with-past"),
    "whisper": _Sounds("Whisper", _WHISPER, _WRITES, "automatic-speech-recognition-with-past"),
    "whisper-speech": _Speech("Whisper", {}, _WRITES, "automatic-speech-recognition-with-past"),
    "trocr": _Pictures("VisionEncoderDecoder", {**_DECODER, "d_model": 32}, "Model", "image-to-text-with-past"),
}


def names() -> list[str]:
    return list(ORIGINALS)


@functools.cache
def original(name: str) -> Any:
    """Returns the PyTorch model, in eval mode."""
    return ORIGINALS[name].kind.from_pretrained(_part(name, "original")).eval()


def graphs(name: str) -> Path:
    """Returns the folder of the export."""
    return _part(name, "onnx")


def _part(name: str, part: str) -> Path:
    folder = FOLDER / name / part
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not there. Run `make stock`, which makes the stock exports.")
    return folder


def make(folder: Path) -> None:
    """Makes all models and their exports anew."""
    from optimum.exporters.onnx import main_export

    shutil.rmtree(folder, ignore_errors=True)
    for name, specimen in ORIGINALS.items():
        torch.manual_seed(0)
        for part in (specimen.model(), *specimen.processors()):
            part.save_pretrained(folder / name / "original")
        main_export(str(folder / name / "original"), output=folder / name / "onnx", task=specimen.task)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
