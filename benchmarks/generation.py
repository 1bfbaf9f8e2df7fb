"""Models that write, step by step: PyTorch, stock optimum-onnx, and this package, on the same weights.

A step's time is that of a long answer less that of an answer of one token, divided by the steps between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .models import CONTEXTS, MODELS, PREFILLS
from .results import Row, Table, row_of
from .run import Run
from .turns import Times
from .workers import Calls, ContenderError

PYTORCH, STOCK = "PyTorch", "stock optimum-onnx"
PINNED, EXPORTED = "ours, stock graphs pinned", "ours, exported"
CONTENDERS = {PYTORCH: "pytorch", STOCK: "stock", PINNED: "pinned", EXPORTED: "exported"}
PROMPTS = {"gpt2": (16, 960), "whisper-tiny": (4, 400)}
_STEPS = 16
_MOST_ROUNDS = 3
_NAMES = {"gpt2": "CausalLM", "whisper-tiny": "SpeechSeq2Seq"}


def measure_generation(run: Run) -> Iterator[Table]:
    """Yields the tables of steps and of prompts."""
    steps: list[Row] = []
    prompts: list[Row] = []
    for model in [] if run.quick else PROMPTS:
        if run.prepare(model, "original", "stock", "ours"):
            for prompt, (step, prefill) in _taken(run, model).items():
                steps.append(_row(f"{MODELS[model].title}, behind {prompt} tokens", step))
                prompts.append(_row(f"{MODELS[model].title}, {prompt} tokens", prefill))
    about = "`generate()`, fp32: milliseconds of one token more behind so many. {} Contexts of ours: {}."
    contexts = "; ".join(f"{MODELS[model].title} {sizes}" for model, sizes in CONTEXTS.items())
    yield Table(
        "steps", "Writing: a step", about.format("Stock graphs grow with every token.", contexts), "ms", (*steps,)
    )
    yield Table("prompts", "Writing: the prompt", "`generate()` of one token behind a prompt.", "ms", (*prompts,))


def _taken(run: Run, model: str) -> Mapping[int, tuple[Times, Times]]:
    """Times of a step and of the prompt, by prompt."""
    title = MODELS[model].title
    taken = {prompt: (Times(), Times()) for prompt in PROMPTS[model]}
    contenders = {
        who: ("generation:writer", {"folder": run.place(model), "name": model, "kind": kind})
        for who, kind in CONTENDERS.items()
    }
    with run.workers(title, contenders) as workers:
        alive = dict(workers)
        for _ in range(min(run.rounds, _MOST_ROUNDS) + 1):
            for prompt, times in taken.items():
                for who, worker in list(alive.items()):
                    try:
                        facts = worker.ask(str(prompt))
                    except ContenderError as error:
                        run.miss(f"{title}: {who}", str(error))
                        del alive[who]
                        continue
                    for of, what in zip(times, ("step", "prefill"), strict=True):
                        of.rounds.setdefault(who, []).append([facts[what]])
    for each in (times for pair in taken.values() for times in pair):
        each.rounds = {who: rounds[1:] for who, rounds in each.rounds.items() if who in alive}  # the first warms up
    return taken


def _row(name: str, times: Times) -> Row:
    return row_of(name, times, [(slow, ours, None) for ours in (PINNED, EXPORTED) for slow in (PYTORCH, STOCK)])


def writer(folder: str, name: str, kind: str) -> Calls:
    """A model that writes; its calls are named after the tokens of the prompt."""
    write = _WRITERS[name](_loaded(Path(folder), name, kind))
    return {str(prompt): partial(_timed, write, prompt) for prompt in PROMPTS[name]}


def _timed(write: Callable[[int, int], float], prompt: int) -> dict[str, float]:
    short = write(prompt, 1)
    return {"prefill": short, "step": (write(prompt, 1 + _STEPS) - short) / _STEPS}


def _loaded(folder: Path, name: str, kind: str) -> Any:
    import transformers

    import optimum_fixedshape

    model_class = f"ModelFor{_NAMES[name]}"
    if kind == "pytorch":
        return getattr(transformers, f"Auto{model_class}").from_pretrained(folder / "original").eval()
    if kind == "stock":
        import optimum.onnxruntime

        return getattr(optimum.onnxruntime, f"ORT{model_class}").from_pretrained(folder / "stock")
    ours = getattr(optimum_fixedshape, f"ORT{model_class}")
    if kind == "exported":
        return ours.from_pretrained(folder / "ours")
    shapes = {"context_length": CONTEXTS[name], "prefill_length": PREFILLS[name]}
    return ours.from_pretrained(folder / "stock", shapes=shapes)


def _write_text(model: Any) -> Callable[[int, int], float]:
    """A function that writes tokens behind a prompt, and returns the seconds."""

    def write(prompt: int, tokens: int) -> float:
        ids = _prompt(prompt)
        start = time.perf_counter()
        model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=50256)
        return time.perf_counter() - start

    return write


def _write_down(model: Any) -> Callable[[int, int], float]:
    """A function that writes tokens behind a decoder's prompt, for one sound, and returns the seconds."""
    import torch
    from transformers import GenerationMixin

    sound = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    heard = model.get_encoder()(sound, attention_mask=None)

    def write(prompt: int, tokens: int) -> float:
        asked = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        ids = _prompt(prompt)
        start = time.perf_counter()
        GenerationMixin.generate(model, encoder_outputs=heard, decoder_input_ids=ids, **asked)
        return time.perf_counter() - start

    return write


def _prompt(tokens: int) -> Any:
    import torch

    return torch.randint(5, 50000, (1, tokens), generator=torch.Generator().manual_seed(tokens))


_WRITERS: dict[str, Callable[[Any], Callable[[int, int], float]]] = {
    "gpt2": _write_text,
    "whisper-tiny": _write_down,
}
