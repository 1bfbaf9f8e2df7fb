"""Tells what is on images, on a graph that takes exactly 4 images of one size.

Exports a PyTorch model, classifies six images of six sizes with the graph, and does the same with transformers on
PyTorch. What to look for: neither their number nor their size is the graph's, and still the answers are PyTorch's.
Without ``--model`` it is a small ResNet, trained on the spot to tell circles, squares and triangles apart.
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

from optimum_fixedshape import AutoImageProcessor, ORTModelForImageClassification, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import largest_difference, show_times

SIZES = [(64, 64), (200, 160), (120, 150), (640, 480), (90, 100), (33, 35)]


def make_pipeline(source: str | Path, folder: Path) -> Any:
    """What you would write: export once, load, and call it like any pipeline."""
    export_model(source, folder, task="image-classification", shapes={"batch_size": 4}, progress=False)
    model = ORTModelForImageClassification.from_pretrained(folder)
    return pipeline("image-classification", model=model, data_processor=AutoImageProcessor.from_model(model))


def main() -> None:
    """Runs it beside PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="*", help="files of images to classify; by default drawn ones")
    parser.add_argument("--model", help="a PyTorch model that classifies images: a folder or a Hub id")
    arguments = parser.parse_args()
    images = {name: Image.open(name).convert("RGB") for name in arguments.images} or drawings()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.model or offline.image_classifier(Path(folder) / "resnet")
        ours = make_pipeline(source, Path(folder) / "resnet-fixed")
        theirs = transformers.pipeline("image-classification", model=str(source))
        compare(ours, theirs, images)


def drawings() -> dict[str, Image.Image]:
    """Two circles, two squares and two triangles, each of another size."""
    chance = random.Random(7)
    made = {}
    for shape, size in zip(2 * offline.SHAPES, SIZES, strict=True):
        colour = chance.choice(offline.COLOURS)
        made[f"a {colour} {shape}"] = offline.drawing(shape, colour, chance, *size)
    return made


def compare(ours: Any, theirs: Any, images: dict[str, Image.Image]) -> None:
    """Prints the answers, how far they are from PyTorch's, and how long both took."""
    batch, _, height, width = ours.model.contract.input("pixel_values").shape
    print(f"1. Answers of a graph that takes {batch} images of {width} x {height}\n")
    for (name, image), answers in zip(images.items(), ours(list(images.values())), strict=True):
        size = f"{image.width} x {image.height}"
        print(f"   {name:<20}{size:>10}   {answers[0]['label']:<10}{answers[0]['score']:.3f}")

    pictures = list(images.values())
    difference = largest_difference(ours(pictures), theirs(pictures))
    print(f"\n2. Largest difference from PyTorch, over the scores of the best labels: {difference:.1e}")

    print(f"\n3. Time for {len(pictures)} images\n")
    show_times(
        {
            "transformers on PyTorch": lambda: theirs(pictures),
            "transformers on PyTorch, batch_size=4": lambda: theirs(pictures, batch_size=4),
            "optimum_fixedshape": lambda: ours(pictures),
        }
    )


if __name__ == "__main__":
    main()
