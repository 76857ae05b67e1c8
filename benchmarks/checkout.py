"""Running another checkout of vidfuse beside this one, by the same Python."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

VIDFUSE = ["-P", "-m", "vidfuse"]  # -P: not the package that lies in the working folder


def environment(checkout: Path) -> dict[str, str]:
    """Variables with which ``VIDFUSE`` is that of a checkout.

    Raises:
        SystemExit: There is no vidfuse.
    """
    paths = [str(checkout.resolve()), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    ask = [sys.executable, "-P", "-c", "import vidfuse; print(vidfuse.__file__)"]
    done = subprocess.run(ask, env=variables, capture_output=True, text=True, check=False)
    if done.returncode or not Path(done.stdout.strip()).is_relative_to(checkout.resolve()):
        raise SystemExit(f"{checkout}: no checkout of vidfuse {done.stderr.strip()}".strip())
    return variables
