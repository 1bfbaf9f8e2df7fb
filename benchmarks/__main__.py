"""Measures everything, and writes ``results.json``, plots, and the tables of two pages of ``docs``.

- ``.venv/bench/bin/python -m benchmarks``: all of it, in about half an hour
- ``.venv/bench/bin/python -m benchmarks --only text,memory``: these parts; the others stay as they were
- ``.venv/bench/bin/python -m benchmarks --make``: only the models, so that a run finds them
- ``python -m benchmarks --quick --output FOLDER``: a small model, to see that it works
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optimum_fixedshape.machine import describe_machine

from . import generation, memory_profiling, performance_comparison, report, scaling, throughput_testing
from .models import MODELS
from .results import Table, headlines
from .run import Run
from .workers import ROOT

PARTS: Mapping[str, Callable[[Run], Iterator[Table]]] = {
    "text": performance_comparison.measure_texts,
    "embeddings": performance_comparison.measure_embeddings,
    "images": performance_comparison.measure_images,
    "throughput": throughput_testing.measure_throughput,
    "callers": throughput_testing.measure_callers,
    "memory": memory_profiling.measure_memory,
    "loading": memory_profiling.measure_loading,
    "generation": generation.measure_generation,
    "scaling": scaling.measure_scaling,
}
ROUNDS = 5
QUICK_ROUNDS = 2
NAME = "results.json"
_IN_OPENVINO = ("text-classification", "image-classification")


def main() -> int:
    """Measures the parts that are asked for; what goes wrong in one is reported, and the others go on.

    Returns 1 where models were to be made and could not be.
    """
    options = _options()
    if options.make:
        return _make(Run(options.folder, rounds=0))
    output = options.output or ROOT / "benchmarks"
    page, plots = report.PAGE, report.PAGE.parent / "plots"
    if options.output:
        output.mkdir(parents=True, exist_ok=True)
        page, plots = Path(shutil.copy(report.PAGE, output)), output / "plots"
        for name in report.PAGES.values():
            shutil.copy(report.PAGE.with_name(name), output)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    parts = _earlier(output / NAME) if options.only else {}
    for name in options.only or PARTS:
        parts[name] = _measured(name, Run(options.folder, rounds, options.quick))
        results = _results({each: parts[each] for each in PARTS if each in parts})
        if not options.quick:
            from .plots import draw_plots  # which needs matplotlib

            results["plots"] = draw_plots(results, plots)
        (output / NAME).write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        report.write_pages(results, page)  # after each part, so that nothing is lost where a later one is cut off
    return 0


def _make(run: Run) -> int:
    for name, model in MODELS.items():
        run.prepare(name, "original", "stock", *model.ours)
        if model.task in _IN_OPENVINO:
            run.prepare(name, "openvino")
    return 1 if run.missing else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda names: names.split(","), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help=f"how often each contender has its turn; by default {ROUNDS}")
    parser.add_argument("--make", action="store_true", help="make the models, and measure nothing")
    parser.add_argument("--quick", action="store_true", help="a small model, few contenders, no plots")
    parser.add_argument("--folder", type=Path, default=ROOT / ".benchmarks", help="where models and logs are")
    parser.add_argument("--output", type=Path, help="a folder for the results; by default they go into the repository")
    options = parser.parse_args()
    if unknown := sorted(set(options.only or ()) - PARTS.keys()):
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    return options


def _measured(name: str, run: Run) -> dict[str, Any]:
    began, tables = time.perf_counter(), []
    try:
        for table in PARTS[name](run):
            tables.append(table.to_dict())  # noqa: PERF401 - what came before an error is kept
    except Exception as error:
        traceback.print_exc()
        run.miss(name, f"{type(error).__name__}: {error}")
    seconds = round(time.perf_counter() - began)
    print(f"{name}: {seconds} s", file=sys.stderr, flush=True)
    return {"rounds": run.rounds, "seconds": seconds, "tables": tables, "missing": run.missing}


def _earlier(path: Path) -> dict[str, Any]:
    """The parts of an earlier run."""
    return dict(json.loads(path.read_text(encoding="utf-8"))["parts"]) if path.is_file() else {}


def _results(parts: Mapping[str, Any]) -> dict[str, Any]:
    tables = [table for part in parts.values() for table in part["tables"]]
    return {"machine": describe_machine(), "parts": parts, "plots": [], "headlines": headlines(tables)}


if __name__ == "__main__":
    sys.exit(main())
