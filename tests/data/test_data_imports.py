from __future__ import annotations

import subprocess
import sys


def test_reading_datasets_imports_no_heavy_package():
    code = (
        "import sys, vidfuse.data.splits, vidfuse.data.content, vidfuse.data.layouts as layouts\n"
        "for name in layouts.LAYOUTS: layouts.load_layout(name)\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'rich', 'typer', 'av', 'decord', 'PIL'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
