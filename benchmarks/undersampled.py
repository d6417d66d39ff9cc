"""Undersampled MRI by zero-filling, CG-SENSE, wavelets, TV and flower, on heads that no prior has seen.

Run ``python -m benchmarks.undersampled [--data FOLDER] [--prior mr-small]``. The presets of
ctflow.simulate_mri: 8 coils or one, 4 and 8 fold; coil images made on a grid twice as fine. Images are
the project's phantoms with seeds from 10^9 on; with --data, slices of the subject seg3d_t1 of
mr_slices.h5, which is kept out of training, as square magnitudes with a random smooth phase.

Every baseline gets the setting that has the best mean PSNR for that preset on a separate tuning set,
printed beside its row: iterations of CG-SENSE, weights of our wavelets and TV, and of sigpy's where it is
installed. FLOWER runs with its defaults, untuned. PSNR and SSIM are of magnitudes, relative to the
largest of each true image; the whole field of view counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ctflow.flows.prior import FlowPrior
from ctflow.flows.store import load_prior
from ctflow.metrics import psnr, ssim
from ctflow.problem import InverseProblem
from ctflow.simulate_mri import MR_PRESETS, SimulatedKspace, mr_settings, simulate_kspace
from ctflow.solvers import CGSENSE, Flower, ZeroFilled, make_solver
from ctflow.solvers.solver import Solver
from operators.mri.fourier import CartesianFourier

ITERATIONS = (2, 4, 6, 8, 12, 16)
OWN_WEIGHTS = (0.15, 0.3, 0.6, 1.0, 1.5)
WEIGHTS = (5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
PEER_ITERATIONS = {"wavelet": 100, "tv": 500}
Method = Callable[[InverseProblem], Tensor]


def phantoms(count: int, first: int, size: int) -> Tensor:
    """Held-out heads at twice the resolution, shape (count, 2 size, 2 size)."""
    from ctflow.phantoms import HELD_OUT

    settings = mr_settings("mri-equispaced-4x", size=size)
    return torch.stack([settings.phantom(HELD_OUT + first + i) for i in range(count)])


def slices(folder: Path, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Slices of the held-out subject for tuning and for testing, each (count, size, size)."""
    import h5py

    from ctflow.representation import brightness
    from ctflow.smooth_fields import places, with_smooth_phase

    with h5py.File(folder / "mr_slices.h5") as file:
        volume = torch.from_numpy(file["seg3d_t1"][:]).float()
    rows = torch.linspace(0.2 * len(volume), 0.85 * len(volume), 2 * count).round().long()
    images = []
    for i in rows.tolist():
        magnitude = volume[i] / brightness(volume[i])
        missing = [size - n for n in magnitude.shape]
        if min(missing) < 0:
            raise ValueError(f"--size: expected at least {max(magnitude.shape)}, found {size}")
        top, left = (n // 2 for n in missing)
        magnitude = torch.nn.functional.pad(magnitude, (left, missing[1] - left, top, missing[0] - top))
        at, generator = places(size), torch.Generator().manual_seed(i)
        images.append(with_smooth_phase(magnitude, at, at, generator, shading=0.0))
    return torch.stack(images[1::2]), torch.stack(images[::2])


def scan(images: Tensor, preset: str, size: int, seed: int) -> SimulatedKspace:
    """Scans of the images, with a generator for each."""
    settings = mr_settings(preset, size=size)
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(images))]
    noise = settings.noise_std
    return simulate_kspace(
        images, settings.coil_maps(), settings.mask(), noise, generators, shape=(size, size)
    )


def method_of(solver: Solver) -> Method:
    """The image that a solver makes of a problem."""
    return lambda problem: solver(problem, generator=torch.Generator().manual_seed(0)).image


def own() -> dict[str, dict[str, Solver]]:
    """Our baselines that have something to choose, by what is chosen."""
    solvers: dict[str, dict[str, Solver]] = {
        "cg-sense": {f"{count} iterations": CGSENSE(iterations=count) for count in ITERATIONS}
    }
    for name in ("wavelet", "tv"):
        made = {weight: make_solver(name, {"weight": weight}) for weight in OWN_WEIGHTS}
        solvers[name] = {f"weight {weight:g}": solver for weight, solver in made.items()}
    return solvers


