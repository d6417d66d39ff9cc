"""Training images: HDF5 datasets in physical units, drawn as augmented crops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from ctflow.flows.training_settings import Phase
from ctflow.representation import Representation, brightness
from ctflow.smooth_fields import places, with_smooth_phase

UNITS = ("1/mm", "HU", "arbitrary")
# Bytes that are read unasked; compression makes constant images a thousand times smaller, not more.
_SMALL, _LARGEST_RATIO = 2**26, 4096


class CropSampler:
    """Random crops of weighted image sets, in network units.

    Parameters
    ----------
    sets
        Image stacks (images, channels, height, width), already in network units.
    weights
        How often each set is drawn from, relative to the others.
    empty
        The network's value of an empty image: crops of images smaller than the crop are padded by it.
    rescale
        Lowest and highest factor on the physical value, drawn for `rescale_probability` of the crops,
        so that the prior knows other scales than its own.
    phase
        Stacks of one channel are magnitudes, and each crop of them gets a phase and shading of its own and
        becomes two channels, as smooth as suits the whole image that it is a part of.
    """

    def __init__(
        self,
        sets: Sequence[Tensor],
        weights: Sequence[float],
        *,
        empty: float = -1.0,
        rescale: tuple[float, float] = (1.0, 1.0),
        rescale_probability: float = 0.0,
        phase: Phase | None = None,
    ) -> None:
        if not sets or len(sets) != len(weights):
            raise ValueError(
                f"expected one weight for each set of images, found {len(weights)} and {len(sets)}"
            )
        self.sets, self.weights = list(sets), torch.tensor(weights, dtype=torch.float64)
        self.empty, self.rescale, self.rescale_probability = empty, rescale, rescale_probability
        self.phase = phase

    def __call__(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """`count` crops, shape (count, channels, size, size)."""
        which = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        return torch.stack([self._crop(self.sets[int(i)], size, generator) for i in which])

    def _crop(self, images: Tensor, size: int, generator: torch.Generator) -> Tensor:
        def whole(high: int) -> int:
            return int(torch.randint(high, (), generator=generator))

        def uniform() -> float:
            return float(torch.rand((), generator=generator))

        image = images[whole(len(images))]
        height, width = image.shape[-2:]
        top, left = whole(max(height - size, 0) + 1), whole(max(width - size, 0) + 1)
        crop = image[:, top : top + size, left : left + size].float()
        if crop.shape[-2:] != (size, size):
            padding = (0, size - crop.shape[-1], 0, size - crop.shape[-2])
            crop = torch.nn.functional.pad(crop, padding, value=self.empty)
        if self.phase is not None and len(crop) == 1:
            rows = places(size, of=max(height, size), first=top)
            columns = places(size, of=max(width, size), first=left)
            made = with_smooth_phase(crop[0], rows, columns, generator, **self.phase.model_dump())
            crop = torch.stack((made.real, made.imag))
        crop = torch.rot90(crop, whole(4), (-2, -1))
        if uniform() < 0.5:
            crop = crop.flip(-1)
        if uniform() < self.rescale_probability:
            low, high = self.rescale
            crop = self.empty + (crop - self.empty) * (low + (high - low) * uniform())
        return crop


def read_images(file: Path, dataset: str, unit: str, representation: Representation) -> Tensor:
    """Images of one HDF5 dataset (images, height, width) as float16 in network units.

    Parameters
    ----------
    unit
        "1/mm"; "HU", for which water is 0.02/mm and air is 0; or "arbitrary".
    representation
        Of complex images, it takes magnitudes too; they stay real. Where it takes its scale from the data,
        each image is brought to the peak by its own brightness, as `Representation.fitted` would.

    Returns
    -------
    Tensor
        Shape (images, channels, height, width): two channels for complex images, one for real ones.

    Raises
    ------
    ValueError
        For a file, dataset, shape, type or unit that is not as expected.
    """
    if unit not in UNITS:
        raise ValueError(f"{file}: {dataset}: unit: expected one of {', '.join(UNITS)}, found {unit!r}")
    values = _values(file, dataset)
    if values.is_complex() and not representation.complex:
        raise ValueError(
            f"{file}: {dataset}: expected real images for this representation, found complex ones"
        )
    if representation.complex and not values.is_complex() and bool((values < 0).any()):
        raise ValueError(f"{file}: {dataset}: expected magnitudes, found values below 0")
    if unit == "HU":
        values = (0.02 * (1 + values / 1000)).clamp_min(0)
    if representation.calibration == "data":
        own = torch.tensor([brightness(image.abs()) for image in values])
        aim = representation.offset + representation.peak * representation.scale
        values = values * (aim / torch.where(own > 0, own, aim))[:, None, None]
    if not values.is_complex():
        representation = replace(representation, complex=False)
    return representation.encode(values).half()


def _values(file: Path, dataset: str) -> Tensor:
    try:
        with h5py.File(file) as opened:
            if dataset not in opened:
                raise ValueError(
                    f"{file}: expected a dataset {dataset!r}, found {', '.join(opened) or 'none'}"
                )
            stored = _own_dataset(file, opened, dataset)
            kind = np.complex64 if stored.dtype.kind == "c" else np.float32
            values = np.asarray(stored, dtype=kind)
    except (OSError, RuntimeError, KeyError, TypeError, MemoryError) as error:
        raise ValueError(f"{file}: expected an HDF5 file of images: {error}") from error
    if not np.isfinite(values).all():
        raise ValueError(f"{file}: {dataset}: expected finite values, found NaN or infinity")
    return torch.from_numpy(values)


def _own_dataset(file: Path, opened: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of images that lies in the file itself, and is as large as it says."""
    found: h5py.Group | h5py.Dataset = opened
    for part in filter(None, name.split("/")):
        if isinstance(found.get(part, getlink=True), h5py.ExternalLink):
            raise ValueError(f"{file}: {name}: expected images in this file, found a link to another")
        found = found[part]
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "iufc":
        raise ValueError(f"{file}: {name}: expected a dataset of numbers, found {found}")
    if found.is_virtual or found.external:
        raise ValueError(f"{file}: {name}: expected images in this file, found data stored in another")
    if found.ndim != 3 or not found.size:
        raise ValueError(f"{file}: {name}: expected shape (images, height, width), found {found.shape}")
    if found.nbytes > max(_SMALL, _LARGEST_RATIO * found.id.get_storage_size()):
        raise ValueError(f"{file}: {name}: expected images, found shape {found.shape} and next to no data")
    return found
