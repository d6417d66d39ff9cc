"""Solvers: each turns an `InverseProblem`, and where it needs one a `FlowPrior`, into a `Reconstruction`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from ctflow.place import file_of, found_at, is_place
from ctflow.solvers.cg_sense import CGSENSE
from ctflow.solvers.combine import GRAPPA, RSS, ZeroFilled
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
from ctflow.solvers.prior_run import PriorRun
from ctflow.solvers.solver import Callback, Recorder, Solver, Step, configure, nearest, solver_name
from ctflow.solvers.total_variation import TV
from ctflow.solvers.wavelet import Wavelet

SOLVERS: dict[str, type] = {
    solver_name(solver): solver
    for solver in (
        FBP,
        CGLS,
        SIRT,
        TV,
        Wavelet,
        ZeroFilled,
        RSS,
        CGSENSE,
        GRAPPA,
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
    "GRAPPA",
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
    "PriorRun",
    "Recorder",
    "Solver",
    "Step",
    "Wavelet",
    "ZeroFilled",
    "make_solver",
    "solver_class",
    "solver_file",
]


def make_solver(name: str, settings: Mapping[str, Any] | None = None) -> Solver:
    """The solver of that name, see `solver_class`, with its settings checked."""
    return configure(solver_class(name), settings or {})


def solver_class(name: str) -> type:
    """One of `SOLVERS`, or a class of a user's module by its place, such as "annealed:Annealed".

    ValueError names the nearest for an unknown one, or what is wrong with what is found there.
    """
    if is_place(name):
        found = found_at(name)
        called = any("__call__" in vars(base) for base in getattr(found, "__mro__", ()))
        if not (isinstance(found, type) and is_dataclass(found) and called):
            what = "a dataclass of settings with a method __call__"
            raise ValueError(f"{name}: expected {what} in {file_of(name)}, found {found!r}")
        return found
    if name not in SOLVERS:
        raise ValueError(f"no solver {name!r}; {nearest(name, SOLVERS)}")
    return SOLVERS[name]


def solver_file(name: str) -> Path | None:
    """The file of a user's solver; None for those of `SOLVERS`, which are of one version with ctflow."""
    if not is_place(name):
        return None
    solver_class(name)
    return file_of(name)
