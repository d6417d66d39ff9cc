"""The image, and everything that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Reconstruction:
    """What a solver returns.

    Attributes
    ----------
    image
        In the unit of the problem's image, shape (*batch, *image_shape).
    samples
        Independent draws, shape (samples, *batch, *image_shape), where the solver made several.
    std
        Their standard deviation, shape of `image`.
    history
        Data fit of each step, of shape (*batch,); about 1 where an image explains the measurement to its
        noise. Of a solver whose steps end with a data term it is that of the estimate before, which costs
        nothing more; `InverseProblem.data_fit` has that of `image`.
    solver
        The solver's name and every setting.
    prior
        The prior's name, or None.
    representation
        The affine map between image and network, as used, or None.
    seed
        The seed that the generator started from; a list where every sample had its own.
    seconds
        Wall-clock time: `total`, and within it `network` and `operator`.
    evaluations
        How often the network and the operator (forward, adjoint or both at once) were evaluated.
    details
        What else a solver reports, such as iterations of the inner solves.
    """

    image: Tensor
    samples: Tensor | None = None
    std: Tensor | None = None
    history: tuple[Tensor, ...] = ()
    solver: Mapping[str, Any] = field(default_factory=dict)
    prior: str | None = None
    representation: Mapping[str, Any] | None = None
    seed: int | list[int] | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    evaluations: Mapping[str, int] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