def peer(name: str, weight: float) -> Method:
    """Wavelets or total variation by sigpy."""

    def reconstruct(problem: InverseProblem) -> Tensor:
        import sigpy.mri.app as peers

        app = peers.L1WaveletRecon if name == "wavelet" else peers.TotalVariationRecon
        operator = problem.operator
        assert isinstance(operator, CartesianFourier)
        maps, kspace = operator.coil_maps, problem.measurement
        if maps is None:
            kspace = kspace.unsqueeze(-3)
            maps = torch.ones_like(kspace[0])
        settings = {"show_pbar": False, "max_iter": PEER_ITERATIONS[name]}
        found = [app(y.numpy(), maps.numpy(), weight, **settings).run() for y in kspace]
        return torch.stack([torch.from_numpy(image) for image in found])

    return reconstruct


def flower(prior: FlowPrior, steps: int) -> Method:
    """FLOWER with its defaults and a generator for each image."""

    def reconstruct(problem: InverseProblem) -> Tensor:
        generators = [torch.Generator().manual_seed(i) for i in range(len(problem.measurement))]
        return Flower(steps=steps)(problem, prior, generator=generators).image

    return reconstruct


def quality(image: Tensor, data: SimulatedKspace) -> tuple[float, float]:
    """Mean PSNR and SSIM of the magnitudes."""
    found, truth = image.abs(), data.truth.abs()
    return float(psnr(found, truth).mean()), float(ssim(found, truth).mean())


def best(methods: Mapping[str, Method], data: SimulatedKspace) -> str:
    """The setting of the best mean PSNR."""
    scores = {setting: quality(method(data.problem), data)[0] for setting, method in methods.items()}
    return max(scores, key=scores.__getitem__)


def tuned(data: SimulatedKspace, peers: bool) -> dict[str, tuple[Method, str]]:
    """Every baseline with its best setting on the tuning scans, and what that is."""
    candidates = {
        name: {setting: method_of(solver) for setting, solver in solvers.items()}
        for name, solvers in own().items()
    }
    for name in PEER_ITERATIONS if peers else ():
        candidates[f"{name} (sigpy)"] = {f"weight {weight:g}": peer(name, weight) for weight in WEIGHTS}
    methods = {"zero-filled": (method_of(ZeroFilled()), "")}
    for name, settings in candidates.items():
        chosen = best(settings, data)
        methods[name] = settings[chosen], chosen
    return methods


def main() -> int:
    """Tune, run, print the table, and say whether FLOWER is above all others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with mr_slices.h5")
    parser.add_argument("--prior", default="mr-small", help="a bundled prior's name, or a saved prior's path")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--images", type=int, default=4, help="test images")
    parser.add_argument("--tuning-images", type=int, default=2)
    parser.add_argument("--steps", type=int, default=Flower().steps, help="of FLOWER")
    parser.add_argument("--presets", nargs="+", default=list(MR_PRESETS), choices=list(MR_PRESETS))
    arguments = parser.parse_args()
    size = arguments.size
    try:
        prior = load_prior(arguments.prior)
        if arguments.data is None:
            tuning = phantoms(arguments.tuning_images, 1000, size)
            test = phantoms(arguments.images, 0, size)
        else:
            both = slices(arguments.data, max(arguments.images, arguments.tuning_images), size)
            tuning, test = both[0][: arguments.tuning_images], both[1][: arguments.images]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    peers = importlib.util.find_spec("sigpy") is not None
    if not peers:
        print("sigpy is not installed: its rows are left out")
    source = "phantoms" if arguments.data is None else "held-out slices"
    print(f"{len(test)} {source}, tuned on {len(tuning)} others; prior {prior.name}, {arguments.steps} steps")
    print(f"{'preset':<20}{'solver':<17}{'PSNR':>7}{'SSIM':>8}{'s/image':>9}  setting")
    good = True
    for preset in arguments.presets:
        methods = tuned(scan(tuning, preset, size, seed=500), peers)
        methods["flower"] = flower(prior, arguments.steps), "defaults"
        data, mean = scan(test, preset, size, seed=0), {}
        for name, (method, setting) in methods.items():
            start = time.perf_counter()
            mean[name], similarity = quality(method(data.problem), data)
            seconds = (time.perf_counter() - start) / len(test)
            row = f"{preset:<20}{name:<17}{mean[name]:7.2f}{similarity:8.4f}{seconds:9.2f}"
            print(f"{row}  {setting}", flush=True)
        good &= max(mean, key=mean.__getitem__) == "flower"
    print(f"FLOWER above all others by PSNR: {'holds' if good else 'does NOT hold'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
