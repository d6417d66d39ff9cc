"""Peak memory against the number of ODE steps, of the solvers that follow the flow.

Run ``python -m benchmarks.memory [--prior ct-small] [--size 256] [--steps 10 50 200]``. Each number is the
peak beyond what was in use before, in MB, of one run in a process of its own on one image of 60 views. The
iterations of the optimising solvers are few, since every one needs the same memory. Exit code 1 when FLOWER,
MS-Flow, FlowDPS or PnP-Flow grows by more than 2 % of the whole peak from the fewest steps to the most.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.overhead import problem
from benchmarks.priors import find_prior
from benchmarks.resident import peak, reset_peak
from ctflow.solvers import OTODE, DFlow, FlowDPS, Flower, FMPlug, MSFlow, PnPFlow

TARGET = 0.02
# Large blocks go back to the system when they are freed: the peak is then that of what is in use, not of how
# the allocator's leftovers happen to fit.
ENVIRONMENT = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
SEGMENTS = 10
# Steps of the flow, from its start to its end, to a solver.
SOLVERS: dict[str, Callable[[int], Any]] = {
    "flower": lambda steps: Flower(steps),
    "ms-flow": lambda steps: MSFlow(SEGMENTS, steps // SEGMENTS, sweeps=3),
    "flow-dps": lambda steps: FlowDPS(steps, data_step="proximal", blend=False),
    "pnp-flow": lambda steps: PnPFlow(steps, draws=1),
    "ot-ode": lambda steps: OTODE(steps),
    "fm-plug": lambda steps: FMPlug(steps, iterations=1),
    "d-flow": lambda steps: DFlow(steps, "euler", iterations=1, inversion_steps=1),
    "d-flow, checkpointed": lambda steps: DFlow(
        steps, "euler", iterations=1, inversion_steps=1, checkpoint=True
    ),
}
CONSTANT = ("flower", "ms-flow", "flow-dps", "pnp-flow")


def measure(name: str, steps: int, prior_name: str, size: int, device: str) -> tuple[float, float]:
    """Peak beyond what was in use before, and the whole peak, in bytes."""
    prior, posed = find_prior(prior_name).to(device), problem(1, size).to(device)

    def run(count: int) -> None:
        SOLVERS[name](count)(posed, prior, generator=torch.Generator().manual_seed(0))

    # The first call compiles projectors and fills caches.
    run(SEGMENTS)
    before = reset_peak(device)
    run(steps)
    whole = peak(device)
    return whole - before, whole


def main() -> int:
    """Measure, print, compare with the target."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prior", default="ct-small", help="a name or path, or white or untrained")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 50, 200])
    parser.add_argument("--solvers", nargs="+", default=list(SOLVERS), choices=list(SOLVERS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--one", nargs=2, metavar=("SOLVER", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        name, steps = arguments.one
        print(*measure(name, int(steps), arguments.prior, arguments.size, arguments.device))
        return 0
    print(f"peak in MB beyond the start, prior {arguments.prior}, {arguments.size} x {arguments.size} pixels")
    print(
        f"{'solver':22}" + "".join(f"{f'{steps} steps':>12}" for steps in arguments.steps) + f"{'growth':>10}"
    )
    good = True
    for name in arguments.solvers:
        extra, whole = [], []
        for steps in arguments.steps:
            command = [sys.executable, "-m", "benchmarks.memory", "--one", name, str(steps)]
            command += [
                "--prior",
                arguments.prior,
                "--size",
                str(arguments.size),
                "--device",
                arguments.device,
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 2
            beyond, total = map(float, done.stdout.split())
            extra.append(beyond)
            whole.append(total)
        growth = whole[-1] / whole[0] - 1
        good &= growth <= TARGET or name not in CONSTANT
        verdict = "" if name not in CONSTANT else "met" if growth <= TARGET else "MISSED"
        cells = "".join(f"{value / 1e6:12.1f}" for value in extra)
        print(f"{name:22}{cells}{100 * growth:9.1f}% {verdict}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
