"""Sparse-view CT with fbp, sirt, cgls, tv and flower: PSNR and SSIM on images that no prior has seen.

Run ``python -m benchmarks.sparse_view [--data FOLDER] [--prior ct-small]``. Parallel beam, 256 x 256 pixels
of 1 mm, 363 bins; 30, 60 and 120 views; 10^4 and 10^5 photons a bin; data made on a grid twice as fine.
Images are the project's phantoms with seeds from 10^9 on; with --data, held-out slices: the GE head of
ct_slices.h5, the test split of ct_openkbp.h5, and the last tenth of the patients of ct_luad.h5, at
0.02 (1 + HU / 1000) per mm, not below 0, resampled to 256 x 256.

Every baseline gets the setting that has the best mean PSNR for that number of views and photons on a
separate tuning set, printed beside its row: filter and cutoff, iterations, weight. FLOWER runs with its
defaults, untuned. PSNR and SSIM are relative to the largest value of each true image.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ctflow.flows.store import load_prior
from ctflow.metrics import psnr, ssim
from ctflow.simulate import SimulatedScan, scan_settings, simulate_scan
from ctflow.solvers import CGLS, FBP, SIRT, TV, Flower, Step

VIEWS = (30, 60, 120)
PHOTONS = (1e4, 1e5)
SIZE = 256
FILTERS = [("ram-lak", 1.0), ("hann", 1.0), ("hann", 0.7), ("hann", 0.5), ("hann", 0.35)]
WEIGHTS = (0.15, 0.3, 0.45, 0.6, 0.9, 1.4)
LONGEST = {"cgls": 30, "sirt": 200}
SIRT_GRID = (10, 20, 30, 50, 75, 100, 150, 200)


def phantoms(count: int, first: int) -> Tensor:
    """Held-out phantoms at twice the resolution, shape (count, 512, 512)."""
    from ctflow.phantoms import HELD_OUT, random_anatomy

    return torch.stack([random_anatomy(HELD_OUT + first + i, (2 * SIZE, 2 * SIZE)) for i in range(count)])


def slices(folder: Path, count: int) -> tuple[Tensor, Tensor]:
    """Held-out real slices for tuning and for testing, each (count, 256, 256); from one set."""
    import h5py
    import numpy as np

    picked: list[Tensor] = []
    with h5py.File(folder / "ct_slices.h5") as file:
        picked.append(_spread(file["ge_head"][:], 2 * count))
    with h5py.File(folder / "ct_openkbp.h5") as file:
        picked.append(_spread(file["image"][:][file["split"].asstr()[:] == "test"], 2 * count))
    with h5py.File(folder / "ct_luad.h5") as file:
        patients = file["patient"].asstr()[:]
        names = sorted(set(patients))
        held_out = np.isin(patients, names[len(names) - len(names) // 10 :])
        picked.append(_spread(file["image"][:][held_out], 2 * count))
    # Round robin over the three sources, so that any number of images has all of them.
    images = [stack[i] for i in range(2 * count) for stack in picked]
    return torch.stack(images[1 : 2 * count : 2]), torch.stack(images[: 2 * count : 2])


def _spread(hounsfield: Any, count: int) -> Tensor:
    """Slices evenly spaced through a stack, as attenuation at 256 x 256."""
    rows = torch.linspace(0, len(hounsfield) - 1, count + 2)[1:-1].round().long()
    images = 0.02 * (1 + torch.from_numpy(hounsfield[rows.numpy()]).float() / 1000)
    resized = torch.nn.functional.interpolate(
        images.clamp_min(0)[:, None], (SIZE, SIZE), mode="bilinear", antialias=True
    )
    return resized[:, 0]


def scan(images: Tensor, views: int, photons: float, seed: int) -> SimulatedScan:
    """Scans of the images, with a generator for each."""
    settings = scan_settings("sparse-view", views=views, photons=photons)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(images))]
    return simulate_scan(images, settings.operator(), settings.noise(), generators)


def tuned(data: SimulatedScan) -> dict[str, Any]:
    """The best setting of every baseline on the tuning scans, by mean PSNR."""
    problem, truth = data.problem, data.truth

    def score(image: Tensor) -> float:
        return float(psnr(image, truth).mean())

    def best_iteration(solver: CGLS | SIRT) -> int:
        scores: dict[int, float] = {}

        def watch(step: Step) -> None:
            if isinstance(solver, CGLS) or step.step in SIRT_GRID:
                scores[step.step] = score(step.estimate)

        solver(problem, callback=watch)
        return max(scores, key=scores.__getitem__)

    filters = {setting: score(FBP(*setting)(problem).image) for setting in FILTERS}
    weights = {weight: score(TV(weight)(problem).image) for weight in WEIGHTS}
    return {
        "fbp": FBP(*max(filters, key=filters.__getitem__)),
        "sirt": SIRT(best_iteration(SIRT(LONGEST["sirt"]))),
        "cgls": CGLS(best_iteration(CGLS(LONGEST["cgls"]))),
        "tv": TV(max(weights, key=weights.__getitem__)),
    }


def described(name: str, solver: Any) -> str:
    """The setting that was tuned."""
    if name == "fbp":
        return f"{solver.filter}, cutoff {solver.cutoff:g}"
    if name == "tv":
        return f"weight {solver.weight:g}"
    return f"{solver.iterations} iterations" if name != "flower" else "defaults"


def main() -> int:
    """Tune, run, print the table, and say whether TV is above FBP and FLOWER above TV."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with ct_slices.h5, ct_openkbp.h5 and ct_luad.h5")
    parser.add_argument("--prior", default="ct-small", help="a bundled prior's name, or a saved prior's path")
    parser.add_argument("--images", type=int, default=6, help="test images")
    parser.add_argument("--tuning-images", type=int, default=3)
    parser.add_argument("--steps", type=int, default=Flower().steps, help="of FLOWER")
    parser.add_argument("--views", type=int, nargs="+", default=VIEWS)
    parser.add_argument("--photons", type=float, nargs="+", default=PHOTONS)
    arguments = parser.parse_args()
    try:
        prior = load_prior(arguments.prior)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.data is None:
        tuning, test = phantoms(arguments.tuning_images, 1000), phantoms(arguments.images, 0)
    else:
        tuning, test = slices(arguments.data, max(arguments.images, arguments.tuning_images))
        tuning, test = tuning[: arguments.tuning_images], test[: arguments.images]
    source = "phantoms" if arguments.data is None else "held-out slices"
    print(f"{len(test)} {source}, tuned on {len(tuning)} others; prior {prior.name}, {arguments.steps} steps")
    print(f"{'views':>5}{'photons':>9}  {'solver':8}{'PSNR':>7}{'SSIM':>8}{'s/image':>9}  setting")
    good = True
    for photons in arguments.photons:
        for views in arguments.views:
            solvers = tuned(scan(tuning, views, photons, seed=500)) | {
                "flower": Flower(steps=arguments.steps)
            }
            data = scan(test, views, photons, seed=0)
            mean: dict[str, float] = {}
            for name, solver in solvers.items():
                start = time.perf_counter()
                generators = [torch.Generator().manual_seed(i) for i in range(len(test))]
                image = solver(data.problem, prior if name == "flower" else None, generator=generators).image
                seconds = (time.perf_counter() - start) / len(test)
                mean[name] = float(psnr(image, data.truth).mean())
                similarity = float(ssim(image, data.truth).mean())
                row = f"{views:5}{photons:9.0e}  {name:8}{mean[name]:7.2f}{similarity:8.4f}{seconds:9.2f}"
                print(f"{row}  {described(name, solver)}", flush=True)
            good &= mean["tv"] > mean["fbp"] and (views > 60 or mean["flower"] > mean["tv"])
    verdict = "holds" if good else "does NOT hold"
    print(f"TV above FBP everywhere, FLOWER above TV up to 60 views: {verdict}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
