"""One measured file through several solvers, and what came of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from ctflow.calibration import Calibration, calibration
from ctflow.io.errors import OutputError
from ctflow.io.results import Result, read_result
from ctflow.io.scan import AnyScan, open_scan
from ctflow.metrics import psnr, ssim
from ctflow.pipeline.job import Job, can_sample, chosen_slices, load_job
from ctflow.pipeline.running import Progress, run
from ctflow.report import evenly_spaced
from ctflow.solvers import make_solver
from ctflow.volume_metrics import VolumeQuality, volume_quality


@dataclass(frozen=True)
class Row:
    """What one solver did.

    Attributes
    ----------
    solver
        Its name and every setting.
    psnr, ssim
        Means over the slices, of magnitudes where images are complex, or None without a reference.
    volume
        Of all slices as one, as fastMRI reports them; None for CT, or without a reference.
    misfit
        Root mean square of the residual over the noise, mean over the slices; None for magnitudes of MR
        images, which explain no measurement.
    seconds
        For all slices.
    evaluations
        Of network and operator, a batch counting once.
    failed
        Number and reason of slices that are not in the means.
    calibration
        Where there are samples and a reference.
    images
        Of the slices in `Comparison.pictured`, (count, height, width); not in `to_dict`.
    """

    solver: Mapping[str, Any]
    psnr: float | None
    ssim: float | None
    volume: VolumeQuality | None
    misfit: float | None
    seconds: float
    evaluations: Mapping[str, int]
    failed: Mapping[int, str]
    calibration: Calibration | None
    images: Tensor = field(repr=False)

    @property
    def name(self) -> str:
        """The solver's."""
        return str(self.solver["name"])


@dataclass(frozen=True)
class Comparison:
    """Several solvers on one file.

    Attributes
    ----------
    file, reference
        The measured file, and that of the true images; None for those of the scan itself, or for none.
    slices
        How many were reconstructed.
    rows
        One for each solver that gave images.
    refused
        Names of the others, and why.
    pictured
        Numbers of the slices that are shown.
    truth
        Those slices' true images, where known.
    unit, pixel_size
        Of the images.
    """

    file: Path
    reference: Path | None
    slices: int
    rows: tuple[Row, ...]
    refused: Mapping[str, str]
    pictured: tuple[int, ...]
    truth: Tensor | None = field(repr=False)
    unit: str = ""
    pixel_size: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything but the images, as plain data."""
        rows = []
        for row in self.rows:
            fields: dict[str, Any] = {key: value for key, value in vars(row).items() if key != "images"}
            for name in ("volume", "calibration"):
                fields[name] = None if fields[name] is None else asdict(fields[name])
            rows.append(fields)
        return {
            "file": str(self.file),
            "reference": None if self.reference is None else str(self.reference),
            "slices": self.slices,
            "unit": self.unit,
            "solvers": rows,
            "refused": dict(self.refused),
        }


def compare(
    file: Path,
    solvers: Mapping[str, Mapping[str, Any]],
    job: Mapping[str, Any] | None = None,
    *,
    reference: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Reconstruct a file with several solvers and compare the images with the true ones.

    Parameters
    ----------
    file
        A measured file.
    solvers
        Names, and settings that differ from the defaults.
    job
        Keys of `Job` for all of them. `samples` holds for the solvers that can draw; the others give one
        image.
    reference
        A reconstruction file, or a scan with true images, of as many slices as are reconstructed or as the
        scan has. Unless given, the scan's own truth serves, if it has any.

    Raises
    ------
    ValueError
        In one line, before anything is computed, for what cannot be read or makes no sense.
    """
    common = {key: value for key, value in (job or {}).items() if value is not None}
    if not solvers:
        raise ValueError("solvers: expected at least one name, found none")
    with TemporaryDirectory(prefix="ctflow-compare-") as folder:
        jobs: dict[str, Job] = {}
        for name, settings in solvers.items():
            make_solver(name)
            own = {**common, "solver": name, "settings": dict(settings)}
            if not can_sample(name):
                own.pop("samples", None)
            jobs[name] = load_job(None, {**own, "files": [file], "output": Path(folder) / f"{name}.h5"})
        first = next(iter(jobs.values()))
        scan = open_scan(file, **first.reading())
        chosen = chosen_slices(first.slices, len(scan))
        truth = _truth(scan, chosen, reference)
        shown = evenly_spaced(len(chosen), 3)
        rows, refused = [], {}
        for name, one in jobs.items():
            try:
                (outcome,) = run(one, progress)
            except ValueError as error:
                refused[name] = str(error)
                continue
            assert outcome.output is not None
            result = read_result(outcome.output)
            fit = _misfit(scan, chosen, result)
            rows.append(_row(result, truth, fit, outcome.failed, shown, as_volume=scan.modality == "MR"))
    return Comparison(
        file=file,
        reference=reference,
        slices=len(chosen),
        rows=tuple(rows),
        refused=refused,
        pictured=tuple(chosen[k] for k in shown),
        truth=None if truth is None else truth[shown],
        unit=scan.unit,
        pixel_size=scan.pixel_size if scan.unit == "1/mm" else None,
    )


def _misfit(scan: AnyScan, chosen: range, result: Result) -> float | None:
    """Mean data fit of the slices that were reconstructed, where their images can have one."""
    done = [k for k, status in enumerate(result.status) if status == "done"]
    if result.data_fit is not None:
        return float(result.data_fit[done].mean())
    if scan.modality == "MR" and not result.images.is_complex():
        return None
    if scan.is_volume:
        return float(scan.volume().data_fit(result.images))
    return sum(float(scan[chosen[k]].data_fit(result.images[k])) for k in done) / len(done)


def _row(
    result: Result,
    truth: Tensor | None,
    misfit: float | None,
    failed: Mapping[int, str],
    shown: list[int],
    *,
    as_volume: bool,
) -> Row:
    attributes = result.attributes
    done = torch.tensor([status == "done" for status in result.status])
    images = result.images[done]
    quality: dict[str, float | None] = {"psnr": None, "ssim": None}
    found = volume = None
    if truth is not None:
        seen, true = (x.abs() if x.is_complex() else x for x in (images, truth[done]))
        quality = {"psnr": float(psnr(seen, true).mean()), "ssim": float(ssim(seen, true).mean())}
        if as_volume:
            volume = volume_quality(images, truth[done])
        if result.samples is not None and result.std is not None:
            mean = images if truth.is_complex() else seen
            found = calibration(mean, result.std[done], truth[done], len(result.samples))
    return Row(
        solver=attributes["solver"],
        volume=volume,
        misfit=misfit,
        seconds=float(attributes["seconds"]["total"]),
        evaluations=attributes["evaluations"],
        failed=dict(failed),
        calibration=found,
        images=result.images[shown],
        **quality,
    )


def _truth(scan: AnyScan, chosen: range, reference: Path | None) -> Tensor | None:
    """The true images of the chosen slices, (slices, height, width)."""
    if reference is None:
        return scan.truth(slice(chosen.start, chosen.stop))
    images: Tensor | None
    try:
        images = read_result(reference).images
    except OutputError:
        other = open_scan(reference)
        images = other.truth(slice(0, len(other)))
    if images is None:
        raise ValueError(f"{reference}: expected a file with images, found a scan whose truth is unknown")
    if len(images) == len(scan):
        images = images[chosen.start : chosen.stop]
    expected = (len(chosen), *scan.image_shape[-2:])
    if tuple(images.shape) != expected:
        raise ValueError(f"{reference}: expected images of shape {expected}, found {tuple(images.shape)}")
    return images
