"""Models that write, step by step: PyTorch, stock optimum-onnx, and this package, on the same weights.

    .venv/4/bin/python -m benchmarks.generation    # on the stack that has optimum-onnx; writes docs/performance.md

Every contender lives in a process of its own, since their threads would fight, and they take turns: round by round,
each writes the same number of tokens behind the same prompt. A step's time is that of a long answer less that of an
answer of one token. Reported are medians, and ratios of medians of one run. Weights are random, sizes the originals'.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".benchmarks"
CONTENDERS = ("PyTorch", "stock optimum-onnx", "stock graphs, pinned", "our export")
OURS = CONTENDERS[2:]
CONTEXTS = {"gpt2": [128, 256, 512, 1024], "whisper-tiny": [64, 128, 448]}
PREFILLS = {"gpt2": [4, 16, 64, 256], "whisper-tiny": [4, 128, 448]}
PROMPTS = {"gpt2": (16, 200, 450, 960), "whisper-tiny": (4, 100, 400)}
STEPS = 24
ROUNDS = 5


def main() -> None:
    """Measures, prints a table, and writes it with the machine into ``docs/performance.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=2, metavar=("MODEL", "CONTENDER"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each contender takes its turn")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "performance.md")
    options = parser.parse_args()
    if options.worker:
        work(*options.worker)
        return
    lines = [*introduction(options.rounds)]
    for model in CONTEXTS:
        prepare(model)
        lines += [*report(model, *measure(model, options.rounds))]
        print("\n".join(lines), flush=True)
    options.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(model: str, rounds: int) -> tuple[dict[tuple[str, int], dict[str, float]], dict[str, float]]:
    """Returns the medians of each contender and prompt, and by how many MiB each process grew after the first round."""
    times: dict[tuple[str, int], dict[str, list[float]]] = {}
    grown = {}
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(model, name)) for name in CONTENDERS}
        for worker in workers.values():
            for prompt in PROMPTS[model]:
                worker.ask(prompt)
            grown[worker.name] = worker.memory
        for _ in range(rounds):
            for prompt in PROMPTS[model]:
                for name, worker in workers.items():
                    for what, seconds in worker.ask(prompt).items():
                        times.setdefault((name, prompt), {}).setdefault(what, []).append(seconds)
        grown = {name: worker.memory - grown[name] for name, worker in workers.items()}
    return {key: {what: median(all_) for what, all_ in of.items()} for key, of in times.items()}, grown


def report(model: str, times: dict[tuple[str, int], dict[str, float]], grown: dict[str, float]) -> Iterator[str]:
    """Yields a Markdown section: milliseconds a step, ratios to the first two contenders, and the growth of memory."""
    yield f"\n## {model}\n"
    yield (
        "| tokens before | "
        + " | ".join(f"{name}, ms" for name in CONTENDERS)
        + " | "
        + " | ".join(f"{theirs} ÷ {ours}" for ours in OURS for theirs in CONTENDERS[:2])
        + " |"
    )
    yield "|---|" + "---|" * (len(CONTENDERS) + 2 * len(OURS))
    for what, label in (("step", ""), ("prefill", "prompt of ")):
        for prompt in PROMPTS[model]:
            took = {name: times[name, prompt][what] for name in CONTENDERS}
            cells = [f"{1000 * took[name]:.1f}" for name in CONTENDERS]
            cells += [f"{took[theirs] / took[ours]:.2f}" for ours in OURS for theirs in CONTENDERS[:2]]
            yield f"| {label}{prompt} | " + " | ".join(cells) + " |"
    yield "\nMemory after the first round, MiB more: " + ", ".join(f"{k} {v:+.0f}" for k, v in grown.items()) + "."


def introduction(rounds: int) -> Iterator[str]:
    """Yields what was measured where."""
    facts = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next(line.partition(": ")[2] for line in facts if line.startswith("model name"))
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "torch", "transformers", "optimum-onnx"))
    ladders = "; ".join(f"{name} {sizes} and {PREFILLS[name]}" for name, sizes in CONTEXTS.items())
    yield "# Performance\n"
    yield "Written by `python -m benchmarks.generation`. All numbers are of one run; read the ratios, not the times.\n"
    yield f"{cpu}, {os.cpu_count()} cores, {platform.system()}; {packages}."
    yield "Random weights of the original sizes, float32. Contexts and prefills: " + ladders + ".\n"
    yield f"Milliseconds of one step behind so many tokens, and of reading a prompt: medians of {rounds} rounds, in"
    yield "which all take turns, each in a process of its own. A ratio above 1 means that ours is faster."


