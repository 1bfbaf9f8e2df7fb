"""How long answers take: this package beside what else can be had, each in a process of its own, taking turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from . import images, texts
from .models import MODELS
from .results import Pairs, Row, Table, Target, at_least, at_most, row_of
from .run import Contenders, Run
from .turns import Turn, take_turns
from .workers import Worker

PYTORCH, COMPILED, STOCK, OPENVINO = "PyTorch", "torch.compile", "stock optimum-onnx", "OpenVINO"
FP32, INT8 = "ours, fp32", "ours, int8"
OURS = {FP32: "fp32", INT8: "int8"}
FLOORS = {FP32: "by hand, fp32", INT8: "by hand, int8"}
BEST_BATCH = "PyTorch, best batch size"
SENTENCES, SENTENCES_ONNX, FASTEMBED = "sentence-transformers", "sentence-transformers, onnx", "fastembed"

_PARTS, _QUICK_PARTS = ("original", "stock", "fp32", "int8"), ("original", "fp32")
_SHORT_TARGETS = {"bert-tiny": (8, 13), "minilm": (4, 7), "bert-base": (2.2, 6.5)}
_LIST_TARGETS = {"bert-tiny": 12, "minilm": 8, "bert-base": 8}
_BATCH_TARGETS = {"bert-tiny": 5, "minilm": 5, "bert-base": 5.5}
_FLOOR_TARGETS = {"bert-tiny": 1.15}
_PADDED_TARGETS = (40, 50)
_IMAGE_TARGETS = (2, 4)
_LABELS_TARGETS = {1000: 100}


def measure_texts(run: Run) -> Iterator[Table]:
    """Yields the tables of text classification: a short text, a list, padded to 512, and latency by length."""
    rows: dict[str, list[Row]] = {"short": [], "list": [], "padded": [], "lengths": []}
    for model in run.models("bert-tiny", "minilm", "bert-base"):
        if not run.prepare(model, *(_QUICK_PARTS if run.quick else _PARTS)):
            continue
        title = MODELS[model].title
        with run.workers(title, _text_contenders(run, model)) as workers:
            rows["short"].append(_short(run, model, workers))
            rows["padded"].append(_padded(run, model, workers))
            rows["list"].append(_list(run, model, workers))
            if model in ("minilm", "minimal"):
                lengths = texts.LENGTHS[:2] if run.quick else texts.LENGTHS
                rows["lengths"] += [_length(run, tokens, workers) for tokens in lengths]
    for key, (heading, about) in _TEXT_TABLES.items():
        yield Table(key, heading, about.format(count=run.texts), "ms", tuple(rows[key]))


_TEXT_TABLES = {
    "short": (
        "One short text",
        "`pipe(text)` with 12 tokens. All but the loops by hand are pipelines: transformers' own, or ours. A loop by "
        "hand (`tokenizers`, NumPy, `session.run`, NumPy) runs on the very session of ours, in its process.",
    ),
    "list": (
        "A list of texts",
        "`pipe(texts)` with {count} texts of realistic lengths (median 20, mean 25 tokens, up to 200): the same user "
        "code for all, and transformers' pipelines with the best `batch_size=` of 8, 16 and 32 as well.",
    ),
    "padded": (
        "One short text, padded to 512",
        "What is common with fixed shapes: one graph of 512 tokens, one row a call. The same 12 tokens, padded to 512 "
        "for all but ours, which runs them on its rung of 12.",
    ),
    "lengths": ("Latency by length", "`pipe(text)`, MiniLM."),
}


def measure_embeddings(run: Run) -> Iterator[Table]:
    """Yields the table of embeddings: a short text and a list."""
    if run.quick or not run.prepare("minilm-embeddings", "original", "stock", *OURS.values()):
        return
    common = {"folder": run.place("minilm-embeddings"), "count": run.texts}
    contenders = {
        SENTENCES: ("embeddings:sentence_transformers", {**common, "part": "original", "backend": "torch"}),
        SENTENCES_ONNX: ("embeddings:sentence_transformers", {**common, "part": "stock", "backend": "onnx"}),
        FASTEMBED: ("embeddings:fastembed", common),
        **{who: ("embeddings:ours", {**common, "dtype": dtype}) for who, dtype in OURS.items()},
    }
    pairs = [(slow, ours, None) for slow in (SENTENCES, SENTENCES_ONNX, FASTEMBED) for ours in OURS]
    rows = []
    with run.workers("embeddings", contenders) as workers:
        for call, name in ((texts.SHORT, "one short text"), (texts.LIST, f"a list of {run.texts} texts")):
            turns = [Turn(worker, {who: call}) for who, worker in workers.items()]
            rows.append(row_of(name, run.take_turns(f"embeddings, {name}", turns, seconds=0.4), pairs))
    about = "The real all-MiniLM-L6-v2: `model.encode(texts)` of sentence-transformers, `pipe.embed(texts)` of ours."
    yield Table("embeddings", "Embeddings", about, "ms", tuple(rows))


def measure_images(run: Run) -> Iterator[Table]:
    """Yields the tables of image classification and of zero-shot image classification."""
    if run.quick:
        return
    if run.prepare("resnet-50", "original", "stock", *OURS.values()):
        yield _resnet(run)
    if run.prepare("clip", "original", "stock", "fp32"):
        yield _zero_shot(run)


def _text_contenders(run: Run, model: str) -> Contenders:
    common = {"folder": run.place(model), "count": run.texts}
    contenders = {
        PYTORCH: ("texts:pytorch", common),
        COMPILED: ("texts:pytorch", {**common, "compiled": True}),
        STOCK: ("texts:stock", common),
        OPENVINO: ("texts:openvino", common),
        **{who: ("texts:ours", {**common, "dtype": dtype}) for who, dtype in OURS.items()},
    }
    if run.quick:
        return {who: contenders[who] for who in (PYTORCH, FP32)}
    return (
        contenders if run.prepare(model, "openvino") else {k: each for k, each in contenders.items() if k != OPENVINO}
    )


def _short(run: Run, model: str, workers: Mapping[str, Worker]) -> Row:
    turns = []
    for who, worker in workers.items():
        floor = {FLOORS[who]: texts.FLOOR} if who in FLOORS else {}
        turns.append(Turn(worker, {who: texts.SHORT, **floor}))
    times = run.take_turns(f"{MODELS[model].title}, one short text", turns, seconds=0.3)
    beyond = at_most(_FLOOR_TARGETS.get(model, 1.03))
    return row_of(MODELS[model].title, times, [*_against_all(_SHORT_TARGETS.get(model)), *_against_floors(beyond)])


def _against_all(targets: tuple[float, float] | None) -> Pairs:
    for index, ours in enumerate(OURS):
        yield PYTORCH, ours, at_least(targets[index]) if targets else None
        for other in (COMPILED, STOCK, OPENVINO):
            yield other, ours, None


def _against_floors(target: Target) -> Pairs:
    for ours, floor in FLOORS.items():
        yield ours, floor, target


def _list(run: Run, model: str, workers: Mapping[str, Worker]) -> Row:
    turns = [Turn(worker, {who: texts.LIST}) for who, worker in workers.items()]
    if PYTORCH in workers:
        turns.append(Turn(workers[PYTORCH], {BEST_BATCH: _best_batch(workers[PYTORCH])}))
    if STOCK in workers:
        turns.append(Turn(workers[STOCK], {f"{STOCK}, best batch size": _best_batch(workers[STOCK])}))
    times = run.take_turns(f"{MODELS[model].title}, a list", turns, seconds=0.5, budget=75)
    pairs: Pairs = [
        (PYTORCH, INT8, _at_least(_LIST_TARGETS.get(model))),
        (BEST_BATCH, INT8, _at_least(_BATCH_TARGETS.get(model))),
        (PYTORCH, FP32, None),
        (BEST_BATCH, FP32, None),
        *((f"{STOCK}, best batch size", ours, None) for ours in OURS),
    ]
    return row_of(MODELS[model].title, times, pairs)


def _best_batch(worker: Worker) -> str:
    calls = [texts.batched(size) for size in texts.BATCHES]
    times = take_turns([Turn(worker, {call: call}) for call in calls], rounds=1)
    return min(times.rounds, key=lambda call: times.spread(call).median, default=texts.LIST)


def _padded(run: Run, model: str, workers: Mapping[str, Worker]) -> Row:
    turns = [Turn(worker, {who: texts.SHORT}) for who, worker in workers.items() if who in OURS]
    turns += [Turn(workers[who], {f"{who}, padded": texts.PADDED}) for who in (PYTORCH, STOCK) if who in workers]
    times = run.take_turns(f"{MODELS[model].title}, padded to 512", turns, budget=30)
    pairs = [
        (f"{slow}, padded", ours, at_least(target) if slow == PYTORCH else None)
        for slow in (PYTORCH, STOCK)
        for ours, target in zip(OURS, _PADDED_TARGETS, strict=True)
    ]
    return row_of(MODELS[model].title, times, pairs)


def _length(run: Run, tokens: int, workers: Mapping[str, Worker]) -> Row:
    call = texts.of_length(tokens)
    turns = [Turn(worker, {who: call}) for who, worker in workers.items()]
    times = run.take_turns(f"a text of {call}", turns, seconds=0.1, budget=15)
    return row_of(call, times, [(PYTORCH, ours, None) for ours in OURS])


def _resnet(run: Run) -> Table:
    common = {"folder": run.place("resnet-50"), "task": images.CLASSIFICATION}
    run.prepare("resnet-50", "openvino")
    contenders = {
        **{who: (f"images:{name}", common) for who, name in _LOADERS.items()},
        **{who: ("images:ours", {**common, "dtype": dtype}) for who, dtype in OURS.items()},
    }
    with run.workers("ResNet-50", contenders) as workers:
        turns = [Turn(worker, {who: images.SINGLE}) for who, worker in workers.items()]
        times = run.take_turns("ResNet-50", turns, seconds=0.4)
    pairs = [
        (slow, ours, at_least(target) if slow == PYTORCH else None)
        for slow in _LOADERS
        for ours, target in zip(OURS, _IMAGE_TARGETS, strict=True)
    ]
    about = "`pipe(image)` with an image of 500 x 375 pixels in memory: resizing, normalizing, the model, the labels."
    return Table("resnet", "ResNet-50, end to end", about, "ms", (row_of("ResNet-50", times, pairs),))


_LOADERS = {PYTORCH: "pytorch", STOCK: "stock", OPENVINO: "openvino"}


def _zero_shot(run: Run) -> Table:
    common = {"folder": run.place("clip"), "task": images.ZERO_SHOT}
    contenders: Contenders = {
        PYTORCH: ("images:pytorch", common),
        STOCK: ("images:stock", common),
        FP32: ("images:ours", {**common, "dtype": "fp32"}),
    }
    rows = []
    with run.workers("CLIP", contenders) as workers:
        for count in images.LABELS:
            call = images.with_labels(count)
            turns = [Turn(worker, {who: call}) for who, worker in workers.items()]
            times = run.take_turns(f"CLIP, {call}", turns, budget=60)
            target = _at_least(_LABELS_TARGETS.get(count))
            rows.append(row_of(call, times, [(PYTORCH, FP32, target), (STOCK, FP32, None)]))
    about = "CLIP ViT-B/32, `pipe(image, candidate_labels=labels)` again and again with the same labels: an app's loop."
    return Table("zero-shot", "Zero-shot image classification", about, "ms", tuple(rows))


def _at_least(bound: float | None) -> Target | None:
    return None if bound is None else at_least(bound)
