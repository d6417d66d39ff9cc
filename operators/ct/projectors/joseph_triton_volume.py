"""Joseph's method in space on a GPU: interpolated line integrals of a volume and their exact transpose."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import ConeBeam, Float64Array, HelicalConeBeam, ImageGrid, ParallelBeam3D
from operators.ct.projectors.arctangent import arctangent

VolumeGeometry = ParallelBeam3D | ConeBeam | HelicalConeBeam
_MOST = (1 << 31) - 1  # what 32 bits can count
_RAYS = (4, 32)  # rows and bins of a block of rays
_VOXELS = (8, 8, 8)  # slices, rows and columns of a block of voxels


def _kernels() -> Any:
    """Import the kernels, or say in one line what is missing."""
    try:
        import_module("triton")
    except ImportError as error:
        raise ModuleNotFoundError(
            'projector "triton" runs on a GPU through Triton, which is not installed: pip install triton '
            "(Linux; PyTorch's builds for GPUs bring it along)"
        ) from error
    return import_module("operators.ct.projectors.triton_volume_kernels")


@dataclass(frozen=True)
class _Views:
    """What the kernels have to know of each view, in voxels of a grid: see `triton_volume_kernels`.

    numbers (views, 34); bends (2, views, bins), or (2, 0, 0) for a flat detector; polynomial; how many bins
    or rows single precision and the polynomial may be wrong; and whether the rays of every column differ in z
    only, and none marches along z.
    """

    numbers: Float64Array
    bends: Float64Array
    polynomial: tuple[float, float, float, float]
    margin: float
    upright: bool


def _views(geometry: VolumeGeometry, grid: ImageGrid) -> _Views:
    """Return the views of a scan in voxels of the grid, in float64."""
    vectors = geometry.vectors()
    ray, middle, along, across = (vectors[:, start : start + 3] for start in (0, 3, 6, 9))
    axes = grid.coordinates()
    scale = np.array([grid.pixel_width, -grid.pixel_height, grid.pixel_size[0]])  # type: ignore[index]
    center = np.array([axis[axis.size // 2] for axis in axes])
    parallel, curved = isinstance(geometry, ParallelBeam3D), geometry.detector.curved
    numbers = np.zeros((geometry.views, 34))
    ahead = ray if parallel else middle - ray
    bends, polynomial, error = np.zeros((2, 0, 0)), (1.0, 0.0, 0.0, 0.0), 0.0
    if curved:
        unit = across / np.linalg.norm(across, axis=1, keepdims=True)
        height = (ahead * unit).sum(axis=1, keepdims=True) * unit
        ahead = ahead - height
        radius, width = (np.linalg.norm(step, axis=1, keepdims=True) for step in (ahead, along))
        bins = geometry.detector.bins
        turns = (np.arange(bins) - (bins - 1) / 2) * width / radius
        bends = np.stack((np.tan(turns), 1 / np.cos(turns)))
        along = along * radius / width
        numbers[:, 12:15] = height / scale
        numbers[:, 32:33] = radius / width
        numbers[:, 33] = (height * unit).sum(axis=1) / np.linalg.norm(across, axis=1)
        polynomial, error = arctangent(float(np.tan((bins / 2 * width / radius).max())))
        error *= float((radius / width).max())
    # The point of the middle ray that is next to the middle of the volume; other rays have theirs beside it.
    origin = middle if parallel else ray
    nearest = ((center - origin) * ahead).sum(axis=1, keepdims=True) / (ahead**2).sum(axis=1, keepdims=True)
    numbers[:, 0:3] = (origin + nearest * ahead - center) / scale
    numbers[:, 3:6], numbers[:, 6:9], numbers[:, 9:12] = ahead / scale, along / scale, across / scale
    numbers[:, 15], numbers[:, 16] = (0, 1) if parallel else (1, nearest[:, 0])
    # A voxel is at middle + t ray + k along + j across, or at source + t (ahead + k along + j across).
    back = np.linalg.inv(np.stack((ahead, along, across), axis=2))  # (views, 3, 3): t, k, j, or t, t k, t j
    constant = np.einsum("vij,vj->vi", back, center - origin)
    for first, part in ((17, 1), (21, 2), (25, 0)):
        numbers[:, first : first + 3] = back[:, part] * scale
        numbers[:, first + 3] = constant[:, part]
    if parallel:
        numbers[:, 25:29] = 0, 0, 0, 1
        numbers[:, 29:32] = ahead / scale
    else:
        numbers[:, 29:32] = (center - origin) / scale
    margin = 2e-3 + 4e-6 * (max(geometry.detector.shape) + max(grid.shape)) + error
    return _Views(numbers, bends, polynomial, margin, _upright(numbers, bends, geometry.detector.shape))


def _upright(numbers: Float64Array, bends: Float64Array, shape: tuple[int, ...]) -> bool:
    """Return whether columns of the detector lie along z, and rays go rather along x or y than along z."""
    if np.any(numbers[:, [9, 10, 12, 13]]):
        return False
    rows, bins = shape
    turn = numbers[:, 15:16]
    tangent = bends[0] if bends.size else np.arange(bins) - (bins - 1) / 2
    secant = bends[1] if bends.size else 1.0
    along_x, along_y = (numbers[:, i : i + 1] + turn * numbers[:, i + 3 : i + 4] * tangent for i in (3, 4))
    flat = np.maximum(np.abs(along_x), np.abs(along_y))
    steepest = np.zeros_like(flat)
    for across in (-(rows - 1) / 2, (rows - 1) / 2):
        height = numbers[:, 14:15] + numbers[:, 11:12] * across
        rise = numbers[:, 5:6] + turn * (numbers[:, 8:9] * tangent + height * secant)
        steepest = np.maximum(steepest, np.abs(rise))
    return bool((steepest < 0.99 * flat).all())


class JosephTritonVolumeProjector:
    """Line integrals by bilinear interpolation between the four voxels around a ray, computed on a GPU.

    The rays and weights are those of projector "joseph", in single precision about the middle of the volume.
    The adjoint is the exact transpose: every voxel gathers from its rays with the weights of the forward
    direction, bit for bit, without atomics, so that results repeat to the last bit. float32, CUDA tensors,
    one volume at a time; forward needs a second copy of a volume beside input and output.

    Raises
    ------
    ValueError
        For tensors that are not float32 or, unless Triton's interpreter runs, not on a GPU; for volumes of
        2**31 voxels and more.
    ModuleNotFoundError
        Without the package triton.
    """

    dtypes = (torch.float32,)

    def __init__(self, geometry: VolumeGeometry, grid: ImageGrid) -> None:
        self._kernels = _kernels()
        if np.prod(grid.shape) > _MOST:
            raise ValueError(f'projector "triton": expected fewer than 2**31 voxels, found {grid.describe()}')
        self.geometry, self.grid = geometry, grid
        self._views = _views(geometry, grid)
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle by the settings: tables belong to a device."""
        return JosephTritonVolumeProjector, (self.geometry, self.grid)

    def forward(self, images: Tensor) -> Tensor:
        """Volumes in 1/mm, (volumes, *grid shape), to line integrals (volumes, views, rows, bins)."""
        tables = self._on_device(images)
        sinograms = images.new_empty(images.shape[0], *self.geometry.sinogram_shape)
        depth, height, width = self.grid.shape
        _, rows, bins = self.geometry.sinogram_shape
        # Of a march along x, neighbouring rays read neighbours in y: those should lie side by side in memory.
        marches = (
            (width, height, depth, height, 1, height * width),
            (height, width, depth, width, 1, height * width),
            (depth, width, height, height * width, 1, width),
        )
        blocks = -(-rows // _RAYS[0]) * -(-bins // _RAYS[1])
        for image, sinogram in zip(images.detach(), sinograms, strict=True):
            plain, turned = image.contiguous(), image.mT.contiguous()
            for axis, volume in enumerate((turned, plain, plain)):
                for part, numbers, bends in self._parts(sinogram, *tables):
                    with torch.cuda.device_of(images):
                        self._kernels.forward_rays[(len(part) * blocks,)](
                            volume, numbers, bends, part, len(part), rows, bins,
                            *marches[axis], *self._sides(),
                            AXIS=axis, CURVED=self.geometry.detector.curved, TALL=_RAYS[0], WIDE=_RAYS[1],
                            enable_fp_fusion=False,
                        )  # fmt: skip
        return sinograms

    def adjoint(self, sinograms: Tensor) -> Tensor:
        """Transpose of forward: (volumes, views, rows, bins) to (volumes, depth, height, width)."""
        tables = self._on_device(sinograms)
        images = sinograms.new_zeros(sinograms.shape[0], *self.grid.shape)
        _, rows, bins = self.geometry.sinogram_shape
        deep, tall, wide = _VOXELS
        tiles = int(np.prod([-(-size // side) for size, side in zip(self.grid.shape, _VOXELS, strict=True)]))
        for image, sinogram in zip(images, sinograms.detach(), strict=True):
            for part, numbers, bends in self._parts(sinogram.contiguous(), *tables):
                with torch.cuda.device_of(images):
                    self._kernels.adjoint_voxels[(tiles,)](
                        part, numbers, bends, image, len(part), rows, bins, *self.grid.shape, *self._sides(),
                        self._views.margin, *self._views.polynomial,
                        CURVED=self.geometry.detector.curved, UPRIGHT=self._views.upright,
                        DEEP=deep, TALL=tall, WIDE=wide, enable_fp_fusion=False,
                    )  # fmt: skip
        return images

    def working_memory(self, images: int, device: torch.device, itemsize: int) -> tuple[int, int, int]:
        """Return bytes beside input and output of forward and adjoint, and bytes kept between calls."""
        kept = 4 * (self._views.numbers.size + self._views.bends.size)
        return int(np.prod(self.grid.shape)) * itemsize, 0, kept

    def _sides(self) -> tuple[float, float, float]:
        """Return height, width and depth of a voxel in mm."""
        return self.grid.pixel_height, self.grid.pixel_width, self.grid.pixel_size[0]  # type: ignore[index]

    def _parts(self, sinogram: Tensor, numbers: Tensor, bends: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Cut the views into parts whose bins 32 bits can count."""
        views, rows, bins = sinogram.shape
        most = max(1, _MOST // (rows * bins))
        return [
            (sinogram[i : i + most], numbers[i : i + most], bends[:, i : i + most].contiguous())
            for i in range(0, views, most)
        ]

    def _on_device(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tables on the device of a tensor that may be worked on."""
        if batch.dtype != torch.float32:
            raise ValueError(f'projector "triton": expected dtype torch.float32, found {batch.dtype}')
        if not (batch.is_cuda or (self._kernels.INTERPRETED and batch.device.type == "cpu")):
            raise ValueError(f'projector "triton": expected a CUDA tensor, found one on {batch.device}')
        if batch.device not in self._tables:
            numbers, bends = self._views.numbers, self._views.bends
            self._tables[batch.device] = (
                torch.from_numpy(numbers.astype(np.float32)).to(batch.device),
                torch.from_numpy(bends.astype(np.float32)).to(batch.device),
            )
        return self._tables[batch.device]
