"""optimum and this package, side by side: stock exports in, stock classes out.

With optimum-onnx (transformers 4.57): stock optimum exports a PyTorch model, which gives a graph of open sizes; this
package pins it while loading, or on disk; the model is an instance of optimum's own class, so optimum's own pipeline
takes it; and what it saves, stock optimum loads. Look for ``True`` after `isinstance`, and for what stock optimum says
of a text that is not exactly as long as the graph.

Without optimum-onnx, which does not install beside transformers 5: the model is an `OptimizedModel` of optimum's, and
optimum's command line has this package's commands. That much runs with both, and comes first.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import transformers
from optimum.modeling_base import OptimizedModel

from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, export_model, pin_shapes, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import largest_difference, show_times

TASK = "text-classification"
SHAPES = {"batch_size": 4, "sequence_length": [16, 64]}
TEXTS = ["My parcel has still not arrived.", "You charged my credit card twice!", "The app crashes when I open it."]


def stock_export(source: str | Path, folder: Path) -> None:
    """What you may have already: optimum's own export. ``optimum-cli export onnx`` writes the same."""
    from optimum.onnxruntime import ORTModelForSequenceClassification as StockModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimum-onnx uses the exporter that PyTorch has deprecated, which says so
        StockModel.from_pretrained(source, export=True).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def fixed_model(folder: Path, shapes: Any = None) -> Any:
    """Returns the model of a folder. With `shapes`, open sizes are pinned while it is loaded, and no file changes."""
    return ORTModelForSequenceClassification.from_pretrained(folder, shapes=shapes)


def main() -> None:
    """Runs what is there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a PyTorch model that classifies texts: a folder or a Hub id")
    source = parser.parse_args().model
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        source = source or offline.text_classifier(home / "bert")
        with_optimum(source, home)
        if importlib.util.find_spec("optimum.onnxruntime"):
            with_optimum_onnx(source, home)
        else:
            print("\noptimum-onnx is not installed: on transformers 4.57 this script goes on with optimum.onnxruntime.")


def with_optimum(source: str | Path, home: Path) -> None:
    """What runs with optimum alone."""
    print(f"1. optimum and transformers {transformers.__version__}\n")
    folder = export_model(source, home / "ours", task=TASK, shapes=SHAPES, progress=False)
    print(f"   isinstance(model, optimum's OptimizedModel): {isinstance(fixed_model(folder), OptimizedModel)}\n")
    command = Path(sys.executable).with_name("optimum-cli"), "fixed-shape", "inspect", folder
    print("   $ optimum-cli fixed-shape inspect ours")
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    print("\n".join(f"   {line}" for line in shown.partition("\n\n")[0].splitlines()[1:]))


def with_optimum_onnx(source: str | Path, home: Path) -> None:
    """What runs with optimum-onnx, too."""
    import optimum.onnxruntime as stock

    stock_export(source, home / "stock")
    print("\n2. A stock export, as stock optimum loads it and as this package does\n")
    dynamic = stock.ORTModelForSequenceClassification.from_pretrained(home / "stock")
    print(f"   stock: {dynamic.input_shapes['input_ids']}")
    model = fixed_model(home / "stock", SHAPES)
    print(f"   ours:  {', '.join(str(tuple(rung.sizes.values())) for rung in model.ladder.rungs)}")
    print(f"   isinstance(model, optimum's class): {isinstance(model, stock.ORTModelForSequenceClassification)}")

    print("\n3. optimum's own pipeline, and this package's, on that model\n")
    tokenizer = AutoTokenizer.from_model(model)
    theirs = stock.pipeline(TASK, model=model, tokenizer=tokenizer)
    ours = pipeline(TASK, model=model, data_processor=tokenizer)
    original = transformers.pipeline(TASK, model=str(source))
    for text, answer in zip(TEXTS, theirs(TEXTS), strict=True):
        print(f"   {answer['label']:<12}{answer['score']:.3f}  {text}")
    apart = max(largest_difference(pipe(TEXTS, top_k=None), original(TEXTS, top_k=None)) for pipe in (theirs, ours))
    print(f"\n   Largest difference from PyTorch: {apart:.1e}")

    print("\n4. The export pinned on disk, saved by our model and loaded by stock optimum\n")
    pinned = fixed_model(pin_shapes(home / "stock", home / "pinned", SHAPES, progress=False))
    pinned.save_pretrained(home / "saved")
    again = stock.ORTModelForSequenceClassification.from_pretrained(home / "saved")
    print(f"   stock: {again.input_shapes['input_ids']}")
    full = tokenizer(TEXTS[:1] * 4, padding="max_length", return_tensors="pt")
    apart = float((again(**full).logits - pinned(**full).logits).abs().max())
    print(f"   four texts of 64 tokens: stock and ours differ by {apart:.1e}")
    one = transformers.AutoTokenizer.from_pretrained(source)(TEXTS[0], return_tensors="pt")
    try:
        again(**one)
    except Exception as error:  # onnxruntime's errors share no public base class
        print(f"   one text, stock: {str(error).splitlines()[0].partition('INVALID_ARGUMENT : ')[2]}")
    print(f"   one text, ours:  {pinned.config.id2label[int(pinned(**one).logits.argmax())]}")

    print(f"\n5. Time for {len(TEXTS)} texts\n")
    open_sizes = stock.pipeline(TASK, model=dynamic, tokenizer=transformers.AutoTokenizer.from_pretrained(source))
    calls = {"transformers, PyTorch": original, "optimum, open sizes": open_sizes, "optimum, our model": theirs}
    show_times({name: lambda pipe=pipe: pipe(TEXTS) for name, pipe in (calls | {"optimum_fixedshape": ours}).items()})


if __name__ == "__main__":
    main()
