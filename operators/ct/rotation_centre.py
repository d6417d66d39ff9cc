"""Where the rotation axis falls on the detector, found from the sinogram itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from operators.ct.geometry import Float64Array
from operators.ct.line_search import smallest_score, vertex

MOST_VIEWS = 400
FEW_PAIRS = 10
METHODS = ("auto", "opposite", "wedge")
# Cycles a bin. Above it there is more noise than object (found on noisy ellipses, 128 to 256 bins).
HIGHEST_FREQUENCY = 0.1


def find_rotation_centre(sinogram: Tensor, angles: Float64Array | Tensor, method: str = "auto") -> float:
    """Position of the rotation axis in bins: 0 is the centre of the first bin, bins - 1 that of the last.

    Two stages. First, views half a turn apart are mirror images about the axis: their cross-correlation
    gives it to about a bin. Without such pairs the centre of mass does, which moves on a sinusoid about the
    axis (Helgason and Ludwig's first condition). Then the neighbourhood is searched to a twentieth of a bin:
    by "opposite" for the least squared difference within opposite pairs; by "wedge" for the least energy
    outside the double wedge that the Fourier transform of a full-turn sinogram fills, the second half turn
    being the mirrored first. `find_sharpest_centre` judges by the image instead.

    Parameters
    ----------
    sinogram : Tensor
        Line integrals, shape (views, bins), without NaN.
    angles : array or Tensor
        Radians, shape (views,), in any order.
    method : {"auto", "opposite", "wedge"}
        "auto": "opposite" where there are many opposite pairs, else "wedge" where the views cover half a
        turn, else the first stage alone.

    Raises
    ------
    ValueError
        If the shapes do not match, there are fewer than three views or eight bins, an entry is not finite,
        the sinogram is empty, or the views do not allow the method.

    References
    ----------
    Vo, Drakopoulos, Atwood and Reinhard, Reliable method for calculating the center of rotation in
    parallel-beam tomography, Opt. Express 22, 19078 (2014). Azevedo, Schneberk, Fitch and Martz, Calculation
    of the rotational centers in computed tomography sinograms, IEEE Trans. Nucl. Sci. 37 (1990).
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, found {method!r}")
    angles = np.asarray(angles, dtype=np.float64)
    if sinogram.ndim != 2 or angles.shape != sinogram.shape[:1]:
        raise ValueError(
            f"sinogram: expected shape ({angles.size} views, bins), found {tuple(sinogram.shape)}"
        )
    if sinogram.shape[0] < 3 or sinogram.shape[1] < 8:
        raise ValueError(f"sinogram: expected at least 3 views and 8 bins, found {tuple(sinogram.shape)}")
    if not bool(torch.isfinite(sinogram).all()):
        raise ValueError("sinogram: expected finite line integrals, found NaN or infinity")
    if not bool((sinogram != sinogram[:, :1]).any()):
        raise ValueError("sinogram: expected an object, found constant views")

    order = np.argsort(angles, kind="stable")
    angles = angles[order]
    views = sinogram.detach().double()[torch.from_numpy(order).to(sinogram.device)]
    bins = views.shape[1]
    first, second = _opposite_pairs(angles)
    if len(first):
        centre = _mirror_correlation(views[first], views[second])
    else:
        centre = _centre_of_mass(views, angles)

    reach = max(5.0, bins / 40)
    if method == "opposite" and not first:
        raise ValueError("method opposite: expected views half a turn apart, found none")
    if method == "opposite" or (method == "auto" and len(first) >= FEW_PAIRS):
        one, other = views[first], views[second]
        return smallest_score(lambda c: _mirror_difference(one, other, c), centre, reach, bins)
    half = _half_turn(angles)
    if half is None:
        if method == "wedge":
            raise ValueError("method wedge: expected views spread over half a turn, found a gap")
        return centre
    return smallest_score(_wedge_energy(views[half]), centre, reach, bins)


def _opposite_pairs(angles: Float64Array) -> tuple[list[int], list[int]]:
    """Indices of views that see the object from opposite sides, to one step between views."""
    step = float(np.median(np.diff(angles)))
    first, second = [], []
    opposite = angles + math.pi
    nearest = np.searchsorted(angles, opposite).clip(1, angles.size - 1)
    for view, right in enumerate(nearest):
        left = right - 1
        candidate = int(min((left, right), key=lambda v: abs(angles[v] - opposite[view])))
        if abs(angles[candidate] - opposite[view]) <= 1.01 * step:
            first.append(view)
            second.append(candidate)
    exact = [n for n in range(len(first)) if abs(angles[second[n]] - opposite[first[n]]) < 0.1 * step]
    if exact:
        first, second = [first[n] for n in exact], [second[n] for n in exact]
    thin = max(1, len(first) // MOST_VIEWS)
    return first[::thin], second[::thin]


def _mirror_correlation(one: Tensor, other: Tensor) -> float:
    """Axis by the peak of the cross-correlation of views with their mirrored opposites."""
    bins = one.shape[1]
    one, other = (v - v.mean(1, keepdim=True) for v in (one, other))
    size = 2 * bins
    # one(x) = other(2 c - x): the convolution of the two peaks at 2 c.
    spectrum = torch.fft.rfft(one, size) * torch.fft.rfft(other, size)
    score = torch.fft.irfft(spectrum, size).sum(0)[: 2 * bins - 1]
    peak = int(score.argmax())
    return (peak + vertex(score, peak)) / 2


def _centre_of_mass(views: Tensor, angles: Float64Array) -> float:
    """Axis by the sinusoid c + a cos + b sin on which the centre of mass moves; least squares."""
    views = views - views.amin(1, keepdim=True)
    position = torch.arange(views.shape[1], dtype=views.dtype, device=views.device)
    mass = (views @ position / views.sum(1).clamp_min(torch.finfo(views.dtype).tiny)).cpu().numpy()
    design = np.stack([np.ones_like(angles), np.cos(angles), np.sin(angles)], axis=1)
    return float(np.linalg.lstsq(design, mass, rcond=None)[0][0])


def _half_turn(angles: Float64Array) -> list[int] | None:
    """Indices of evenly spread views that cover just half a turn, or None where there is a gap."""
    step = float(np.median(np.diff(angles)))
    inside = np.flatnonzero(angles - angles[0] < math.pi - step / 2)
    gaps = np.diff(angles[inside], append=angles[0] + math.pi)
    if inside.size < 8 or gaps.max() > 2.5 * step:
        return None
    thin = max(1, inside.size // MOST_VIEWS)
    return [int(view) for view in inside[: inside.size // thin * thin : thin]]


def _mirrored(views: Tensor, centre: float) -> tuple[Tensor, Tensor]:
    """Views mirrored about a fractional bin, and which bins of the result were on the detector.

    Shifted by a phase: an interpolation would smooth the noise more at half bins than at whole ones, and
    pull the search towards them.
    """
    bins = views.shape[1]
    pad = bins // 2
    size = bins + 2 * pad
    padded = torch.nn.functional.pad(views.flip(1)[None], (pad, pad), mode="replicate")[0]
    shift = 2 * centre - (bins - 1)
    frequency = torch.fft.rfftfreq(size, dtype=views.dtype, device=views.device)
    phase = torch.exp(-2j * math.pi * frequency * shift)
    mirrored = torch.fft.irfft(torch.fft.rfft(padded) * phase, size)[:, pad : pad + bins]
    origin = 2 * centre - torch.arange(bins, device=views.device)
    return mirrored, (origin >= 0) & (origin <= bins - 1)


def _mirror_difference(one: Tensor, other: Tensor, centre: float) -> float:
    mirrored, known = _mirrored(other, centre)
    return float((one - mirrored)[:, known].square().mean())


def _wedge_energy(half: Tensor) -> Callable[[float], float]:
    """The score of a centre: mean magnitude outside the double wedge of the full-turn sinogram."""
    views, bins = half.shape
    harmonic = torch.fft.fftfreq(2 * views, 1 / (2 * views), dtype=half.dtype).abs()[:, None]
    frequency = torch.fft.rfftfreq(bins, dtype=half.dtype)[None]
    # Of an object of radius r bins, harmonic n reaches frequencies above |n| / (2 pi r) only.
    radius = bins / 4
    outside = (harmonic > 2 * math.pi * radius * frequency) & (harmonic > 2)
    outside = outside & (frequency > 1.5 / bins) & (frequency < HIGHEST_FREQUENCY)
    outside = outside.to(half.device)

    def score(centre: float) -> float:
        mirrored, known = _mirrored(half, centre)
        full = torch.cat((half, torch.where(known, mirrored, half)))
        return float(torch.fft.rfft2(full).abs()[outside].mean())

    return score
