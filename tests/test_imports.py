"""What a process has imported after doing something small: no torch where none is needed."""

from __future__ import annotations

import subprocess
import sys


def imported_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_importing_landscape_is_cheap() -> None:
    loaded = imported_after("import landscape; dir(landscape)")
    assert not loaded & {"torch", "matplotlib", "h5py", "scipy", "numpy"}


def test_results_store_and_plots_are_free_of_torch() -> None:
    assert "torch" not in imported_after("import landscape.results, landscape.store, landscape.plots")


def test_linear_algebra_knows_no_models() -> None:
    code = "import sys, landscape.linalg.verify; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rooms = {name.split(".")[1] for name in done.stdout.split() if name.startswith("landscape.")}
    assert rooms == {"linalg"}
