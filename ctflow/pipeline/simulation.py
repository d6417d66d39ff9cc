"""Simulated scans, written to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ctflow import __version__
from ctflow.io.atomic import check_writable
from ctflow.io.formats.native import write_scan
from ctflow.io.formats.native_kspace import write_kspace_scan
from ctflow.phantoms import HELD_OUT
from ctflow.simulate import scan_settings, simulate_preset
from ctflow.simulate_mri import MR_PRESETS, mr_settings, simulate_mr_preset

_OF_CT, _OF_KSPACE = ("views", "photons"), ("acceleration", "coils", "noise_std")


def simulate_file(
    preset: str,
    output: Path,
    *,
    number: int = 1,
    seed: int = 0,
    given: Mapping[str, Any],
    overwrite: bool = False,
) -> str:
    """Write a scan of bodies that no bundled prior was trained on; return what it is, in a line.

    Parameters
    ----------
    preset
        One of `ctflow.simulate.PRESETS` or `ctflow.simulate_mri.MR_PRESETS`.
    output
        The file to write.
    number
        Slices, each of another body; 1 for a volume.
    seed
        Of bodies and noise.
    given
        Settings in place of the preset's; those that are None are left alone.
    overwrite
        Whether an existing file may be replaced.

    Raises
    ------
    ValueError
        In one line, for what does not go together or cannot be written.
    """
    changes = {name: value for name, value in given.items() if value is not None}
    for name in _OF_CT if preset in MR_PRESETS else _OF_KSPACE:
        if name in changes:
            raise ValueError(f"--{name.replace('_', '-')}: expected none for {preset}, found {changes[name]}")
    seeds = range(HELD_OUT + seed, HELD_OUT + seed + number)
    metadata = {"simulated": preset, "changes": changes, "seeds": list(seeds), "ctflow": __version__}
    write = _write_kspace if preset in MR_PRESETS else _write_rays
    return f"{output}: {write(preset, output, seeds, changes, metadata, overwrite)}"


def _write_rays(
    preset: str,
    output: Path,
    seeds: range,
    changes: dict[str, Any],
    metadata: dict[str, Any],
    overwrite: bool,
) -> str:
    settings = scan_settings(preset, **changes)
    operator = settings.operator()
    volume = operator.geometry.dimensions == 3
    if volume and len(seeds) > 1:
        raise ValueError(f"-n: expected 1 for {preset}, which is one volume a file, found {len(seeds)}")
    check_writable(output, overwrite)
    scan = simulate_preset(preset, seeds, **changes)
    write_scan(
        output,
        scan.problem.measurement[0] if volume else scan.problem.measurement,
        operator.geometry,
        operator.grid,
        scan.problem.noise,
        truth=scan.truth[0] if volume else scan.truth,
        metadata=metadata,
        overwrite=overwrite,
    )
    return _counted(operator.grid.shape[0] if volume else len(seeds), settings.size)


def _write_kspace(
    preset: str,
    output: Path,
    seeds: range,
    changes: dict[str, Any],
    metadata: dict[str, Any],
    overwrite: bool,
) -> str:
    settings = mr_settings(preset, **changes)
    check_writable(output, overwrite)
    scan = simulate_mr_preset(preset, seeds, **changes)
    write_kspace_scan(
        output,
        # A single coil has no axis of its own in the problem.
        scan.kspace if scan.coil_maps is not None else scan.kspace.unsqueeze(1),
        torch.ones(1, dtype=torch.bool) if scan.mask is None else scan.mask,
        # Maps are left to be estimated, as for a scanner.
        noise_std=scan.noise_std,
        truth=scan.truth,
        pixel_size=scan.pixel_size,
        metadata=metadata,
        overwrite=overwrite,
    )
    coils = "1 coil" if settings.coils == 1 else f"{settings.coils} coils"
    return f"{_counted(len(seeds), settings.size)}, {coils}"


def _counted(slices: int, size: int) -> str:
    return f"{slices} slice{'' if slices == 1 else 's'} of {size} x {size} pixels"
