"""An environment that holds the wheel, and nothing that only tests need: its interpreter and its commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Its folder: absolute, and not resolved, since an environment's python is a link to the one that it was made with.
CLEAN = Path(os.environ["CLEAN_ENVIRONMENT"]).absolute()
BIN = CLEAN / "bin"

# As in `LocalHub.run`.
WARNINGS = ("-W", "error", "-W", "ignore:Use 'content:DeprecationWarning")


def run(*command: object, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of the clean environment in an empty folder, where nothing of the tree can be imported."""
    name, *rest = map(str, command)
    ours = ("PYTHON", "VIRTUAL_ENV", "HF_")  # the Python and the Hub of the tests
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    path = os.pathsep.join([str(BIN), os.environ["PATH"]])
    return subprocess.run(
        [str(BIN / name), *rest],
        cwd=cwd,
        env={**inherited, **environ, "PATH": path, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def run_python(code: str, cwd: Path, **environ: str) -> str:
    """Returns what Python code prints, warnings being errors.

    Raises:
        AssertionError: It failed.
    """
    done = run("python", *WARNINGS, "-c", code, cwd=cwd, **environ)
    assert done.returncode == 0, done.stderr
    return done.stdout
