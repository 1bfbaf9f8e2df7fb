"""Runs the programs of pages in one process, each in a folder of its own: ``python read_pages.py pages.json``."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

shell = functools.partial(subprocess.run, shell=True, check=True, stdout=subprocess.DEVNULL)

if __name__ == "__main__":
    home, environ, failed = Path.cwd(), dict(os.environ), []
    for page, program in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")).items():
        folder = home / Path(page).stem
        folder.mkdir()
        os.chdir(folder)
        try:
            exec(compile(program, page, "exec"), {"__name__": "__main__", "shell": shell})
        except Exception:
            traceback.print_exc()  # with the line of the page
            failed.append(page)
        os.environ.clear()
        os.environ.update(environ)
    sys.exit(f"These pages failed: {', '.join(failed)}" if failed else 0)
