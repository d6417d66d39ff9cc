"""What the solvers cost beyond their networks and operators: wall-clock time over the sum of the parts.

Run ``python -m benchmarks.overhead [--prior ct-small] [--steps 100] [--solvers flower ms-flow]``: 256 x 256
pixels, 60 views, 363 bins. "network" is the time inside `FlowPrior.velocity`'s network calls, "operator" that
inside the outermost `LinearOperator` applications, "derivative" that inside automatic differentiation without
either; everything else, such as the vector operations of conjugate gradients, noise and bookkeeping, is
overhead. Solvers other than FLOWER run a few steps. Exit code 1 when a ratio is above the target.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.priors import find_prior
from ctflow.problem import InverseProblem
from ctflow.simulate import scan_settings, simulate_scan
from ctflow.solvers import SOLVERS, Flower, make_solver
from operators.meter import metered

TARGET = 1.05
# Enough for the time of a step to show, and no more.
SHORT: dict[str, dict[str, Any]] = {
    "flower": {"steps": 20},
    "pnp-flow": {"steps": 5},
    "ot-ode": {"steps": 10},
    "flow-dps": {"steps": 10},
    "d-flow": {"iterations": 2, "inversion_steps": 2},
    "dps": {"steps": 10},
    "diffpir": {"steps": 10},
    "dds": {"steps": 20},
    "ictm": {"steps": 5},
    "fmct": {"steps": 20},
    "fm-plug": {"iterations": 3},
    "ms-flow": {"segments": 6, "sweeps": 4},
    "deep-image-prior": {"iterations": 3},
}


def problem(batch: int, size: int = 256) -> InverseProblem:
    """A low-dose scan of discs of several sizes and brightnesses."""
    standard = scan_settings("sparse-view")
    settings = scan_settings("sparse-view", size=size, bins=standard.bins * size // standard.size)
    axis = torch.linspace(-1, 1, settings.size)
    images = torch.zeros(batch, settings.size, settings.size)
    for x, y, radius, value in (
        (0, 0, 0.8, 0.02),
        (0.3, 0.2, 0.25, 0.008),
        (-0.4, 0.1, 0.2, -0.015),
        (0, -0.5, 0.1, 0.02),
    ):
        images += value * ((axis - x).square() + (axis[:, None] - y).square() < radius**2)
    generator = torch.Generator().manual_seed(1)
    return simulate_scan(images, settings.operator(), settings.noise(), generator).problem


@contextmanager
def timed_derivatives() -> Iterator[list[float]]:
    """Seconds in each call of `torch.autograd.grad` of the block, without those of network and operator."""
    inner, spent = torch.autograd.grad, []

    def timed(*arguments: Any, **settings: Any) -> Any:
        with metered() as meter:
            start = time.perf_counter()
            result = inner(*arguments, **settings)
            elapsed = time.perf_counter() - start
        spent.append(elapsed - sum(meter.seconds.values()))
        return result

    torch.autograd.grad = timed
    try:
        yield spent
    finally:
        torch.autograd.grad = inner


def measured(solver: Any, posed: InverseProblem, prior: Any, rounds: int) -> tuple[float, ...]:
    """Ratio, total, network, operator and derivative seconds of the best round, and CG iterations a step."""
    best: tuple[float, ...] = ()
    for seed in range(rounds):
        with timed_derivatives() as spent:
            result = solver(posed, prior, generator=torch.Generator().manual_seed(seed))
        total, network, operator = (
            result.seconds.get(kind, 0.0) for kind in ("total", "network", "operator")
        )
        inner = result.details.get("proximal_iterations")
        iterations = float(inner.float().mean()) if inner is not None else float("nan")
        row = (total / (network + operator + sum(spent)), total, network, operator, sum(spent), iterations)
        best = min(best, row) if best else row
    return best


def main() -> int:
    """Measure, print, compare with the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", default="ct-small", help="a name or path, or white or untrained")
    parser.add_argument("--steps", type=int, default=100, help="of FLOWER")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--solvers", nargs="+", default=list(SHORT), choices=list(SOLVERS))
    arguments = parser.parse_args()
    try:
        prior = find_prior(arguments.prior)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    runs: list[tuple[str, Any, int]] = []
    for name in arguments.solvers:
        if name == "flower":
            few = max(arguments.steps // 4, 1)
            for sample in (False, True):
                label = "flower, sample" if sample else "flower"
                runs.append((label, Flower(arguments.steps, sample), 1))
                runs.append((label, Flower(few, sample), 4))
        else:
            runs.append((name, make_solver(name, SHORT.get(name)), 1))
    print(f"{torch.get_num_threads()} threads, prior {prior.name}, {arguments.steps} steps; seconds")
    print(
        f"{'solver':17}{'batch':>6}{'total':>9}{'network':>9}{'operator':>9}{'derivative':>11}"
        f"{'rest':>8}{'ratio':>8}{'CG/step':>9}"
    )
    worst = 0.0
    for name, solver, batch in runs:
        posed = problem(batch, arguments.size)
        measured(solver, posed, prior, 1)
        best = measured(solver, posed, prior, arguments.rounds)
        ratio, total, network, operator, derivative, inner = best
        worst = max(worst, ratio)
        rest = total - network - operator - derivative
        print(
            f"{name:17}{batch:6}{total:9.2f}{network:9.2f}{operator:9.2f}{derivative:11.2f}"
            f"{rest:8.2f}{ratio:8.3f}{inner:9.1f}",
            flush=True,
        )
    print(f"worst ratio {worst:.3f}, target at most {TARGET}")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
