"""A Space on a fixed graph: gradio in front, one pipeline behind, for any number of users at the same time.

`make_demo` is what stands in the ``app.py`` of a Space. By itself the script starts the app on a free port of this
machine, asks it as users of the Space would, through gradio's client, prints the answers and shuts it down; ``--serve``
keeps it open for a browser. Look for: the answers are the pipeline's own, also of many messages at once; those that
wait while a graph runs share the next run. Without ``--model`` it is a small BERT, trained on the spot to sort messages
to a shop; it is so fast that few wait. There is no share link, and gradio's analytics are off.

A Space needs two files beside ``app.py``. `README.md` starts with

    ---
    title: What is it about?
    sdk: gradio
    sdk_version: 6.31.0
    app_file: app.py
    models: [my-org/bert-fixed]
    ---

and `requirements.txt` holds ``optimum-fixedshape``. Export the graphs before, and push them to the Hub; the app is then
``make_demo(pipeline("text-classification", model="my-org/bert-fixed").stream()).launch()``.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gradio
from gradio_client import Client

from optimum_fixedshape import Batcher, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline

TASK = "text-classification"
EXAMPLES = ["My parcel has still not arrived.", "You charged my credit card twice!", "The app crashes when I open it."]
ROWS = 8

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # for gradio's client: without it, the argument does nothing
# gradio counts its calls with arguments that pandas 3 deprecates, and leaves event loops to the garbage collector.
warnings.filterwarnings("ignore", "'future.no_silent_downcasting'|The copy keyword", DeprecationWarning)
warnings.filterwarnings("ignore", "unclosed (event loop|<socket)", ResourceWarning)


def make_demo(batcher: Batcher) -> gradio.Interface:
    """The app. gradio calls `classify` once for each user; the batcher joins the calls that come together."""

    def classify(text: str) -> dict[str, float]:
        return {answer["label"]: answer["score"] for answer in batcher(text, top_k=None)}

    return gradio.Interface(
        classify,
        gradio.Textbox(label="Message"),
        gradio.Label(label="Topic"),
        examples=EXAMPLES,
        title="What is it about?",
        flagging_mode="never",
        concurrency_limit=32,  # by default gradio answers one user at a time
        api_name="classify",
        analytics_enabled=False,
    )


def main() -> None:
    """Starts the app and uses it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a folder or Hub repo with fixed graphs of a model that classifies texts")
    parser.add_argument("--serve", action="store_true", help="keep the app open until Ctrl+C")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        graphs = arguments.model or made_here(Path(temporary))
        pipe = pipeline(TASK, model=graphs)
        with pipe.stream() as batcher:
            demo = make_demo(batcher)
            _, address, _ = demo.launch(share=False, prevent_thread_lock=True, quiet=True)
            print(f"1. The app is open at {address}\n")
            try:
                if arguments.serve:
                    demo.block_thread()
                else:
                    use(Client(address, verbose=False, analytics_enabled=False), pipe)
            finally:
                demo.close(verbose=False)


def made_here(folder: Path) -> Path:
    """The folder that one would push to the Hub."""
    source = offline.text_classifier(folder / "bert")
    shapes = {"batch_size": [1, ROWS], "sequence_length": 32}
    return export_model(source, folder / "bert-fixed", task=TASK, shapes=shapes, progress=False)


def use(client: Client, pipe: Any) -> None:
    """Asks as one user, and as several at once; prints the answers, and how the graphs ran."""
    for text in EXAMPLES:
        best = client.predict(text, api_name="/classify")["confidences"][0]
        print(f"   {best['label']:<12}{best['confidence']:.3f}  {text}")

    texts = EXAMPLES * 10
    print(f"\n2. {len(texts)} messages at once\n")
    before = sum(rung.runs for rung in pipe.model.stats)
    start = time.perf_counter()
    calls = [client.submit(text, api_name="/classify") for text in texts]
    answers = [call.result()["label"] for call in calls]
    seconds = time.perf_counter() - start
    runs = sum(rung.runs for rung in pipe.model.stats) - before
    print(f"   {seconds:.2f} s, nearly all of it gradio's; {runs} runs of a graph of up to {ROWS} rows")
    print(f"   Every answer is the pipeline's own: {answers == [answer['label'] for answer in pipe(texts)]}")


if __name__ == "__main__":
    main()
