"""Procedural, anatomy-like magnetic resonance images: reproducible, of any size, complex."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.canvas import Canvas, Covering
from ctflow.phantoms import random_anatomy
from ctflow.smooth_fields import places, with_smooth_phase

MRKind = Literal["brain", "head", "chest", "abdomen"]
MR_KINDS: tuple[MRKind, ...] = ("brain", "head", "chest", "abdomen")


@dataclass(frozen=True)
class Contrast:
    """Signal of each tissue, in arbitrary units with the brightest large structures near 1."""

    fat: float
    muscle: float
    bone: float
    marrow: float
    fluid: float
    grey: float
    white: float
    lesion: float
    blood: float

    def varied(self, generator: np.random.Generator, spread: float) -> Contrast:
        """Every tissue a little brighter or darker."""
        values = {name: value * np.exp(spread * generator.normal()) for name, value in vars(self).items()}
        return replace(self, **values)


CONTRASTS: dict[str, Contrast] = {
    "T1": Contrast(0.95, 0.42, 0.05, 0.7, 0.16, 0.5, 0.72, 0.35, 0.3),
    "T2": Contrast(0.6, 0.22, 0.04, 0.45, 1.0, 0.55, 0.38, 0.85, 0.1),
    "FLAIR": Contrast(0.6, 0.35, 0.05, 0.45, 0.1, 0.68, 0.52, 1.0, 0.15),
    "PD": Contrast(0.75, 0.55, 0.08, 0.6, 0.9, 0.85, 0.68, 0.95, 0.3),
}
"""Spin echo at 1.5 to 3 T, roughly as in the atlases."""


def random_mr_anatomy(
    seed: int,
    shape: tuple[int, int] = (256, 256),
    *,
    pixel_size: float | None = None,
    kind: MRKind | None = None,
    contrast: str | None = None,
) -> Tensor:
    """Draw a magnetic resonance image of an imagined body.

    Parameters
    ----------
    seed
        The same seed gives the same body and phase, whatever the shape. Seeds from `phantoms.HELD_OUT` on are
        for evaluation.
    shape
        Height and width.
    pixel_size
        In mm; unless given, the field of view is 1.15 times the body's width.
    kind
        "brain" (a section above the eyes, with convolutions), or "head", "chest" and "abdomen", which are the
        bodies of `random_anatomy` with each attenuation seen as the signal of a tissue. Drawn from the seed
        unless given.
    contrast
        "T1", "T2", "FLAIR" or "PD"; drawn from the seed unless given. Tissues vary about it.

    Returns
    -------
    Tensor
        Complex64, magnitude 0 to about 1.3, with smooth phase and shading.

    Raises
    ------
    ValueError
        For an unknown kind or contrast.
    """
    if kind is not None and kind not in MR_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(MR_KINDS)}, found {kind!r}")
    if contrast is not None and contrast not in CONTRASTS:
        raise ValueError(f"contrast: expected one of {', '.join(CONTRASTS)}, found {contrast!r}")
    generator = np.random.Generator(np.random.PCG64((seed, 1)))
    drawn_kind = MR_KINDS[int(generator.choice(4, p=(0.7, 0.1, 0.1, 0.1)))]
    drawn_contrast = list(CONTRASTS)[int(generator.integers(len(CONTRASTS)))]
    signal = CONTRASTS[contrast or drawn_contrast].varied(generator, 0.12)
    fields = torch.Generator().manual_seed(int(generator.integers(2**62)))
    if (kind or drawn_kind) == "brain":
        canvas = Canvas(generator, shape, pixel_size)
        _brain(canvas, signal)
        magnitude = canvas.image
    else:
        # Twice as fine, so that an edge from air to muscle is not a line of fat.
        finer = (2 * shape[0], 2 * shape[1])
        half = None if pixel_size is None else pixel_size / 2
        body = random_anatomy(seed, finer, pixel_size=half, kind=kind or drawn_kind)  # type: ignore[arg-type]
        magnitude = _as_signal(body.numpy(), signal).reshape(shape[0], 2, shape[1], 2).mean((1, 3))
    height, width = shape
    return with_smooth_phase(
        torch.from_numpy(np.clip(magnitude, 0, None).astype(np.float32)),
        places(height),
        places(width),
        fields,
    )


def _as_signal(attenuation: NDArray[np.float32], signal: Contrast) -> NDArray[np.float32]:
    """See each attenuation as the tissue that has it."""
    tissues = {
        0.0: 0.0,
        0.006: 0.08,  # lung
        0.0180: signal.fat,
        0.0190: signal.fat,
        0.0201: signal.fluid,
        0.0205: signal.white,
        0.0208: signal.grey,
        0.0213: signal.muscle,
        0.0235: signal.blood,
        0.0260: signal.marrow,
        0.0320: signal.bone,
        0.0500: signal.bone,
    }
    found = np.interp(attenuation, list(tissues), list(tissues.values()))
    return np.asarray(found, np.float32)


def _brain(canvas: Canvas, signal: Contrast) -> None:
    """A section of a head above the eyes: scalp, skull, folded cortex, ventricles, nuclei, lesions."""
    tall, wide = canvas.uniform(0.95, 1.12), canvas.uniform(0.82, 0.88)
    scalp, skull = canvas.uniform(0.04, 0.09), canvas.uniform(0.05, 0.09)
    head = canvas.cover(0, 0, wide, tall, 0, 0.02)
    canvas.paint(head, signal.muscle)
    canvas.paint(canvas.cover(0, 0, wide - 0.015, tall - 0.015, 0, 0.02), signal.fat)
    for side in (-1, 1):
        if canvas.uniform(0, 1) < 0.5:
            x, length = side * (wide - 0.6 * scalp), canvas.uniform(0.15, 0.3)
            canvas.paint(canvas.cover(x, 0.15, 0.5 * scalp, length, 0, 0.1) * head, signal.muscle)
    outer = (wide - scalp, tall - scalp)
    inner = (outer[0] - skull, outer[1] - skull)
    canvas.paint(canvas.cover(0, 0, *outer, 0, 0.01), signal.bone)
    middle = (outer[0] - 0.5 * skull, outer[1] - 0.5 * skull)
    marrow = canvas.cover(0, 0, middle[0] + 0.22 * skull, middle[1] + 0.22 * skull)
    marrow -= canvas.cover(0, 0, middle[0] - 0.22 * skull, middle[1] - 0.22 * skull)
    canvas.image += marrow * canvas.uniform(0.3, 1) * (signal.marrow - canvas.image)
    inside = canvas.cover(0, 0, *inner)
    canvas.paint(inside, signal.fluid)
    white = _cortex(canvas, (inner[0] - canvas.uniform(0.01, 0.05), inner[1] - 0.03), signal)
    canvas.image += white * canvas.texture(0.1, 0.02)
    _nuclei(canvas, signal)
    _ventricles(canvas, signal)
    _lesions(canvas, white, signal)
    canvas.image *= 1 + inside * canvas.texture(0.03, canvas.uniform(0, 0.03))


def _cortex(canvas: Canvas, half_axes: tuple[float, float], signal: Contrast) -> Covering:
    """Paint grey and white matter with sulci; the cover of the white matter.

    Sulci follow the zeros of a random smooth field, dense near the surface; grey matter is what lies within
    a cortex's thickness of fluid.
    """
    a, b = half_axes
    depth = (1 - np.hypot(canvas.x / a, canvas.y / b)) * min(a, b)
    field = canvas.texture(canvas.uniform(0.1, 0.14), 1.0) + 0.4 * canvas.texture(0.06, 1.0)
    slope = np.hypot(*np.gradient(field)) / canvas.spacing
    # How far from the next fold, as far as the slope there tells.
    fold = np.abs(field) / np.maximum(slope, 3.0)
    reach = canvas.uniform(0.1, 0.35)
    fold += 0.6 * np.clip(depth - reach, 0, None)
    fissure = np.abs(canvas.x + 0.01 * canvas.texture(0.2, 1.0))
    fissure += 0.8 * np.clip(0.35 - np.abs(canvas.y), 0, None)
    distance = np.minimum(np.minimum(depth, fold), fissure)
    # Depth bounds the rest: nothing of the brain lies outside its surface.
    gap, thickness = canvas.uniform(0.003, 0.014), canvas.uniform(0.022, 0.034)

    def deeper(level: float) -> Covering:
        return np.asarray(np.clip(0.5 + (distance - level) / canvas.spacing, 0, 1), np.float32)

    grey, white = deeper(gap), deeper(gap + thickness)
    canvas.paint(grey, signal.grey)
    canvas.paint(white, signal.white)
    return white


def _nuclei(canvas: Canvas, signal: Contrast) -> None:
    deep = signal.grey + canvas.uniform(0, 0.4) * (signal.white - signal.grey)
    for side in (-1, 1):
        canvas.paint(canvas.cover(side * 0.12, -0.1, 0.09, 0.14, side * 0.3, 0.06), deep)
        canvas.paint(canvas.cover(side * 0.27, 0.04, 0.06, 0.18, -side * 0.25, 0.06), deep)
        canvas.paint(canvas.cover(side * 0.15, 0.22, 0.06, 0.1, side * 0.3, 0.06), signal.grey)


def _ventricles(canvas: Canvas, signal: Contrast) -> None:
    size = canvas.uniform(0.5, 1.6)
    for side in (-1, 1):
        lean = side * canvas.uniform(0.15, 0.4)
        canvas.paint(
            canvas.cover(side * 0.09 * size**0.5, 0.2, 0.045 * size, canvas.uniform(0.12, 0.2), lean, 0.1),
            signal.fluid,
        )
        canvas.paint(
            canvas.cover(
                side * 0.2,
                -0.3,
                0.045 * size,
                canvas.uniform(0.1, 0.2),
                -side * canvas.uniform(0.3, 0.6),
                0.1,
            ),
            signal.fluid,
        )
    canvas.paint(canvas.cover(0, -0.02, 0.012 * size, 0.1), signal.fluid)


def _lesions(canvas: Canvas, white: Covering, signal: Contrast) -> None:
    if canvas.uniform(0, 1) < 0.5:
        for _ in range(int(canvas.random.integers(1, 9))):
            x, y = canvas.random.normal(0, 0.3, 2)
            size = canvas.uniform(0.01, 0.04)
            canvas.paint(
                canvas.cover(x, y, size, size * canvas.uniform(0.5, 1), x, 0.2) * white, signal.lesion
            )
    if canvas.uniform(0, 1) < 0.2:
        x, y = canvas.uniform(-0.4, 0.4), canvas.uniform(-0.5, 0.5)
        size = canvas.uniform(0.06, 0.16)
        around = canvas.cover(x, y, 1.5 * size, 1.3 * size, 0, 0.25) * white
        canvas.paint(around, 0.5 * (signal.lesion + signal.white))
        canvas.paint(canvas.cover(x, y, size, size, 0, 0.2), canvas.uniform(0.2, 1.1))
        canvas.paint(canvas.cover(x, y, 0.5 * size, 0.5 * size, 0, 0.3), canvas.uniform(0.05, 1.0))
    if canvas.uniform(0, 1) < 0.4:
        for _ in range(int(canvas.random.integers(3, 12))):
            x, y = canvas.random.normal(0, 0.4, 2)
            size = canvas.uniform(0.006, 0.014)
            canvas.paint(canvas.cover(x, y, size, size) * white, signal.blood)
