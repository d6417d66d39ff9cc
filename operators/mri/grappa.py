"""Missing lines of k-space from their neighbours in all coils (GRAPPA)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.mri.calibration import calibration_region, check_kspace, patches


@dataclass(frozen=True)
class _Neighbours:
    """Measured lines around missing ones, as differences of their numbers, and the missing lines' numbers."""

    offsets: tuple[int, ...]
    lines: tuple[int, ...]


def grappa(
    kspace: Tensor,
    *,
    calibration: int = 24,
    kernel: tuple[int, int] = (5, 2),
    regularisation: float = 0.01,
) -> Tensor:
    """Return k-space with the missing lines filled in, as combinations of measured neighbours in all coils.

    Parameters
    ----------
    kspace : Tensor
        Complex, shape (*batch, coils, height, width), frequency 0 at n // 2, with lines along the height (the
        readout) that are measured as a whole or missing, those in the centre all measured; zeros where
        missing.
    calibration
        How many lines of the fully sampled centre are learned from at most.
    kernel
        Samples along the readout, odd, and measured lines that a missing sample is made of: the nearest ones.
        Fewer lines are used where those do not fit into the centre.
    regularisation
        Of the least squares, relative to the mean energy of a sample in the centre. More of it amplifies the
        noise less and fills less exactly.

    Returns
    -------
    Tensor
        The shape and dtype of `kspace`. What was measured is left as it is; lines further out than the
        measured ones, by the widest gap between those, stay zero.

    Raises
    ------
    ValueError
        For k-space that is not complex, lines that are measured in part, settings out of range, or a centre
        that is too narrow to learn any of the missing lines from.

    References
    ----------
    Griswold et al., Magn. Reson. Med. 47, 1202 (2002).

    Notes
    -----
    Weights depend only on where the neighbours lie, so that each such pattern is learned once: for equispaced
    lines as many as lines in a gap, for others more.
    """
    check_kspace(kspace, 2)
    _check_settings(kernel, calibration, regularisation, kspace.shape[-2])
    filled = kspace.clone()
    for element in filled.reshape(-1, *kspace.shape[-3:]):
        if bool(element.any()):
            _fill(element, calibration, kernel, regularisation)
    return filled


def _fill(kspace: Tensor, calibration: int, kernel: tuple[int, int], regularisation: float) -> None:
    """Fill k-space, shape (coils, height, width), in its place."""
    if not bool(kspace.isfinite().all()):
        raise ValueError("kspace: expected finite values, found others")
    samples = (kspace != 0).any(0)
    measured, heard = samples.any(0), samples.any(1)  # lines, and positions along the readout
    if not torch.equal(samples, measured & heard.unsqueeze(1)):
        raise ValueError("kspace: expected whole lines along the height, found lines measured in part")
    rows, columns = calibration_region(kspace, (kspace.shape[-2], calibration))
    centre = kspace[:, rows, columns]
    centre = centre / centre.abs().amax()
    groups = _grouped(measured.tolist(), kernel[1], columns.stop - columns.start)
    if not groups:
        return
    half = kernel[0] // 2
    padded = torch.nn.functional.pad(kspace, (0, 0, half, half))
    # (height, coils, readout neighbours, width): the sources of every sample of a line
    sources = padded.unfold(1, kernel[0], 1).permute(1, 0, 3, 2)
    found = []
    for group in groups:
        weights = _weights(centre, group.offsets, kernel[0], regularisation)
        lines = torch.tensor(group.lines, device=kspace.device)
        offsets = torch.tensor(group.offsets, device=kspace.device)
        neighbours = sources[..., lines[:, None] + offsets]  # (height, coils, readout, lines, offsets)
        neighbours = neighbours.permute(0, 3, 1, 2, 4).flatten(2)
        found.append((lines, (neighbours @ weights).permute(2, 0, 1)))
    for lines, values in found:
        kspace[:, :, lines] = torch.where(heard.unsqueeze(1), values, 0)


def _weights(centre: Tensor, offsets: tuple[int, ...], length: int, regularisation: float) -> Tensor:
    """Weights (coils * length * offsets, coils) that make the sample at offset 0 of its neighbours."""
    first, last = min(0, *offsets), max(0, *offsets)
    blocks = patches(centre, (length, last - first + 1))
    blocks = blocks.reshape(len(blocks), len(centre), length, -1)
    sources = blocks[..., [offset - first for offset in offsets]].flatten(1)
    targets = blocks[:, :, length // 2, -first]
    gram = sources.mH @ sources
    gram.diagonal().add_(regularisation * gram.diagonal().real.mean())
    factor = torch.linalg.cholesky(gram)
    return torch.cholesky_solve(sources.mH @ targets, factor)


def _grouped(measured: Sequence[bool], count: int, span: int) -> list[_Neighbours]:
    """Missing lines by where their nearest measured neighbours lie, at most `count` that fit into a span."""
    known = [line for line, is_known in enumerate(measured) if is_known]
    widest = max((after - before for before, after in itertools.pairwise(known)), default=1)
    groups: dict[tuple[int, ...], list[int]] = {}
    for line in range(max(known[0] - widest + 1, 0), min(known[-1] + widest, len(measured))):
        if measured[line]:
            continue
        offsets: list[int] = []
        for offset in sorted((one - line for one in known), key=abs):
            reach = max(0, offset, *offsets) - min(0, offset, *offsets)
            if len(offsets) < count and reach < span:
                offsets.append(offset)
        if not offsets:
            raise ValueError(
                f"kspace: expected a centre wide enough to learn line {line} from measured neighbours, "
                f"found {span} lines"
            )
        groups.setdefault(tuple(sorted(offsets)), []).append(line)
    return [_Neighbours(offsets, tuple(lines)) for offsets, lines in groups.items()]


def _check_settings(kernel: tuple[int, int], calibration: int, regularisation: float, height: int) -> None:
    if len(kernel) != 2 or kernel[0] % 2 == 0 or not 1 <= kernel[0] <= height or kernel[1] < 1:
        raise ValueError(f"kernel: expected an odd number up to {height} and at least 1 line, found {kernel}")
    if calibration < 2 or regularisation <= 0:
        raise ValueError(
            "calibration, regularisation: expected at least 2 lines and a positive number, "
            f"found {calibration}, {regularisation}"
        )
