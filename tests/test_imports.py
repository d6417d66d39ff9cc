"""What an import may cost."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "astra", "odl", "diffusers", "matplotlib", "skimage", "numba", "h5py", "pydantic", "triton")


def loaded_after(statement: str) -> set[str]:
    script = f"{statement}; import sys; print(*sorted(name for name in sys.modules if '.' not in name))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("module", ["ctflow", "ctflow.cli"])
def test_import_loads_nothing_heavy(module: str) -> None:
    assert not loaded_after(f"import {module}") & set(HEAVY)


def test_import_of_a_solver_loads_torch_and_little_else() -> None:
    loaded = loaded_after("import ctflow; ctflow.solvers.Flower")
    assert "torch" in loaded
    assert not loaded & {"astra", "odl", "diffusers", "matplotlib", "skimage", "numba"}


def test_every_public_name_is_there() -> None:
    import ctflow

    for name in ctflow.__all__:
        assert getattr(ctflow, name) is not None, name
    assert set(ctflow.__all__) <= set(dir(ctflow))
    with pytest.raises(AttributeError, match="no attribute 'reconstruct'"):
        ctflow.reconstruct  # noqa: B018
