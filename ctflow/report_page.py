"""A comparison of solvers as lines for a terminal, and as one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from ctflow import __version__
from ctflow.io.atomic import replacing_text
from ctflow.pipeline.compare import Comparison, Row
from ctflow.report import calibration_plot, comparison, preview

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; color: #222 }
table { border-collapse: collapse } th, td { padding: .25rem .8rem; text-align: right }
th { border-bottom: 1px solid #999 } th:first-child, td:first-child { text-align: left }
tr:nth-child(even) td { background: #f5f5f5 } img { max-width: 100% } .bad { color: #a00 }
code { font-size: 13px } .note { color: #666 }
"""
_OF_VOLUMES = (
    " Those of the volume are as fastMRI defines them: magnitudes of all slices as one, relative to the "
    "largest value of the true volume, SSIM in a uniform window of 7 pixels; complex NMSE leaves the phase "
    "of each slice as a whole open, and is only meaningful where the coil maps have the phase of the truth."
)


def cells(found: Comparison) -> list[list[str]]:
    """The table: its head, and a row for each solver."""
    head = ["solver", "PSNR", "SSIM", "misfit", "seconds", "network", "operator"]
    volumes = any(row.volume is not None for row in found.rows)
    if volumes:
        head += ["volume PSNR", "SSIM", "NMSE", "complex NMSE"]
    sampled = any(row.calibration is not None for row in found.rows)
    if sampled:
        head += ["within 1 std", "within 2 std", "error / spread"]
    lines = [head]
    for row in found.rows:
        line = [row.name, _number(row.psnr, 2), _number(row.ssim, 4), _number(row.misfit, 2)]
        line += [f"{row.seconds:.2f}", *(str(row.evaluations.get(k, 0)) for k in ("network", "operator"))]
        if volumes:
            line += _volume(row)
        if sampled:
            line += _coverage(row)
        lines.append(line)
    return lines


def table(found: Comparison) -> list[str]:
    """Aligned lines for a terminal, and below them what failed."""
    rows = cells(found)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    lines = []
    for name, *numbers in rows:
        aligned = [text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *aligned]))
    return lines + _failures(found)


def write_page(found: Comparison, path: Path) -> None:
    """The HTML file, whole or not at all: table, coverage, pictures and settings."""
    with TemporaryDirectory(prefix="ctflow-report-") as folder:
        pictures = _pictures(found, Path(folder))
        plot = _plot(found, Path(folder))
    reference = "none" if found.truth is None else str(found.reference or "the truth in the scan")
    head, *rows = cells(found)
    volumes = any(row.volume is not None for row in found.rows)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<title>{escape(found.file.name)}: solvers compared</title><style>{_STYLE}</style></head><body>",
        f"<h1>{escape(found.file.name)}</h1>",
        f"<p>{found.slices} slice{'' if found.slices == 1 else 's'}; reference: {escape(reference)}.",
        "PSNR and SSIM are relative to the largest value of each true image, means over slices; misfit is "
        "the root mean square of the residual over the noise, 1 where the image explains the data to it; "
        f"seconds and evaluations are for all slices.{_OF_VOLUMES if volumes else ''}</p>",
        "<table><tr>" + "".join(f"<th>{escape(text)}</th>" for text in head) + "</tr>",
        *("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in rows),
        "</table>",
        *(f"<p class='bad'>{escape(line)}</p>" for line in _failures(found)),
    ]
    if plot:
        parts += [
            "<h2>Coverage</h2><p>Share of pixels whose truth lies within an interval of so many standard "
            "deviations of the samples, against the share for samples of the posterior. Below the diagonal "
            "the errors are larger than the spread says. Whether a spread may be read as uncertainty "
            "at all is in its documentation.</p>",
            f"<img alt='coverage' src='{plot}'>",
        ]
    parts.append("<h2>Images</h2>")
    parts += [f"<p><img alt='slice {k}' src='{picture}'></p>" for k, picture in pictures.items()]
    parts.append("<h2>Settings</h2><ul>")
    for row in found.rows:
        settings = ", ".join(f"{key} = {value}" for key, value in row.solver.items() if key != "name")
        parts.append(f"<li>{escape(row.name)}: <code>{escape(settings)}</code></li>")
    parts += ["</ul>", f"<p class='note'>ctflow {escape(__version__)}</p></body></html>"]
    replacing_text(path, "\n".join(parts))


def _pictures(found: Comparison, folder: Path) -> Mapping[int, str]:
    """Number of each slice shown, and its picture as a data URL."""
    result = {}
    for position, index in enumerate(found.pictured):
        images = {row.name: row.images[position] for row in found.rows}
        images = {
            name: image for name, image in images.items() if bool(torch.isfinite(torch.abs(image)).all())
        }
        if not images:
            continue
        path, looks = folder / f"{index}.png", {"unit": found.unit, "pixel_size": found.pixel_size}
        if found.truth is not None:
            comparison(images, found.truth[position], path, title=f"slice {index}", **looks)  # type: ignore[arg-type]
        else:
            stack, names = torch.stack(list(images.values())), list(images)
            preview(stack, path, names=names, title=f"slice {index}", most=len(names), **looks)  # type: ignore[arg-type]
        result[index] = _url(path)
    return result


def _plot(found: Comparison, folder: Path) -> str:
    calibrations = {row.name: row.calibration for row in found.rows if row.calibration is not None}
    return _url(calibration_plot(calibrations, folder / "coverage.png")) if calibrations else ""


def _url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _failures(found: Comparison) -> list[str]:
    lines = [
        f"{row.name}: slice {index} failed: {why}" for row in found.rows for index, why in row.failed.items()
    ]
    return lines + [f"{name}: {why}" for name, why in found.refused.items()]


def _volume(row: Row) -> list[str]:
    if row.volume is None:
        return ["", "", "", ""]
    found = row.volume
    return [
        _number(found.psnr, 2),
        _number(found.ssim, 4),
        _number(found.nmse, 5),
        _number(found.complex_nmse, 5),
    ]


def _coverage(row: Row) -> list[str]:
    if row.calibration is None:
        return ["", "", ""]
    found = row.calibration
    shares = [
        f"{100 * found.found[k]:.0f} % of {100 * found.nominal[k]:.0f} %"
        for k in (found.widths.index(1.0), found.widths.index(2.0))
    ]
    return [*shares, f"{found.error / found.spread:.2f}"]


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
