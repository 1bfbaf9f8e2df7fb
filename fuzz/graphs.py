"""A fuzzer for everything that reads a graph: ``python -m fuzz.graphs CORPUS -max_total_time=600``.

Half of its inputs are damaged as libFuzzer damages bytes, half as ``tests/fuzzing.py`` damages fields. Whatever is
raised beside a `FixedShapeError`, takes longer than a few seconds or more than 2 GB is a finding, and kept as a file.
"""

from __future__ import annotations

import contextlib
import random
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["optimum_fixedshape"]):
    from optimum_fixedshape.detecting import detect_task
    from optimum_fixedshape.errors import FixedShapeError
    from optimum_fixedshape.feeds import generate_inputs
    from optimum_fixedshape.graph.loading import load_model
    from optimum_fixedshape.graph.outline import read_outline
    from optimum_fixedshape.graph.pin import pin_graph
    from optimum_fixedshape.graph.reader import read_contract
    from optimum_fixedshape.graph.tensors import check_tensors

from tests.fuzzing import mutated

_SIZES = {"batch_size": 1, "sequence_length": 4, "past_sequence_length": 4}
_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def look(data: bytes) -> None:
    """Does with `data` all that may be done with a file that nobody trusts, short of running it."""
    path = _FOLDER / "model.onnx"
    path.write_bytes(data)
    for read in (read_contract, read_outline, check_tensors, detect_task, generate_inputs):
        with contextlib.suppress(FixedShapeError):
            read(path)
    with contextlib.suppress(FixedShapeError):
        pin_graph(load_model(path), _SIZES)


def damage(data: bytes, largest: int, seed: int) -> bytes:
    """Returns what libFuzzer tries next in place of `data`."""
    chance = random.Random(seed)
    if chance.random() < 0.5:
        changed = mutated(data, [("field", chance.randrange(2**32))])
        if changed != data and len(changed) <= largest:
            return changed
    return bytes(atheris.Mutate(data, largest))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, look, custom_mutator=damage)
    atheris.Fuzz()
