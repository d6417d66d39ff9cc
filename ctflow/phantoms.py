"""Procedural, anatomy-like CT slices: reproducible, of any size, in linear attenuation (1/mm).

Every shape is a smooth closed contour painted over what lies below it, with edges one pixel wide, as a
scanner's partial volume makes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctflow.canvas import WATER, Canvas

Kind = Literal["head", "chest", "abdomen", "object"]
KINDS: tuple[Kind, ...] = ("head", "chest", "abdomen", "object")

HELD_OUT = 10**9
"""Seeds from here on are kept for evaluation: no bundled prior has seen them."""


def random_anatomy(
    seed: int,
    shape: tuple[int, int] = (256, 256),
    *,
    pixel_size: float | None = None,
    kind: Kind | None = None,
) -> Tensor:
    """Draw a slice of an imagined body.

    Parameters
    ----------
    seed
        The same seed gives the same body, whatever the shape. Seeds from `HELD_OUT` on are for evaluation.
    shape
        Height and width.
    pixel_size
        In mm; unless given, the field of view is 1.15 times the body's width.
    kind
        "head", "chest", "abdomen", or "object": a hard thing with cavities on air, such as a tooth or a
        stone. Drawn from the seed unless given.

    Returns
    -------
    Tensor
        Linear attenuation in 1/mm, float32: air 0, water 0.02, cortical bone 0.035 to 0.05.

    Raises
    ------
    ValueError
        For an unknown kind.
    """
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, found {kind!r}")
    generator = np.random.Generator(np.random.PCG64(seed))
    drawn = KINDS[int(generator.choice(4, p=(0.3, 0.3, 0.25, 0.15)))]
    canvas = Canvas(generator, shape, pixel_size)
    _DRAW[kind or drawn](canvas)
    return torch.from_numpy(np.clip(canvas.image, 0, None).astype(np.float32))


def _vessels(
    canvas: Canvas, count: int, area: tuple[float, float, float, float], value: float, size: float
) -> None:
    x, y, a, b = area
    for _ in range(count):
        angle, distance = canvas.uniform(0, 6.28), canvas.uniform(0, 0.85) ** 0.6
        radius = size * canvas.uniform(0.2, 1.0) ** 2
        stretch = canvas.uniform(1, 4)
        cover = canvas.cover(
            x + a * distance * np.cos(angle),
            y + b * distance * np.sin(angle),
            radius * stretch,
            radius,
            angle,
        )
        canvas.paint(cover, value)


def _bone(
    canvas: Canvas,
    x: float,
    y: float,
    a: float,
    b: float,
    angle: float = 0.0,
    shell: float = 0.03,
    **shape: float,
) -> None:
    """Cortical bone around a spongy core."""
    canvas.paint(canvas.cover(x, y, a, b, angle, **shape), canvas.uniform(0.034, 0.046))
    if min(a, b) > 1.6 * shell:
        canvas.paint(canvas.cover(x, y, a - shell, b - shell, angle, **shape), canvas.uniform(0.0235, 0.029))


def _body(canvas: Canvas, tall: float, wobble: float, fat: float) -> NDArray[np.float32]:
    """Skin, fat and a filling of muscle; the cover of what lies inside the fat."""
    state = canvas.random.bit_generator.state
    power = canvas.uniform(2.0, 2.6)
    covers = []
    for shrink in (0.0, 0.012, fat):
        canvas.random.bit_generator.state = state
        canvas.uniform(2.0, 2.6)
        covers.append(canvas.cover(0, 0, 1 - shrink, tall - shrink, 0, wobble, power))
    canvas.paint(covers[0], canvas.soft(40))
    canvas.paint(covers[1], canvas.soft(-100))
    canvas.paint(covers[2], canvas.soft(45))
    return covers[2]


def _spine(canvas: Canvas, y: float, size: float) -> None:
    _bone(canvas, 0, y, 1.1 * size, 0.85 * size, 0, 0.025, wobble=0.06)
    for side in (-1, 1):
        _bone(canvas, side * 1.1 * size, y - 1.1 * size, 0.75 * size, 0.22 * size, side * 0.5, 0.03)
    _bone(canvas, 0, y - 1.6 * size, 0.2 * size, 0.55 * size, canvas.random.normal(0, 0.05), 0.03)
    canvas.paint(canvas.cover(0, y - 1.05 * size, 0.5 * size, 0.36 * size), canvas.soft(20))


def _head(canvas: Canvas) -> None:
    tall = canvas.uniform(1.1, 1.3) * 0.85
    wide = 0.85
    thick = canvas.uniform(0.05, 0.09)
    canvas.paint(canvas.cover(0, 0, wide, tall, 0, 0.02), canvas.soft(30))
    canvas.paint(canvas.cover(0, 0, wide - 0.015, tall - 0.015, 0, 0.02), canvas.soft(-60))
    outer = (wide - canvas.uniform(0.04, 0.07), tall - canvas.uniform(0.04, 0.07))
    cortical = canvas.uniform(0.036, 0.048)
    canvas.paint(canvas.cover(0, 0, *outer), cortical)
    canvas.paint(
        canvas.cover(0, 0, outer[0] - 0.3 * thick, outer[1] - 0.3 * thick), canvas.uniform(0.026, 0.034)
    )
    canvas.paint(canvas.cover(0, 0, outer[0] - 0.7 * thick, outer[1] - 0.7 * thick), cortical)
    inner = (outer[0] - thick, outer[1] - thick)
    brain = canvas.cover(0, 0, *inner)
    canvas.paint(brain, canvas.soft(10))
    state = canvas.random.bit_generator.state
    canvas.paint(canvas.cover(0, 0, inner[0] - 0.03, inner[1] - 0.03, 0, 0.03), canvas.soft(38, 3))
    canvas.random.bit_generator.state = state
    canvas.paint(canvas.cover(0, 0, 0.72 * inner[0], 0.75 * inner[1], 0, 0.12), canvas.soft(27, 3))
    canvas.image += brain * canvas.texture(0.06, 0.006 * WATER)
    canvas.paint(canvas.cover(0, 0, 0.012, inner[1]) * brain, canvas.soft(20))
    for side in (-1, 1):
        canvas.paint(
            canvas.cover(side * 0.14, 0.12, 0.06, canvas.uniform(0.15, 0.28), side * 0.25, 0.1),
            canvas.soft(6),
        )
        canvas.paint(canvas.cover(side * 0.16, -0.1, 0.09, 0.13, side * 0.3, 0.1), canvas.soft(36, 3))
        canvas.paint(
            canvas.cover(side * 0.2, -0.28, 0.05, canvas.uniform(0.08, 0.2), -side * 0.5, 0.1), canvas.soft(6)
        )
    if canvas.uniform(0, 1) < 0.55:
        for side in (-1, 1):
            x = side * canvas.uniform(0.25, 0.4)
            y = 0.72 * tall
            _bone(canvas, x, y - 0.1, 0.2, 0.16, side * 0.3, 0.02, wobble=0.1)
            canvas.paint(
                canvas.cover(x, y - 0.1, 0.16, 0.12, side * 0.3, 0.2),
                0.0 if canvas.uniform(0, 1) < 0.7 else 0.02,
            )
            x = side * canvas.uniform(0.42, 0.52)
            _bone(canvas, x, -0.15, 0.2, 0.1, side * 0.6, 0.04, wobble=0.15)
            for _ in range(6):
                canvas.paint(
                    canvas.cover(
                        x + canvas.random.normal(0, 0.07), -0.15 + canvas.random.normal(0, 0.04), 0.02, 0.015
                    ),
                    0.001,
                )
    if canvas.uniform(0, 1) < 0.3:
        x, y = canvas.random.normal(0, 0.25, 2)
        canvas.paint(
            canvas.cover(x, y, canvas.uniform(0.04, 0.15), canvas.uniform(0.04, 0.12), 0, 0.2) * brain,
            canvas.soft(65),
        )


def _chest(canvas: Canvas) -> None:
    tall = canvas.uniform(0.62, 0.78)
    fat = canvas.uniform(0.03, 0.12)
    inside = _body(canvas, tall, 0.04, fat)
    canvas.image += inside * canvas.texture(0.08, 0.01 * WATER)
    lung = canvas.uniform(-880, -760)
    reach = 0.86 - fat
    for side in (-1, 1):
        x, y = side * canvas.uniform(0.42, 0.48), canvas.uniform(0.0, 0.06)
        a, b = canvas.uniform(0.3, 0.36), tall * canvas.uniform(0.66, 0.74)
        cover = canvas.cover(x, y, a, b, side * 0.12, 0.08, 2.3)
        canvas.paint(cover, canvas.soft(lung, 20))
        canvas.image += cover * canvas.texture(0.05, 0.03 * WATER)
        before = canvas.image.copy()
        _vessels(canvas, 45, (x, y, a, b), canvas.soft(20), 0.022)
        canvas.image = before + cover * (canvas.image - before)
        canvas.paint(
            canvas.cover(side * 0.72, -0.35 * tall, 0.15, 0.025, -side * 0.9), canvas.uniform(0.03, 0.042)
        )
    canvas.paint(canvas.cover(0, 0.0, 0.15, 0.6 * tall, 0, 0.1), canvas.soft(10, 15))
    canvas.paint(
        canvas.cover(0.1, 0.12, canvas.uniform(0.2, 0.3), canvas.uniform(0.18, 0.27), 0.6, 0.08),
        canvas.soft(42),
    )
    canvas.paint(canvas.cover(0.12, 0.1, 0.12, 0.09, 0.6, 0.1), canvas.soft(canvas.uniform(40, 180)))
    canvas.paint(canvas.cover(0.1, -0.28, 0.065, 0.065), canvas.soft(canvas.uniform(40, 220)))
    if canvas.uniform(0, 1) < 0.6:
        canvas.paint(canvas.cover(0, -0.02, 0.05, 0.05), 0.0)
    count = int(canvas.random.integers(9, 13))
    for side in (-1, 1):
        for k in range(count):
            turn = -1.35 + 2.75 * (k + canvas.uniform(-0.2, 0.2)) / count
            x, y = side * reach * np.cos(turn), (tall - 0.14 * (0.4 + fat)) * 0.93 * np.sin(turn)
            _bone(canvas, x, y, canvas.uniform(0.05, 0.11), 0.024, side * (turn + 1.57), 0.012)
    _spine(canvas, -0.55 * tall, 0.125)
    _bone(canvas, 0, 0.86 * tall, 0.12, 0.035, 0, 0.015)
    if canvas.uniform(0, 1) < 0.3:
        radius = canvas.uniform(0.02, 0.07)
        canvas.paint(
            canvas.cover(canvas.uniform(-0.6, 0.6), canvas.uniform(-0.2, 0.3), radius, radius, 0, 0.2),
            canvas.soft(35),
        )


def _abdomen(canvas: Canvas) -> None:
    tall = canvas.uniform(0.66, 0.8)
    fat = canvas.uniform(0.05, 0.2)
    inside = _body(canvas, tall, 0.04, fat)
    wall = canvas.cover(0, 0.02, 0.92 - fat, tall - fat - 0.06, 0, 0.03)
    canvas.paint(wall, canvas.soft(-95))
    contrast = canvas.uniform(0, 120)
    canvas.paint(
        canvas.cover(-0.4, 0.12, 0.42 - fat / 2, 0.36, 0.25, 0.12) * wall, canvas.soft(55 + 0.4 * contrast)
    )
    canvas.paint(
        canvas.cover(0.52 - fat / 2, 0.02, 0.14, 0.25, -0.2, 0.1) * wall, canvas.soft(50 + 0.5 * contrast)
    )
    canvas.paint(canvas.cover(0.25, 0.28, 0.22, 0.15, 0.3, 0.12) * wall, canvas.soft(15, 15))
    if canvas.uniform(0, 1) < 0.7:
        canvas.paint(canvas.cover(0.25, 0.36, 0.14, 0.06, 0.05, 0.1) * wall, 0.0)
    for side in (-1, 1):
        x, y = side * canvas.uniform(0.33, 0.4), canvas.uniform(-0.28, -0.18)
        canvas.paint(canvas.cover(x, y, 0.1, 0.15, side * 0.4, 0.05) * wall, canvas.soft(35 + contrast))
        canvas.paint(canvas.cover(x - side * 0.03, y, 0.045, 0.07, side * 0.4, 0.15), canvas.soft(-70, 20))
        canvas.paint(canvas.cover(side * 0.17, -0.42 * tall, 0.1, 0.09, 0, 0.05), canvas.soft(55))
        canvas.paint(
            canvas.cover(side * 0.33, -0.68 * tall, 0.2, 0.11, side * 0.15, 0.05) * inside, canvas.soft(55)
        )
    for _ in range(int(canvas.random.integers(5, 14))):
        x, y = canvas.uniform(-0.5, 0.5), canvas.uniform(-0.15, 0.45)
        a, b = canvas.uniform(0.04, 0.1), canvas.uniform(0.04, 0.07)
        angle = canvas.uniform(0, 3.14)
        canvas.paint(canvas.cover(x, y, a, b, angle, 0.15) * wall, canvas.soft(35, 15))
        if canvas.uniform(0, 1) < 0.35:
            canvas.paint(canvas.cover(x, y, 0.7 * a, 0.65 * b, angle, 0.15) * wall, canvas.uniform(0, 0.004))
    canvas.paint(canvas.cover(0.06, -0.14, 0.06, 0.06), canvas.soft(40 + 1.3 * contrast))
    canvas.paint(canvas.cover(-0.09, -0.14, 0.07, 0.05, 0.2), canvas.soft(40 + contrast))
    canvas.image += inside * canvas.texture(0.05, 0.008 * WATER)
    _spine(canvas, -0.45 * tall, 0.14)
    for side in (-1, 1):
        for turn in (-0.9, -0.4, 0.1):
            x, y = side * (0.93 - fat) * np.cos(turn), (tall - fat) * 0.93 * np.sin(turn)
            _bone(canvas, x, y, canvas.uniform(0.05, 0.09), 0.025, side * (turn + 1.57), 0.012)


def _object(canvas: Canvas) -> None:
    inside = canvas.cover(
        0, 0, canvas.uniform(0.35, 0.8), canvas.uniform(0.35, 0.8), canvas.uniform(0, 3.14), 0.25, 2.2
    )
    core, shell = canvas.uniform(0.018, 0.032), canvas.uniform(0.03, 0.05)
    canvas.paint(inside, shell)
    state = canvas.random.bit_generator.state
    x, y = canvas.random.normal(0, 0.08, 2)
    canvas.paint(inside * canvas.cover(x, y, 0.5, 0.5, 0, 0.3), core)
    canvas.random.bit_generator.state = state
    for _ in range(int(canvas.random.integers(1, 7))):
        x, y = canvas.random.normal(0, 0.22, 2)
        cover = canvas.cover(
            x, y, canvas.uniform(0.02, 0.2), canvas.uniform(0.02, 0.12), canvas.uniform(0, 3.14), 0.25
        )
        canvas.paint(
            cover * inside,
            canvas.uniform(0, 0.004) if canvas.uniform(0, 1) < 0.7 else canvas.uniform(0.03, 0.05),
        )
    for _ in range(int(canvas.random.integers(0, 4))):
        x, y, angle = *canvas.random.normal(0, 0.3, 2), canvas.uniform(0, 3.14)
        canvas.paint(canvas.cover(x, y, canvas.uniform(0.1, 0.4), 0.008, angle) * inside, 0.002)
    canvas.image += inside * canvas.texture(0.04, 0.02 * WATER)


_DRAW: dict[str, Callable[[Canvas], None]] = {
    "head": _head,
    "chest": _chest,
    "abdomen": _abdomen,
    "object": _object,
}
