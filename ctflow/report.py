"""Pictures of images: a preview of a reconstruction, and a comparison of several with a reference."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ctflow.io.errors import printable
from ctflow.metrics import psnr, ssim

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ctflow.calibration import Calibration

# Inches of one panel, and dots per inch: 256 x 256 pixels are shown at about their own size.
_PANEL = 3.0
_DPI = 110
_MOST_IN_A_ROW = 7


def preview(
    images: Tensor,
    path: str | Path,
    *,
    unit: str = "",
    pixel_size: float | None = None,
    names: Sequence[str] | None = None,
    title: str = "",
    most: int = 3,
) -> Path:
    """A PNG of up to `most` slices, evenly spaced, in one grey scale with its bar.

    Parameters
    ----------
    images
        Shape (slices, height, width) or (height, width); complex images are shown by their magnitude.
    path
        The picture; replaced in one step if it is there.
    unit
        Of the images, for the bar.
    pixel_size
        In mm, for a scale bar; none without.
    names
        Of the slices; their numbers unless given.
    title
        Above all.

    Returns
    -------
    Path
        `path`.
    """
    images = _shown(images)
    images = images.reshape(-1, *images.shape[-2:])
    chosen = evenly_spaced(len(images), most)
    low, high = grey_range(images[chosen])
    figure, axes = _panels(len(chosen), images.shape[-2:], title)
    for axis, i in zip(axes, chosen, strict=True):
        drawn = _draw(axis, images[i], low, high)
        label = names[i] if names is not None else f"slice {i}"
        axis.set_title(label, fontsize=9, parse_math=False)
    _scale_bar(axes[0], images.shape[-1], pixel_size)
    _grey_bar(figure, axes, drawn, unit)
    return _save(figure, Path(path))


def comparison(
    images: Mapping[str, Tensor],
    reference: Tensor,
    path: str | Path,
    *,
    unit: str = "",
    pixel_size: float | None = None,
    title: str = "",
    reference_name: str = "truth",
) -> Path:
    """A PNG of images side by side, at most seven in a row, the reference last; PSNR and SSIM below each.

    Parameters
    ----------
    images
        Name to image, each of the reference's shape (height, width).
    reference
        What they are compared with; it also sets the grey scale of all panels.
    path, unit, pixel_size, title
        As for `preview`.
    reference_name
        Its caption.

    Returns
    -------
    Path
        `path`.
    """
    if reference.ndim != 2:
        raise ValueError(f"reference: expected shape (height, width), found {tuple(reference.shape)}")
    low, high = grey_range(_shown(reference))
    figure, axes = _panels(len(images) + 1, reference.shape, title)
    for axis, (name, image) in zip(axes, images.items(), strict=False):
        drawn = _draw(axis, _shown(image), low, high)
        axis.set_title(name, fontsize=10, parse_math=False)
        seen, true = _shown(image), _shown(reference)
        scores = f"{float(psnr(seen, true)):.2f} dB, SSIM {float(ssim(seen, true)):.3f}"
        axis.set_xlabel(scores, fontsize=9)
    drawn = _draw(axes[-1], _shown(reference), low, high)
    axes[-1].set_title(reference_name, fontsize=10, parse_math=False)
    _scale_bar(axes[-1], reference.shape[-1], pixel_size)
    _grey_bar(figure, axes, drawn, unit)
    return _save(figure, Path(path))


def calibration_plot(calibrations: Mapping[str, Calibration], path: str | Path) -> Path:
    """A PNG of the share of pixels whose truth lies within an interval, against what it should be.

    On the diagonal the spread says how large errors are; below it, errors are larger than it says.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.4 * _PANEL, 1.4 * _PANEL), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for name, found in calibrations.items():
        axis.plot((0, *found.nominal), (0, *found.found), marker="o", markersize=3, label=name)
    axis.set(xlabel="nominal coverage", ylabel="coverage found", xlim=(0, 1), ylim=(0, 1))
    axis.set_aspect("equal")
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    return _save(figure, Path(path))


def evenly_spaced(count: int, most: int) -> list[int]:
    """Indices of up to `most` of `count` slices, each in the middle of an equal part."""
    number = min(count, most)
    return [int((k + 0.5) * count / number) for k in range(number)]


def grey_range(images: Tensor) -> tuple[float, float]:
    """Black and white: the 0.1th and 99.9th percentile of the finite values, black at 0 where all are above.

    A hot pixel then does not darken the picture.
    """
    values = images[torch.isfinite(images)].flatten().sort().values
    if not len(values):
        return 0.0, 1.0
    low, high = (float(values[round(part * (len(values) - 1))]) for part in (0.001, 0.999))
    low = min(low, 0.0) if low < 0.2 * high else low
    return (low, high) if high > low else (low, low + 1.0)


def _shown(image: Tensor) -> Tensor:
    image = image.detach().cpu()
    return image.abs() if image.is_complex() else image


def _panels(count: int, shape: Sequence[int], title: str) -> tuple[Figure, list[Axes]]:
    # Names of files and units of theirs are no formulas, whatever dollar signs they have: parse_math=False.
    # The object interface, without pyplot: no global state, no window system, safe in threads.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    aspect = min(max(shape[-2] / shape[-1], 0.25), 4.0)
    rows = -(-count // _MOST_IN_A_ROW)
    columns = -(-count // rows)
    height = (_PANEL * aspect + 0.6) * rows + (0.3 if title else 0)
    figure = Figure(figsize=(_PANEL * columns + 0.9, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(printable(title), fontsize=11, parse_math=False)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[count:]:
        spare.remove()
    return figure, axes[:count]


def _draw(axis: Axes, image: Tensor, low: float, high: float) -> Any:
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis.imshow(image.numpy(), cmap="gray", vmin=low, vmax=high, interpolation="antialiased")


def _grey_bar(figure: Figure, axes: list[Axes], drawn: Any, unit: str) -> None:
    bar = figure.colorbar(
        drawn, ax=axes, shrink=0.85, pad=0.01, fraction=0.1 / min(len(axes), _MOST_IN_A_ROW), aspect=25
    )
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    if unit:
        bar.set_label(unit, fontsize=9, parse_math=False)


def _scale_bar(axis: Axes, width: int, pixel_size: float | None) -> None:
    """A white bar of a round length, about a fifth of the picture, in its lower left corner."""
    if not pixel_size:
        return
    from matplotlib.font_manager import FontProperties
    from mpl_toolkits.axes_grid1.anchored_artists import AnchoredSizeBar

    target = width * pixel_size / 5
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target)
    label = f"{length:g} mm" if length >= 0.1 else f"{1000 * length:g} µm"
    bar = AnchoredSizeBar(
        axis.transData,
        length / pixel_size,
        label,
        "lower left",
        color="white",
        pad=0.3,
        borderpad=0.4,
        sep=2,
        label_top=True,
        size_vertical=width / 120,
        fontproperties=FontProperties(size=8),
    )
    bar.patch.set(facecolor="black", alpha=0.4, edgecolor="none")
    axis.add_artist(bar)


def _save(figure: Figure, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # Noise is as small after a quick search as after a long one.
        figure.savefig(temporary, format="png", pil_kwargs={"compress_level": 1})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
