"""What FLOWER costs beyond its network and operator: wall-clock time over the sum of the two.

Run ``python -m benchmarks.overhead [--prior ct-small] [--steps 100]``: 256 x 256 pixels, 60 views, 363 bins.
"network" is the time inside `FlowPrior.velocity`'s network calls, "operator" that inside the outermost
`LinearOperator` applications; everything else, such as the vector operations of conjugate gradients,
noise and bookkeeping, is overhead. Exit code 1 when the ratio is above the target.
"""

from __future__ import annotations

import argparse
import sys

import torch

from ctflow.flows.store import load_prior
from ctflow.problem import InverseProblem
from ctflow.simulate import scan_settings, simulate_scan
from ctflow.solvers import Flower

TARGET = 1.05


def problem(batch: int) -> InverseProblem:
    """A low-dose scan of discs of several sizes and brightnesses."""
    settings = scan_settings("sparse-view")
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


def main() -> int:
    """Measure, print, compare with the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", default="ct-small", help="a bundled prior's name, or a saved prior's path")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        prior = load_prior(arguments.prior)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{torch.get_num_threads()} threads, prior {prior.name}, {arguments.steps} steps; seconds")
    print(
        f"{'variant':10}{'batch':>6}{'total':>9}{'network':>9}{'operator':>9}{'rest':>8}{'ratio':>8}{'CG/step':>9}"
    )
    worst = 0.0
    for sample in (False, True):
        for batch in (1, 4):
            posed = problem(batch)
            Flower(steps=2, sample=sample)(posed, prior, generator=torch.Generator().manual_seed(0))
            steps = arguments.steps if batch == 1 else max(arguments.steps // 4, 1)
            best: tuple[float, ...] = ()
            for seed in range(arguments.rounds):
                generator = torch.Generator().manual_seed(seed)
                result = Flower(steps=steps, sample=sample)(posed, prior, generator=generator)
                total, network, operator = (result.seconds[kind] for kind in ("total", "network", "operator"))
                inner = float(result.details["proximal_iterations"].float().mean())
                row = (total / (network + operator), total, network, operator, inner)
                best = min(best, row) if best else row
            ratio, total, network, operator, inner = best
            worst = max(worst, ratio)
            rest = total - network - operator
            name = "sample" if sample else "mean"
            print(
                f"{name:10}{batch:6}{total:9.2f}{network:9.2f}{operator:9.2f}{rest:8.2f}{ratio:8.3f}{inner:9.1f}"
            )
    print(f"worst ratio {worst:.3f}, target at most {TARGET}")
    return 0 if worst <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
