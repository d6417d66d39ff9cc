"""A cone beam, and how the times of ray transforms grow: the other half of `benchmarks.ray_transform`."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ray_transform import Case
from operators import ConeBeam, Detector, ImageGrid, RayTransform

SIDE, VIEWS, PANEL = 128, 180, 192
DIFFCT_VIEWS = 2  # its time on a CPU grows with the views, and is minutes for all of them
SIDES, SOME_VIEWS, THREADS = (64, 128, 256, 512), (90, 180, 360, 720), (1, 2, 4, 8)
BATCH = 8


def report(rounds: int, picture: Path) -> str:
    """Return the tables, and draw the second one."""
    parts = ["", cone_beam(rounds), ""]
    series = scaling(rounds)
    parts.append(f"joseph, batch {BATCH}, ms an image and direction (mean of forward and adjoint)")
    for name, times in series.items():
        parts.append(f"{name:<50}" + "".join(f"{at:>6}:{1e3 * spent:>8.2f}" for at, spent in times.items()))
    draw(series, picture)
    parts.append(f"drawn in {picture}")
    return "\n".join(parts)


def best(calls: list[Callable[[], object]], rounds: int) -> list[float]:
    """Return the best times of some calls in interleaved rounds, in seconds; the first round warms up."""
    least = [float("inf")] * len(calls)
    for number in range(rounds + 1):
        for i, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            spent = time.perf_counter() - begin
            least[i] = min(least[i], spent) if number else least[i]
    return least


def cone_beam(rounds: int) -> str:
    """Return the times of a cone beam, ours and diffct's where it is installed."""
    geometry = ConeBeam.circular(
        VIEWS, source_to_axis=400.0, source_to_detector=600.0, detector=Detector((PANEL, PANEL), 1.5)
    )
    ours = RayTransform(geometry, ImageGrid((SIDE,) * 3), "joseph")
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(ours.domain_shape, generator=generator)
    sinogram = torch.rand(ours.range_shape, generator=generator)
    forward, adjoint = best([lambda: ours(volume), lambda: ours.adjoint(sinogram)], rounds)
    lines = [
        f"cone beam, {SIDE}^3 voxels, {VIEWS} views of {PANEL}^2 bins: s for a volume",
        f"{'joseph':<10}forward {forward:8.2f}   adjoint {adjoint:8.2f}",
    ]
    if importlib.util.find_spec("diffct") is None:
        return "\n".join(
            [*lines, "diffct is not installed: pip install diffct, in an environment of its own"]
        )
    theirs = _diffct(geometry.subset(slice(DIFFCT_VIEWS)))
    some = sinogram[:DIFFCT_VIEWS].mT.contiguous()
    upwards = volume.flip(-2).contiguous()  # there y grows with the row
    forward, adjoint = best([lambda: theirs.project(upwards), lambda: theirs.backproject(some)], 1)
    apart = _distance(theirs.project(upwards).mT, ours.subset(slice(DIFFCT_VIEWS))(volume))
    scale = VIEWS / DIFFCT_VIEWS
    lines.append(
        f"{'diffct':<10}forward {scale * forward:8.2f}   adjoint {scale * adjoint:8.2f}   "
        f"(backend torch, {DIFFCT_VIEWS} views times {scale:g}; values {100 * apart:.2f} % apart)"
    )
    return "\n".join(lines)


def _diffct(geometry: ConeBeam) -> Any:
    """Return diffct's projector of our scan, on the CPU."""
    from diffct import Projector

    numbers = torch.from_numpy(geometry.vectors()).float()
    source, middle, along, across = (numbers[:, i : i + 3].contiguous() for i in (0, 3, 6, 9))
    pitch = geometry.detector.pitch
    return Projector(
        (source, middle, along / pitch, across / pitch),
        (SIDE,) * 3,
        (PANEL, PANEL),
        detector_spacing=pitch,
        backend="torch",
    )


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def scaling(rounds: int) -> dict[str, dict[int, float]]:
    """Return seconds an image and direction by image side, by views and by threads, for either beam."""
    asked = torch.get_num_threads()
    series: dict[str, dict[int, float]] = {}
    for beam in ("parallel", "fan"):
        sides = {side: Case("", side, 180, round(1.42 * side), beam) for side in SIDES}
        views = {number: Case("", 256, number, 363, beam) for number in SOME_VIEWS}
        threads = [number for number in THREADS if number <= max(2, asked)]
        series[f"{beam}, 180 views, by image side"] = _times(sides, rounds)
        series[f"{beam}, 256 x 256 pixels, by views"] = _times(views, rounds)
        spent = {}
        for number in threads:
            torch.set_num_threads(number)
            spent |= _times({number: Case("", 256, 360, 363, beam)}, rounds)
        torch.set_num_threads(asked)
        series[f"{beam}, 256 x 256 pixels, 360 views, by threads"] = spent
    return series


def _times(cases: dict[int, Case], rounds: int) -> dict[int, float]:
    calls: list[Callable[[], object]] = []
    for case in cases.values():
        operator = case.operator("joseph")
        image, sinogram = (
            torch.rand(BATCH, *shape) for shape in (operator.domain_shape, operator.range_shape)
        )
        calls += [
            lambda a=operator, x=image: a(x),  # type: ignore[misc]
            lambda a=operator, y=sinogram: a.adjoint(y),  # type: ignore[misc]
        ]
    spent = best(calls, rounds)
    return {
        at: (one + other) / 2 / BATCH for at, one, other in zip(cases, spent[::2], spent[1::2], strict=True)
    }


def draw(series: dict[str, dict[int, float]], picture: Path) -> None:
    """Draw every series against what it is by, in logarithms."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, by in zip(panels, ("image side", "views", "threads"), strict=True):
        for name, times in series.items():
            if name.endswith(by):
                axes.loglog(
                    list(times),
                    [1e3 * spent for spent in times.values()],
                    "o-",
                    label=name.removesuffix(f", by {by}"),
                )
        ticks = [at for name, times in series.items() if name.endswith(by) for at in times]
        axes.set_xticks(sorted(set(ticks)), [str(at) for at in sorted(set(ticks))], minor=False)
        axes.set_xticks([], minor=True)
        axes.set(xlabel=by)
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend(fontsize="small")
    panels[0].set_ylabel("ms an image and direction")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
