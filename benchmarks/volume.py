"""A cone-beam volume from few views: PSNR, seconds and peak memory of every way to reconstruct it.

Run ``python -m benchmarks.volume``. The scan is that of ``ctflow simulate cone``: 128^3 voxels of 1.8 mm, 60
views of 160^2 bins, 2 x 10^4 photons, made on a grid twice as fine; the body is one that no prior has seen.
FDK, CGLS, SIRT and TV without a prior; FLOWER with a prior of slices, its slices free of each other
(coupling 0) and coupled. In all about an hour on two cores; ``--size 64`` takes an eighth of it.

CGLS and SIRT run for so many iterations as are best on another body; everything else has its defaults but for
FLOWER's number of steps. PSNR is relative to the largest value of the true volume. Memory is the peak of the
process during the call beyond what it held before.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.resident import peak, reset_peak
from ctflow.flows.store import load_prior
from ctflow.metrics import psnr
from ctflow.phantoms import HELD_OUT
from ctflow.simulate import SimulatedScan, simulate_preset
from ctflow.solvers import CGLS, FBP, SIRT, TV, Flower, Step

LONGEST = {"cgls": 40, "sirt": 120}


@dataclass(frozen=True)
class Row:
    """One line of the table: a solver and what it is called."""

    name: str
    solver: Any
    setting: str
    prior: Any = None


def best_iteration(solver: CGLS | SIRT, scan: SimulatedScan) -> int:
    """After how many iterations a solver is nearest to the truth."""
    scores: dict[int, float] = {}

    def watch(step: Step) -> None:
        scores[step.step] = float((step.estimate - scan.truth).square().mean())

    solver(scan.problem, callback=watch)
    return min(scores, key=scores.__getitem__)


def rows(tuning: SimulatedScan, prior: Any, steps: int, couplings: list[float]) -> list[Row]:
    """The solvers, those with iterations to choose tuned."""
    cgls = CGLS(best_iteration(CGLS(LONGEST["cgls"]), tuning))
    sirt = SIRT(best_iteration(SIRT(LONGEST["sirt"]), tuning))
    flowers = [
        Row("flower", Flower(steps=steps, coupling=coupling), f"{steps} steps, coupling {coupling:g}", prior)
        for coupling in couplings
    ]
    return [
        Row("fdk", FBP(), "ram-lak"),
        Row("fdk", FBP("hann", 0.5), "hann, cutoff 0.5"),
        Row("cgls", cgls, f"{cgls.iterations} iterations"),
        Row("sirt", sirt, f"{sirt.iterations} iterations"),
        Row("tv", TV(), f"weight {TV().weight:g}"),
        *flowers,
    ]


def main() -> int:
    """Simulate, tune, run and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--size", type=int, default=128, help="voxels along each side, of the same field of view"
    )
    parser.add_argument("--views", type=int, default=60)
    parser.add_argument("--prior", default="ct-small", help="a bundled prior's name, or a saved prior's path")
    parser.add_argument("--steps", type=int, default=25, help="of FLOWER")
    parser.add_argument("--couplings", type=float, nargs="+", default=[0.0, 10.0])
    parser.add_argument("--seed", type=int, default=0, help="of the body; another one is for tuning")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    try:
        prior = load_prior(arguments.prior).to(device)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    changes = {"size": arguments.size, "views": arguments.views}
    scan, tuning = (
        SimulatedScan(found.problem.to(device), found.truth.to(device))
        for found in (simulate_preset("cone", [HELD_OUT + arguments.seed + k], **changes) for k in (0, 1000))
    )
    print(f"{scan.problem.operator!r}, {arguments.threads} threads, {device}, prior {prior.name}")
    print(f"{'solver':8}{'PSNR':>7}{'seconds':>9}{'MB':>7}  setting")
    for row in rows(tuning, prior, arguments.steps, arguments.couplings):
        before, begin = reset_peak(device), time.perf_counter()
        image = row.solver(scan.problem, row.prior, generator=torch.Generator().manual_seed(0)).image
        # The peak waits for the device.
        extra = peak(device) - before
        seconds = time.perf_counter() - begin
        found = float(psnr(image.flatten(-3, -2), scan.truth.flatten(-3, -2)).mean())
        print(f"{row.name:8}{found:7.2f}{seconds:9.1f}{extra / 1e6:7.0f}  {row.setting}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
