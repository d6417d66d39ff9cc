"""CT and MR images from scanner measurements, with exact physics and flow-matching priors.

A measured file becomes an inverse problem; a prior and a solver turn the problem into an image::

    scan = ctflow.open_scan("scan.h5")
    prior = ctflow.load_prior("ct-small")
    result = ctflow.solvers.Flower(steps=50)(scan[10:14], prior, generator=torch.Generator().manual_seed(0))

The names below are imported when they are first used, so that `import ctflow` itself costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctflow import solvers
    from ctflow.flows.analytic import GaussianFlow, GaussianMixtureFlow
    from ctflow.flows.path import AffinePath
    from ctflow.flows.prior import FlowPrior
    from ctflow.flows.store import load_prior, save_prior
    from ctflow.io.scan import open_scan
    from ctflow.problem import InverseProblem
    from ctflow.reconstruction import Reconstruction
    from ctflow.representation import Representation
    from ctflow.solvers import make_solver

__version__ = "0.1.0"

__all__ = [
    "AffinePath",
    "FlowPrior",
    "GaussianFlow",
    "GaussianMixtureFlow",
    "InverseProblem",
    "Reconstruction",
    "Representation",
    "__version__",
    "load_prior",
    "make_solver",
    "open_scan",
    "save_prior",
    "solvers",
]

_HOMES = {
    "AffinePath": "ctflow.flows.path",
    "FlowPrior": "ctflow.flows.prior",
    "GaussianFlow": "ctflow.flows.analytic",
    "GaussianMixtureFlow": "ctflow.flows.analytic",
    "InverseProblem": "ctflow.problem",
    "Reconstruction": "ctflow.reconstruction",
    "Representation": "ctflow.representation",
    "load_prior": "ctflow.flows.store",
    "make_solver": "ctflow.solvers",
    "open_scan": "ctflow.io.scan",
    "save_prior": "ctflow.flows.store",
}


def __getattr__(name: str) -> Any:
    if name == "solvers":
        return import_module("ctflow.solvers")
    if name not in _HOMES:
        raise AttributeError(f"module 'ctflow' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