class Worker:
    """One contender in a process of its own, asked over a pipe."""

    def __init__(self, model: str, name: str) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.generation", "--worker", model, name]
        self.name = name
        self.memory = 0.0
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    def ask(self, prompt: int) -> dict[str, float]:
        """Returns the seconds of the prompt and of one step behind it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{prompt}\n")
        self._process.stdin.flush()
        while not (line := self._process.stdout.readline()).startswith("{"):
            if not line:
                raise RuntimeError(f"The process of {self.name} has ended.")
        facts = json.loads(line)
        self.memory = facts.pop("memory")
        return facts


def work(model: str, contender: str) -> None:
    """Answers each prompt length on stdin with a line of JSON."""
    write = WRITERS[model](loaded(model, contender))
    for line in sys.stdin:
        prompt = int(line)
        short = write(prompt, 1)
        long = write(prompt, 1 + STEPS)
        facts = {"prefill": short, "step": (long - short) / STEPS, "memory": resident()}
        print(json.dumps(facts), flush=True)


def resident() -> float:
    """MiB of this process that are in memory."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def write_text(model: Any) -> Callable[[int, int], float]:
    """Returns a function that writes tokens behind a prompt and returns the seconds."""
    import torch

    def write(prompt: int, tokens: int) -> float:
        ids = torch.randint(5, 50000, (1, prompt), generator=torch.Generator().manual_seed(prompt))
        start = time.perf_counter()
        model.generate(ids, max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=50256)
        return time.perf_counter() - start

    return write


def write_down(model: Any) -> Callable[[int, int], float]:
    """Returns a function that writes tokens behind a decoder's prompt, for one sound, and returns the seconds."""
    import torch
    from transformers import GenerationMixin

    sound = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    heard = model.get_encoder()(sound, attention_mask=None)

    def write(prompt: int, tokens: int) -> float:
        ids = torch.randint(5, 50000, (1, prompt), generator=torch.Generator().manual_seed(prompt))
        start = time.perf_counter()
        GenerationMixin.generate(
            model,
            encoder_outputs=heard,
            decoder_input_ids=ids,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
        )
        return time.perf_counter() - start

    return write


WRITERS: dict[str, Callable[[Any], Callable[[int, int], float]]] = {"gpt2": write_text, "whisper-tiny": write_down}
TASKS = {
    "gpt2": ("text-generation", "ModelForCausalLM"),
    "whisper-tiny": ("automatic-speech-recognition", "ModelForSpeechSeq2Seq"),
}


def loaded(model: str, contender: str) -> Any:
    """Returns a contender, ready to write."""
    import transformers

    import optimum_fixedshape

    folder, (_, name) = FOLDER / model, TASKS[model]
    shapes = {"context_length": CONTEXTS[model], "prefill_length": PREFILLS[model]}
    if contender == "PyTorch":
        return getattr(transformers, f"Auto{name}").from_pretrained(folder / "original").eval()
    if contender == "stock optimum-onnx":
        import optimum.onnxruntime

        return getattr(optimum.onnxruntime, f"ORT{name}").from_pretrained(folder / "stock")
    ours = getattr(optimum_fixedshape, f"ORT{name}")
    if contender == "our export":
        return ours.from_pretrained(folder / "ours")
    return ours.from_pretrained(folder / "stock", shapes=shapes)


def prepare(model: str) -> None:
    """Makes the weights and the graphs, once; they stay in ``.benchmarks``."""
    import torch
    import transformers
    from optimum.exporters.onnx import main_export

    from optimum_fixedshape import export_model

    folder, (task, _) = FOLDER / model, TASKS[model]
    if (folder / "ours" / "fixedshape_config.json").is_file():
        return
    torch.manual_seed(0)
    original = (
        transformers.GPT2LMHeadModel(transformers.GPT2Config())
        if model == "gpt2"
        else transformers.WhisperForConditionalGeneration(transformers.WhisperConfig())  # the defaults are Whisper-tiny
    )
    original.eval().save_pretrained(folder / "original")
    main_export(str(folder / "original"), output=folder / "stock", task=f"{task}-with-past", do_validation=False)
    shapes = {"context_length": CONTEXTS[model], "prefill_length": PREFILLS[model]}
    export_model(original, folder / "ours", task=task, shapes=shapes, progress=False)


if __name__ == "__main__":
    main()
