"""`describe_machine`: what measured times depend on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_RUNTIMES = ("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu", "onnxruntime-qnn", "onnxruntime-directml")
_PACKAGES = ("optimum-fixedshape", *_RUNTIMES, "transformers", "optimum-onnx", "torch", "numpy")


def describe_machine() -> dict[str, str]:
    """Returns what times depend on: the processor, its cores, the system, and versions of the packages."""
    facts = {
        "cpu": _cpu() or platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            facts[package] = version(package)
    return facts


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # pragma: no cover  # of systems other than Linux
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
