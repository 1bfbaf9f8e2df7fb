"""The files of processors: which they are, copies of them, and those for a graph that came with none.

Copying takes no processor: transformers is imported by what derives one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from optimum_fixedshape.contract import SAMPLES, ShapeContract
from optimum_fixedshape.errors import InvalidModelError, warn
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.tasks import Task

from .finding import FILES

_OF_PROCESSORS: Final = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "normalizer.json", "vocab*", "merges*.txt"),
    *("*.model", "*.spm", "*.tiktoken", "bpe.codes", "emoji.json", "entity_vocab.json", "chat_template*"),
    *("*preprocessor_config.json", "processor_config.json", "generation_config.json"),
)
"""The files in which processors, and settings of generation, are kept."""


def is_of_processors(name: str) -> bool:
    """Whether a file at the top of a folder is of a processor, or of the settings of generation, by its name."""
    return "/" not in name and any(fnmatch(name, pattern) for pattern in _OF_PROCESSORS)


def copy_processors(source: Path, folder: Path) -> None:
    """Copies the files of all processors of one folder to another; see `copy_files`."""
    copy_files(source, folder, is_of_processors)


def copy_files(source: Path, folder: Path, is_wanted: Callable[[str], bool]) -> None:
    """Copies the files at the top of one folder to another.

    Args:
        source: A folder on this machine, also one of the Hub's cache.
        folder: Where they go.
        is_wanted: Tells by a file's name.

    Raises:
        InvalidModelError: A file is a link that leads out of its folder, so that anything could be copied.
    """
    real = source.resolve()
    blobs = [parent.parent / "blobs" for parent in real.parents if parent.name == "snapshots"]
    for file in sorted(source.iterdir()):
        if not (file.is_file() and is_wanted(file.name)):
            continue
        if not any(file.resolve().is_relative_to(home) for home in (real, *blobs)):
            raise InvalidModelError(
                f"{file} is a link to somewhere else. If you trust it, put the file itself there.", path=str(file)
            )
        shutil.copyfile(file, folder / file.name)


def derive_processors(ladder: ShapeLadder, row: Task | None, folder: Path) -> None:
    """Writes the processors that a graph needs and its folder lacks, with their usual settings.

    A warning says what these are, and what nothing can be derived for.

    Args:
        ladder: The graph.
        row: Its task, or None where nobody knows.
        folder: Where the processors that there are lie already.
    """
    for kind in _needed(row, ladder.largest):
        if not any((folder / name).is_file() for name in FILES[kind]):
            _derive(kind, ladder, folder)


def pad_token_of(folder: Path) -> int | None:
    """Returns the id of the token that pads, where there is a tokenizer to tell."""
    if not (folder / "tokenizer.json").is_file():
        return None
    from transformers import PreTrainedTokenizerFast

    pad: int | None = PreTrainedTokenizerFast.from_pretrained(folder).pad_token_id
    return pad


def _needed(row: Task | None, contract: ShapeContract) -> list[str]:
    """The kinds of processors that go with a graph and its task."""
    from .combined import ROLES

    taken = [kind for kind, roles in ROLES.items() if any(role in contract.sizes for role in roles)]
    if "video_processor" in taken:
        taken = [kind for kind in taken if kind != "image_processor"]
    written = [kind for kind in row.processors if kind == "tokenizer"] if row else []
    return list(dict.fromkeys([*taken, *written]))


def _derive(kind: str, ladder: ShapeLadder, folder: Path) -> None:
    """Writes a processor of the usual settings, or says that there is none."""
    if kind == "image_processor":
        from .canvas import default_image_processor

        default_image_processor(ladder).save_pretrained(folder)
    elif kind == "feature_extractor" and SAMPLES in ladder.largest.sizes:
        from .audio import default_feature_extractor

        default_feature_extractor(ladder).save_pretrained(folder)
    else:
        warn(
            f"A graph does not tell what its {kind.replace('_', ' ')} is, and the folder has none. Pass source=, the "
            "folder or Hub repo of the original, or save it to the folder yourself."
        )
