"""Solvers: each turns an `InverseProblem`, and where it needs one a `FlowPrior`, into a `Reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctflow.solvers.cg_sense import CGSENSE
from ctflow.solvers.coil_combination import RSS, ZeroFilled
from ctflow.solvers.dds import DDS
from ctflow.solvers.dflow import DFlow
from ctflow.solvers.diffpir import DiffPIR
from ctflow.solvers.dip import DeepImagePrior
from ctflow.solvers.direct import FBP
from ctflow.solvers.dps import DPS
from ctflow.solvers.flowdps import FlowDPS
from ctflow.solvers.flower import Flower
from ctflow.solvers.fmct import FMCT
from ctflow.solvers.fmplug import FMPlug
from ctflow.solvers.ictm import ICTM
from ctflow.solvers.least_squares import CGLS, SIRT
from ctflow.solvers.msflow import MSFlow
from ctflow.solvers.otode import OTODE
from ctflow.solvers.pnpflow import PnPFlow
from ctflow.solvers.solver import Callback, Solver, Step, configure, nearest, solver_name
from ctflow.solvers.total_variation import TV

SOLVERS: dict[str, type] = {
    solver_name(solver): solver
    for solver in (
        FBP,
        CGLS,
        SIRT,
        ZeroFilled,
        RSS,
        CGSENSE,
        TV,
        Flower,
        PnPFlow,
        OTODE,
        FlowDPS,
        DFlow,
        DPS,
        DiffPIR,
        DDS,
        ICTM,
        FMCT,
        FMPlug,
        MSFlow,
        DeepImagePrior,
    )
}

__all__ = [
    "CGLS",
    "CGSENSE",
    "DDS",
    "DPS",
    "FBP",
    "FMCT",
    "ICTM",
    "OTODE",
    "RSS",
    "SIRT",
    "SOLVERS",
    "TV",
    "Callback",
    "DFlow",
    "DeepImagePrior",
    "DiffPIR",
    "FMPlug",
    "FlowDPS",
    "Flower",
    "MSFlow",
    "PnPFlow",
    "Solver",
    "Step",
    "ZeroFilled",
    "make_solver",
]


def make_solver(name: str, settings: Mapping[str, Any] | None = None) -> Solver:
    """The solver of that name with its settings checked; ValueError names the nearest for an unknown one."""
    if name not in SOLVERS:
        raise ValueError(f"no solver {name!r}; {nearest(name, SOLVERS)}")
    return configure(SOLVERS[name], settings or {})
