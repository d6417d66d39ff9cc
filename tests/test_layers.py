"""Who may import whom."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Every layer may import those before it, and its own members.
LAYERS = (
    ("operators",),
    (
        "ctflow",
        "ctflow.place",
        "ctflow.representation",
        "ctflow.latent_representation",
        "ctflow.newton",
        "ctflow.quasi_newton",
        "ctflow.problem",
        "ctflow.decoded_problem",
        "ctflow.reconstruction",
    ),
    (
        "ctflow.canvas",
        "ctflow.phantoms",
        "ctflow.bodies",
        "ctflow.metal",
        "ctflow.smooth_fields",
        "ctflow.mr_phantoms",
        "ctflow.receive_coils",
        "ctflow.presets",
        "ctflow.simulate",
        "ctflow.simulate_mri",
        "ctflow.metrics",
        "ctflow.volume_metrics",
        "ctflow.calibration",
    ),
    ("ctflow.flows", "ctflow.solvers", "ctflow.io"),
    ("ctflow.report", "ctflow.report_page", "ctflow.pipeline", "ctflow.demo", "ctflow.progress"),
    ("ctflow.cli", "ctflow.__main__"),
)
SIBLINGS = ("ctflow.io.export", "ctflow.io.formats", "operators.ct.projectors", "ctflow.solvers")
# What siblings share, each in a file of its own.
SHARED = {
    "ctflow.solvers": {
        "data_duals",
        "early_stopping",
        "gaussian_shell",
        "noise_gain",
        "prior_run",
        "quadratic",
        "slice_coupling",
        "solver",
    },
    "operators.ct.projectors": {
        "arctangent",
        "astra_geometry",
        "astra_library",
        "batches",
        "joseph_kernels",
        "joseph_volume_kernels",
        "lanes",
        "lines",
        "odl_geometry",
        "odl_library",
        "odl_space",
        "threads",
        "triton_kernels",
        "triton_volume_kernels",
    },
    "ctflow.io.export": {"dicom_tags", "images", "patient"},
    "ctflow.io.formats": set(),
}
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for package in ("operators", "ctflow")
    for file in (ROOT / package).rglob("*.py")
}


def imports(module: str) -> set[str]:
    """Our modules that a module imports, at the top or inside a function, but not for types only."""
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = [ast.Pass()]
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES}


def layer(module: str) -> int:
    parts = module.split(".")
    for count in range(len(parts), 0, -1):
        name = ".".join(parts[:count])
        for level, members in enumerate(LAYERS):
            if name in members and (name != "ctflow" or module == "ctflow"):
                return level
    raise AssertionError(f"{module} belongs to no layer")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_is_imported_upwards(module: str) -> None:
    # The package itself only forwards names, when they are asked for.
    upward = {name for name in imports(module) if layer(name) > layer(module)}
    assert not upward


def test_flows_solvers_and_io_know_as_much_of_each_other_as_they_may() -> None:
    for module in MODULES:
        package = ".".join(module.split(".")[:2])
        others = {".".join(name.split(".")[:2]) for name in imports(module)}
        if package == "ctflow.flows":
            assert not others & {"ctflow.solvers", "ctflow.io"}, module
        if package == "ctflow.solvers":
            assert "ctflow.io" not in others, module
        if package == "ctflow.io":
            assert not others & {"ctflow.solvers", "ctflow.flows"}, module


@pytest.mark.parametrize("package", SIBLINGS)
def test_siblings_do_not_import_each_other(package: str) -> None:
    members = {name for name in MODULES if name.startswith(f"{package}.")}
    allowed = {f"{package}.{name}" for name in SHARED[package]}
    for module in members - allowed:
        assert not imports(module) & (members - allowed - {module}), module
