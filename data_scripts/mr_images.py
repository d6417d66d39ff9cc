"""Training images of measured k-space: the files' own magnitudes, or complex images combined from coils.

Every file is converted for itself, so that a run that is stopped goes on with the next file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.io.atomic import replacing
from ctflow.io.mr_scan import MRScan
from ctflow.io.scan import open_scan
from ctflow.representation import brightness
from data_scripts.downloads import FetchError, Say
from data_scripts.training_images import DATASET, write_settings, writing

KINDS = ("magnitude", "complex")
# Slices that are darker than this part of their file's brightest have hardly any anatomy.
FAINT = 0.25
_REPRESENTATION = {"scale": 1.0, "complex": True, "calibration": "data", "unit": "arbitrary"}


def convert(files: Sequence[Path], target: Path, kind: str, size: int, say: Say) -> int:
    """Write the images of files, scaled to a brightness of 1 for each file's brightest slice; how many.

    Parameters
    ----------
    target
        The file to write; beside it, what is converted is kept in a folder until all of it is.
    kind
        "magnitude": what the files bring as truth; "complex": zero-filled images, combined by coil maps.
    size
        Height and width: the middle of larger images, and zeros around smaller ones.

    Raises
    ------
    FetchError
        If no file gives an image.
    """
    if target.exists():
        with h5py.File(target) as file:
            return len(file[DATASET])
    folder = target.with_name(f".{target.stem}")
    folder.mkdir(exist_ok=True)
    parts = []
    for file in files:
        part = folder / f"{file.parent.name}_{file.stem}.h5"
        if not part.exists():
            try:
                images = scaled(_images(file, kind), size)
            except ValueError as error:
                say(f"{error}; left out")
                continue
            with replacing(part, overwrite=True) as made:
                made[DATASET] = images
            say(f"{file.name}: {len(images)} images")
        parts.append(part)
    if not parts:
        raise FetchError(f"{target}: expected files with {kind} images, found none among {len(files)}")
    dtype = np.complex64 if kind == "complex" else np.float16
    with writing(target, (size, size), "arbitrary", dtype) as stored:
        for part in parts:
            with h5py.File(part) as made:
                stored.append(made[DATASET][:])
        count = len(stored)
    for part in parts:
        part.unlink()
    folder.rmdir()
    say(f"{target}: {count} training images")
    return count


def settings_for(folder: Path, name: str, images: Path, kind: str, validation: Path | None, say: Say) -> None:
    """Write what `ctflow train` needs to train a complex prior on converted images."""
    target = folder / f"train_{name}.yaml"
    more: dict[str, Any] = {"representation": _REPRESENTATION, "network": {"channels": 2}}
    if kind == "magnitude":  # which get a phase of their own when they are trained on
        more["phase"] = {}
    write_settings(target, name, images, "arbitrary", validation=validation, **more)
    say(f"ctflow train {target}")


def scaled(images: Tensor, size: int) -> NDArray[np.complex64 | np.float16]:
    """Return images (slices, height, width) without the faint ones, of a size, the brightest slice at 1."""
    bright = np.array([brightness(image.abs()) for image in images])
    if not bright.max() > 0:
        raise ValueError("expected images with a signal, found none")
    kept = images[torch.from_numpy(bright >= FAINT * bright.max())] / float(bright.max())
    resized = torch.zeros((len(kept), size, size), dtype=kept.dtype)
    height, width = (min(size, n) for n in kept.shape[-2:])
    top, left = kept.shape[-2] // 2 - height // 2, kept.shape[-1] // 2 - width // 2
    row, column = size // 2 - height // 2, size // 2 - width // 2
    resized[:, row : row + height, column : column + width] = kept[:, top : top + height, left : left + width]
    return resized.numpy().astype(np.complex64 if resized.is_complex() else np.float16)


def _images(file: Path, kind: str) -> Tensor:
    scan = open_scan(file)
    if not isinstance(scan, MRScan):
        raise ValueError(f"{file}: expected k-space, found a scan of CT")
    if kind == "magnitude":
        truth = scan.truth(slice(0, len(scan)))
        if truth is None:
            raise ValueError(f"{file}: expected images beside k-space, found none")
        return truth.abs()
    if scan.is_volume:
        return scan.finished(scan.volume().initial())
    return torch.stack([scan.finished(problem.initial()) for problem in scan])
