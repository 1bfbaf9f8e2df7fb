"""What a saved folder tells transformers: which classes of this package run it, named in a small file of code.

``transformers.pipeline(model=repo, trust_remote_code=True)`` reads ``custom_pipelines`` of ``config.json``, and its
Auto classes read ``auto_map``. Both name classes in a file of the repo, which imports them from here, or says how to
get them. Nobody is asked for trust who was not asked before: neither entry is about the configuration or a processor,
and the custom pipeline has a name of its own, beside transformers' name of the task.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optimum_fixedshape.tasks import REMOTE_PREFIX, Task

CODE_NAME = "fixed_shape.py"

_CODE = '''\
"""Runs the ONNX graphs of this repo inside transformers."""

try:
    {imports}
except ModuleNotFoundError as error:
    raise ImportError("The graphs of this repo run with optimum-fixedshape: pip install optimum-fixedshape") from error
'''


def write_remote_code(folder: str | Path, task: Task) -> None:
    """Makes a saved folder one that transformers runs with ``trust_remote_code=True``.

    Args:
        folder: A folder with the ``config.json`` of a model, which gets two entries; a file of code is put beside it.
        task: The row of the task table.
    """
    path, module = Path(folder) / "config.json", CODE_NAME.removesuffix(".py")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    imports = [f"from optimum_fixedshape import {task.model}"]
    facts["auto_map"] = {**facts.get("auto_map", {}), task.auto: f"{module}.{task.model}"}
    facts.pop("custom_pipelines", None)  # those of the original run PyTorch
    if task.pipeline:
        imports.append(f"from optimum_fixedshape.pipelines.classes import {task.pipeline}")
        kind = {"impl": f"{module}.{task.pipeline}", "pt": [task.auto], "tf": [], "type": task.modality}
        facts["custom_pipelines"] = {REMOTE_PREFIX + task.name: kind}
    path.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (path.parent / CODE_NAME).write_text(_CODE.format(imports="\n    ".join(imports)), encoding="utf-8")
