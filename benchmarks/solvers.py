"""Every solver on the same held-out scans with the same prior: quality, misfit, time, calls and memory.

Run ``python -m benchmarks.solvers [--cases "60 views,mri 4x"] [--solvers flower,ms-flow] [--data FOLDER]``.
CT: parallel beam, 256 x 256 pixels of 1 mm, 363 bins, 10^4 photons a bin; 60 and 30 views over half a turn,
120 views over 120 degrees; data made on a grid twice as fine. MRI: 8 coils, random columns, 4 and 8 fold.
Images, classical baselines and their tuning as in `benchmarks.sparse_view` and `benchmarks.undersampled`.
Flow solvers run with the published settings; a second row of some, after a plus sign, has the corrections
that their docstrings give. ``--set ms-flow.sweeps=20`` changes a setting; ``--size 64 --images 1`` and
``--prior white`` try the benchmark.

PSNR and SSIM are those of magnitudes, relative to the largest value of each true image; misfit is the
weighted root mean square of the residual, 1 where the image explains the data to the noise; seconds and calls
are per image; peak memory is beyond what was in use before, for the whole batch.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.priors import find_prior
from benchmarks.resident import peak, reset_peak
from benchmarks.scans import CASES, Case, Data
from ctflow.flows.prior import FlowPrior
from ctflow.metrics import psnr, ssim
from ctflow.report import comparison
from ctflow.solvers import make_solver
from ctflow.solvers.solver import configure

CLASSICAL = ("fbp", "sirt", "cgls", "tv", "zero-filled", "cg-sense", "wavelet")
# Rows of flow solvers: the name on the command line, and what differs from the published defaults.
FLOWS: dict[str, tuple[str, dict[str, Any]]] = {
    "flower": ("flower", {}),
    "flower+shift": ("flower", {"shift": 0.2}),
    "flower+sample": ("flower", {"sample": True}),
    "ms-flow": ("ms-flow", {}),
    "ms-flow+noise": (
        "ms-flow",
        {
            "regulariser": "quadratic",
            "regularisation": 4.0,
            "penalty": 400.0,
            "growth": 1.0,
            "relaxation": 0.5,
            "sweeps": 16,
        },
    ),
    "pnp-flow": ("pnp-flow", {}),
    "pnp-flow+prox": ("pnp-flow", {"data_step": "proximal"}),
    "flow-dps": ("flow-dps", {}),
    "flow-dps+prox": (
        "flow-dps",
        {"data_step": "proximal", "blend": False, "shift": 1.0, "steps": 100, "tolerance": 1e-2},
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


def measured(solver: Any, data: Data, prior: FlowPrior, device: str) -> Row:
    """Run the solver on all images at once."""
    count = len(data.truth)
    generators = [torch.Generator().manual_seed(i) for i in range(count)]
    before, start = reset_peak(device), time.perf_counter()
    result = solver(data.problem, prior, generator=generators)
    # The peak waits for the device.
    memory = peak(device) - before
    seconds = time.perf_counter() - start
    return Row(
        psnr=float(psnr(shown(result.image), shown(data.truth)).mean()),
        ssim=float(ssim(shown(result.image), shown(data.truth)).mean()),
        misfit=float(data.problem.data_fit(result.image).mean()),
        seconds=seconds / count,
        network=result.evaluations.get("network", 0),
        operator=result.evaluations.get("operator", 0),
        megabytes=memory / 1e6,
        image=result.image[0].cpu(),
    )


def shown(image: Tensor) -> Tensor:
    """The image, or the magnitude of a complex one."""
    return image.abs() if image.is_complex() else image


def solvers_of(
    chosen: list[str], case: Case, tuning: Data, changes: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """The solvers asked for, the classical ones tuned."""
    wanted = set(chosen)
    result: dict[str, Any] = {}
    if wanted & set(CLASSICAL):
        result |= {name: s for name, s in case.tuned(tuning).items() if name in wanted}
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
    parser.add_argument("--prior", default="ct-small", help="for CT: a name or path, or white or untrained")
    parser.add_argument("--mr-prior", default="mr-small", help="for MRI: a name or path")
    parser.add_argument(
        "--data", type=Path, help="folder with ct_slices.h5, ct_openkbp.h5, ct_luad.h5, mr_slices.h5"
    )
    parser.add_argument("--solvers", default=",".join(everything), help="rows, separated by commas")
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--tuning-images", type=int, default=2)
    parser.add_argument("--size", type=int, default=256, help="pixels along a side")
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
    chosen, names = arguments.solvers.split(","), arguments.cases.split(",")
    unknown = [s for s in chosen if s not in everything] + [
        c for c in names if c not in {k.name for k in CASES}
    ]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(everything)}", file=sys.stderr)
        return 2
    cases = [case for case in CASES if case.name in names]
    threads, device = torch.get_num_threads(), arguments.device
    print(f"{arguments.images} images of {arguments.size}^2, {threads} threads, {device}")
    print(
        f"{'case':12}{'solver':18}{'PSNR':>7}{'SSIM':>8}{'misfit':>8}{'s/image':>9}"
        f"{'network':>9}{'operator':>9}{'peak MB':>9}"
    )
    good = True
    for case in cases:
        try:
            prior = find_prior(arguments.prior if case.modality == "ct" else arguments.mr_prior).to(device)
            tuning, test = case.images(
                arguments.data, arguments.size, arguments.tuning_images, arguments.images
            )
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        data = case.scan(test, arguments.size, seed=0).on(device)
        tuned = case.scan(tuning, arguments.size, seed=500).on(device)
        rows: dict[str, Row] = {}
        for name, solver in solvers_of(chosen, case, tuned, changes).items():
            row = rows[name] = measured(solver, data, prior, device)
            print(
                f"{case.name:12}{name:18}{row.psnr:7.2f}{row.ssim:8.4f}{row.misfit:8.2f}{row.seconds:9.2f}"
                f"{row.network:9.0f}{row.operator:9.0f}{row.megabytes:9.1f}",
                flush=True,
            )
        if case is cases[0]:
            images = {name: shown(row.image) for name, row in rows.items()}
            title = f"{case.name}, prior {prior.name}"
            comparison(images, shown(data.truth[0]).cpu(), arguments.picture, title=title)
        if case.name == "60 views" and "tv" in rows:
            below = [n for n in ABOVE_TV if n in rows and rows[n].psnr <= rows["tv"].psnr]
            good = not below
            print(f"{case.name}: {'all' if good else ', '.join(below)} {'above' if good else 'NOT above'} TV")
    print(f"picture: {arguments.picture}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
