"""Finds the words that fit an image best, on a graph that takes exactly 2 images and 4 texts.

Exports a PyTorch model of two towers, one for images and one for texts, compares three images with five descriptions,
and does the same with transformers on PyTorch. What to look for: three is not 2 and five is not 4, and the scores are
PyTorch's. The graph is cut where its towers end, and a description that was seen before is not computed again. Without
``--model`` it is a small CLIP, trained on the spot on shapes in four colours.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import transformers
from PIL import Image

from optimum_fixedshape import AutoProcessor, ORTModelForZeroShotImageClassification, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import largest_difference, show_times

LABELS = ["a red circle", "a blue circle", "a blue square", "a green triangle", "a yellow triangle"]


def make_pipeline(source: str | Path, folder: Path) -> Any:
    """What you would write: export once, load, and call it like any pipeline."""
    shapes = {"image_batch_size": 2, "text_batch_size": 4}
    export_model(source, folder, task="zero-shot-image-classification", shapes=shapes, progress=False)
    model = ORTModelForZeroShotImageClassification.from_pretrained(folder)
    return pipeline("zero-shot-image-classification", model=model, data_processor=AutoProcessor.from_model(model))


def main() -> None:
    """Runs it beside PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*", help="files of images; by default drawn ones")
    parser.add_argument("--labels", nargs="+", default=LABELS, help="descriptions to choose from")
    parser.add_argument("--model", help="a PyTorch model such as CLIP: a folder or a Hub id")
    arguments = parser.parse_args()
    images = {name: Image.open(name).convert("RGB") for name in arguments.images} or drawings()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.model or offline.image_text_model(Path(folder) / "clip")
        ours = make_pipeline(source, Path(folder) / "clip-fixed")
        theirs = transformers.pipeline("zero-shot-image-classification", model=str(source))
        compare(ours, theirs, images, arguments.labels)


def drawings() -> dict[str, Image.Image]:
    """Three images of different sizes."""
    chance = random.Random(7)
    return {
        "a red circle": offline.drawing("circle", "red", chance, 200, 240),
        "a blue square": offline.drawing("square", "blue", chance, 64, 64),
        "a yellow triangle": offline.drawing("triangle", "yellow", chance, 130, 100),
    }


def compare(ours: Any, theirs: Any, images: dict[str, Image.Image], labels: list[str]) -> None:
    """Prints the answers, how far they are from PyTorch's, what was computed, and how long both took."""
    pictures = list(images.values())
    print(f"1. Answers, with {len(labels)} descriptions to choose from\n")
    for (name, image), answers in zip(images.items(), ours(pictures, candidate_labels=labels), strict=True):
        size = f"{image.width} x {image.height}"
        print(f"   {name:<20}{size:>10}   {answers[0]['label']:<20}{answers[0]['score']:.3f}")

    answers = ours(pictures, candidate_labels=labels)
    difference = largest_difference(answers, theirs(pictures, candidate_labels=labels))
    print(f"\n2. Largest difference from PyTorch, over all scores: {difference:.1e}")

    if ours.towers:
        parts = ours.towers.parts
        images_run, texts_run = (sum(rung.rows for rung in part.stats) for part in (parts.items, parts.texts))
        print(f"\n3. In two calls, {images_run} images and {texts_run} descriptions went through the graph")

    print(f"\n4. Time for {len(pictures)} images\n")
    show_times(
        {
            "transformers on PyTorch": lambda: theirs(pictures, candidate_labels=labels),
            "optimum_fixedshape": lambda: ours(pictures, candidate_labels=labels),
        }
    )


if __name__ == "__main__":
    main()
