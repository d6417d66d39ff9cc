"""Every solver on the same held-out CT scans with the same prior: quality, misfit, time, calls and memory.

Run ``python -m benchmarks.solvers [--prior ct-small] [--data FOLDER] [--solvers flower,ms-flow]``. Parallel
beam, 256 x 256 pixels of 1 mm, 363 bins, 10^4 photons a bin: 60 and 30 views over half a turn, and 120 views
over 120 degrees; data made on a grid twice as fine. Images as in `benchmarks.sparse_view`, from which the
classical baselines and their tuning come. Flow solvers run with the published settings; a second row of
some, after a plus sign, has the corrections that their docstrings give. ``--set ms-flow.sweeps=20``
changes a setting; ``--prior white --size 64`` tries the benchmark.

PSNR and SSIM are relative to the largest value of each true image; misfit is the weighted root mean square of
the residual, 1 where the image explains the data to the noise; seconds and calls are per image; peak memory
is beyond what was in use before, for the whole batch.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import sparse_view
from benchmarks.priors import find_prior
from benchmarks.resident import peak, reset_peak
from ctflow.flows.prior import FlowPrior
from ctflow.metrics import psnr, ssim
from ctflow.report import comparison
from ctflow.simulate import SimulatedScan, scan_settings, simulate_scan
from ctflow.solvers import make_solver
from ctflow.solvers.solver import configure

PHOTONS = 1e4
CLASSICAL = ("fbp", "sirt", "cgls", "tv")
# Rows of flow solvers: the name on the command line, and what differs from the published defaults.
FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "flower": ("flower", {}),
    "flower+sample": ("flower", {"sample": True}),
    "ms-flow": ("ms-flow", {}),
    "ms-flow+noise": (
        "ms-flow",
        {"regulariser": "quadratic", "regularisation": None, "relaxation": 0.5},
    ),
    "pnp-flow": ("pnp-flow", {}),
    "pnp-flow+prox": ("pnp-flow", {"data_step": "proximal"}),
    "flow-dps": ("flow-dps", {}),
    "flow-dps+prox": (
        "flow-dps",
        {"data_step": "proximal", "blend": False, "shift": 1.0, "steps": 100},
    ),
    "ot-ode": ("ot-ode", {}),
    "fmct": ("fmct", {}),
    "fmct+reuse": ("fmct", {"reuse": True}),
    "fmct+balance": ("fmct", {"damping": None, "on_path": True}),
    "ictm": ("ictm", {}),
    "dds": ("dds", {}),
    "dds+balance": ("dds", {"weight": None, "iterations": 20}),
    "diffpir": ("diffpir", {}),
    "dps": ("dps", {}),
    "d-flow": ("d-flow", {}),
    "d-flow+map": ("d-flow", {"regularisation": None}),
    "fm-plug": ("fm-plug", {}),
    "deep-image-prior": ("deep-image-prior", {}),
}
# These are to be above total variation at 60 views.
ABOVE_TV = ("flower", "ms-flow+noise", "pnp-flow+prox", "flow-dps+prox")


@dataclass(frozen=True)
class Case:
    """One way to scan."""

    name: str
    views: int
    span: float = math.pi

    def scan(self, images: Tensor, size: int, seed: int) -> SimulatedScan:
        """Scans of the images, (count, 2 size, 2 size), with a generator for each."""
        bins = scan_settings("sparse-view").bins * size // scan_settings("sparse-view").size
        settings = scan_settings(
            "sparse-view", views=self.views, photons=PHOTONS, span=self.span, size=size, bins=bins
        )
        generators = [torch.Generator().manual_seed(seed + i) for i in range(len(images))]
        return simulate_scan(images, settings.operator(), settings.noise(), generators)


CASES = (Case("60 views", 60), Case("30 views", 30), Case("120 degrees", 120, math.radians(120)))


@dataclass(frozen=True)
class Row:
    """What one solver did on one case, means over the images."""

    psnr: float
    ssim: float
    misfit: float
    seconds: float
    network: float
    operator: float
    megabytes: float
    image: Tensor


def measured(solver: Any, data: SimulatedScan, prior: FlowPrior, device: str) -> Row:
    """Run the solver on all images at once."""
    count = len(data.truth)
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    before, start = reset_peak(device), time.perf_counter()
    result = solver(data.problem, prior, generator=generators)
    # The peak waits for the device.
    memory = peak(device) - before
    seconds = time.perf_counter() - start
    return Row(
        psnr=float(psnr(result.image, data.truth).mean()),
        ssim=float(ssim(result.image, data.truth).mean()),
        misfit=float(data.problem.data_fit(result.image).mean()),
        seconds=seconds / count,
        network=result.evaluations.get("network", 0),
        operator=result.evaluations.get("operator", 0),
        megabytes=memory / 1e6,
        image=result.image[0].cpu(),
    )


def solvers_of(
    chosen: list[str], tuning: SimulatedScan, changes: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """The solvers asked for, the classical ones tuned."""
    wanted = set(chosen)
    result: dict[str, Any] = {}
    if wanted & set(CLASSICAL):
        result |= {name: s for name, s in sparse_view.tuned(tuning).items() if name in wanted}
    for row, (name, settings) in FLOWS.items():
        if row in wanted:
            text = {key: str(value) for key, value in changes.get(name, {}).items()}
            changed = configure(type(make_solver(name)), text)
            result[row] = replace(changed, **settings)
    return result


def main() -> int:
    """Run all, print the table, draw the picture, and say which flow solvers are above total variation."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everything = [*CLASSICAL, *FLOWS]
    parser.add_argument("--prior", default="ct-small", help="a name or path, or white or untrained")
    parser.add_argument("--data", type=Path, help="folder with ct_slices.h5, ct_openkbp.h5 and ct_luad.h5")
    parser.add_argument("--solvers", default=",".join(everything), help="rows, separated by commas")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tuning-images", type=int, default=2)
    parser.add_argument("--size", type=int, default=sparse_view.SIZE, help="pixels along a side")
    parser.add_argument("--set", action="append", default=[], metavar="SOLVER.KEY=VALUE")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--picture", type=Path, default=Path("solvers.png"), help="of the first image and case"
    )
    arguments = parser.parse_args()
    changes: dict[str, dict[str, str]] = {}
    for text in arguments.set:
        place, _, value = text.partition("=")
        name, _, key = place.partition(".")
        changes.setdefault(name, {})[key] = value
    chosen, cases = arguments.solvers.split(","), arguments.cases.split(",")
    unknown = [s for s in chosen if s not in everything] + [
        c for c in cases if c not in {k.name for k in CASES}
    ]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(everything)}", file=sys.stderr)
        return 2
    try:
        prior = find_prior(arguments.prior).to(arguments.device)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    tuning, test = images_of(arguments)
    print(f"{len(test)} images, prior {prior.name}, {torch.get_num_threads()} threads, {arguments.device}")
    print(
        f"{'case':12}{'solver':18}{'PSNR':>7}{'SSIM':>8}{'misfit':>8}{'s/image':>9}"
        f"{'network':>9}{'operator':>9}{'peak MB':>9}"
    )
    good, pictured = True, False
    for case in CASES:
        if case.name not in cases:
            continue
        data = on(case.scan(test, arguments.size, seed=0), arguments.device)
        rows: dict[str, Row] = {}
        tuned = case.scan(tuning, arguments.size, seed=500)
        for name, solver in solvers_of(chosen, tuned, changes).items():
            row = rows[name] = measured(solver, data, prior, arguments.device)
            print(
                f"{case.name:12}{name:18}{row.psnr:7.2f}{row.ssim:8.4f}{row.misfit:8.2f}{row.seconds:9.2f}"
                f"{row.network:9.0f}{row.operator:9.0f}{row.megabytes:9.1f}",
                flush=True,
            )
        if not pictured:
            images = {name: row.image for name, row in rows.items()}
            title = f"{case.name}, {PHOTONS:.0f} photons a bin, prior {prior.name}"
            comparison(
                images, data.truth[0].cpu(), arguments.picture, unit="1/mm", pixel_size=1.0, title=title
            )
            pictured = True
        if case.name == "60 views" and "tv" in rows:
            below = [n for n in ABOVE_TV if n in rows and rows[n].psnr <= rows["tv"].psnr]
            good = not below
            print(f"{case.name}: {'all' if good else ', '.join(below)} {'above' if good else 'NOT above'} TV")
    print(f"picture: {arguments.picture}")
    return 0 if good else 1


def images_of(arguments: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Images for tuning and for testing, at twice the size for phantoms and at the size for slices."""
    if arguments.data is not None:
        tuning, test = sparse_view.slices(arguments.data, max(arguments.images, arguments.tuning_images))
    else:
        tuning = sparse_view.phantoms(arguments.tuning_images, 1000)
        test = sparse_view.phantoms(arguments.images, 0)
    scale = arguments.size / sparse_view.SIZE
    if scale != 1:
        tuning, test = (
            torch.nn.functional.interpolate(
                images[:, None], scale_factor=scale, mode="bilinear", antialias=True
            )[:, 0]
            for images in (tuning, test)
        )
    return tuning[: arguments.tuning_images], test[: arguments.images]


def on(data: SimulatedScan, device: str) -> SimulatedScan:
    """The scan on a device."""
    return SimulatedScan(data.problem.to(device), data.truth.to(device))


if __name__ == "__main__":
    sys.exit(main())
