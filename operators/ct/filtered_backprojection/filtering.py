"""The ramp filter and its windows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FILTERS = ("ram-lak", "shepp-logan", "cosine", "hamming", "hann")


def filtered(views: Tensor, filter: str, cutoff: float, fan_step: Tensor | None = None) -> Tensor:
    """Convolve each view with the windowed ramp of bins one unit apart.

    Parameters
    ----------
    views : Tensor
        Shape (*batch, views, *rows, bins). Zeros behind the bins keep the ends from wrapping around.
    filter : str
        One of FILTERS.
    cutoff : float
        Where the window ends, as a fraction of the highest frequency.
    fan_step : Tensor, optional
        Angle between the rays of neighbouring bins, in radians, for rays at equal angles; broadcasts against
        the views, with one entry for all bins. The ramp is then multiplied by (a / sin(a))^2 at the angle a
        (Kak and Slaney, Principles of Computerized Tomographic Imaging, 1988, section 3.4.1).
    """
    bins = views.shape[-1]
    size = 2 ** math.ceil(math.log2(2 * bins))
    distance = torch.arange(size, dtype=torch.float64)
    distance = torch.minimum(distance, size - distance)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp(min=1)) ** 2, 0.0)
    kernel[0] = 0.25
    if fan_step is not None:
        # torch.sinc(z) is sin(pi z) / (pi z); no two bins are further apart than bins - 1.
        kernel = kernel / torch.sinc(distance.clamp(max=bins - 1) * fan_step / math.pi) ** 2
    response = torch.fft.rfft(kernel).real * _window(size, filter, cutoff)
    spectrum = torch.fft.rfft(views, size) * response.to(views)
    return torch.fft.irfft(spectrum, size)[..., :bins]


def _window(size: int, filter: str, cutoff: float) -> Tensor:
    """Return the window at the frequencies of ``rfft``, shape (size // 2 + 1,); 1 at frequency 0."""
    frequency = torch.linspace(0, 1, size // 2 + 1, dtype=torch.float64) / cutoff
    windows = {
        "ram-lak": torch.ones_like(frequency),
        "shepp-logan": torch.sinc(frequency / 2),
        "cosine": torch.cos(math.pi / 2 * frequency),
        "hamming": 0.54 + 0.46 * torch.cos(math.pi * frequency),
        "hann": 0.5 + 0.5 * torch.cos(math.pi * frequency),
    }
    return torch.where(frequency <= 1 + 1e-9, windows[filter], 0.0)
