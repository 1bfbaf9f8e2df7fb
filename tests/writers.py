"""Models that hear or see, and write: tokenizers with all of Whisper's special tokens, processors, and originals."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path
from string import ascii_letters
from typing import Any

import tokenizers
import torch
import transformers
from transformers.models.whisper.tokenization_whisper import LANGUAGES

END = "<|endoftext|>"
_TASKS = ("translate", "transcribe", "startoflm", "startofprev", "nospeech", "notimestamps")
SPECIAL = [END, "<|startoftranscript|>", *(f"<|{code}|>" for code in LANGUAGES), *(f"<|{task}|>" for task in _TASKS)]
TIMES = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]


@functools.cache
def whisper_tokenizer() -> Any:
    """Returns a tokenizer of bytes, with the special tokens of the multilingual Whisper in their order."""
    rust = tokenizers.Tokenizer(tokenizers.models.BPE(_bytes(), []))
    rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = tokenizers.decoders.ByteLevel()
    rust.add_special_tokens(SPECIAL)
    rust.add_tokens([tokenizers.AddedToken(time, normalized=False) for time in TIMES])
    with tempfile.TemporaryDirectory() as folder:
        rust.save(f"{folder}/tokenizer.json")
        words = {"unk_token": END, "bos_token": END, "eos_token": END, "pad_token": END}
        config = {"tokenizer_class": "WhisperTokenizer", "additional_special_tokens": SPECIAL[1:], **words}
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config))
        return transformers.WhisperTokenizerFast.from_pretrained(folder)


def _bytes() -> dict[str, int]:
    return {byte: place for place, byte in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}


def whisper_processor() -> Any:
    return transformers.WhisperProcessor(transformers.WhisperFeatureExtractor(), whisper_tokenizer())


@functools.cache
def whisper() -> Any:
    """Returns a Whisper whose transcripts differ from sound to sound: bytes, and now and then a time."""
    words = whisper_tokenizer()
    ids = {token: words.convert_tokens_to_ids(token) for token in SPECIAL}
    special = {"pad_token_id": ids[END], "bos_token_id": ids[END], "eos_token_id": ids[END]}
    special["decoder_start_token_id"] = ids["<|startoftranscript|>"]
    config = transformers.WhisperConfig(
        **{"vocab_size": len(words), "d_model": 32, "num_mel_bins": 80, "max_target_positions": 128},
        **{"encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
        **{"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48},
        **{"init_std": 0.4, "suppress_tokens": None, "begin_suppress_tokens": None},
        **special,
    )
    torch.manual_seed(0)
    model = transformers.WhisperForConditionalGeneration(config).eval()
    # Most of what such a model says would be no text, or one letter over and over, without an end.
    with torch.no_grad():
        model.model.decoder.embed_positions.weight *= 3
        model.proj_out.weight[: ids[END]] /= 2
        model.proj_out.weight[[words.convert_tokens_to_ids(letter) for letter in (*ascii_letters, "Ġ")]] *= 4
        model.proj_out.weight[ids[END]] *= 3
    model.generation_config = transformers.GenerationConfig(
        **special,
        max_length=config.max_target_positions,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": ids[f"<|{code}|>"] for code in LANGUAGES},
        task_to_id={task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        prev_sot_token_id=ids["<|startofprev|>"],
        max_initial_timestamp_index=50,
        return_timestamps=False,
    )
    return model
