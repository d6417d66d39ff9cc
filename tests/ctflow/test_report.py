from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from ctflow.report import comparison, evenly_spaced, grey_range, preview


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(5, 40, 60, generator=torch.Generator().manual_seed(0))


def test_preview_shows_up_to_three_slices(images, tmp_path: Path) -> None:
    wide = imread(preview(images, tmp_path / "new" / "a.png", unit="1/mm", pixel_size=0.5, title="a title"))
    narrow = imread(preview(images[0], tmp_path / "b.png"))
    assert wide.shape[1] > 2 * narrow.shape[1]
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["b.png"]


def test_the_picture_has_the_images_orientation(tmp_path: Path) -> None:
    image = torch.zeros(64, 64)
    image[:32, :32] = 1.0  # above and to the left
    picture = imread(preview(image, tmp_path / "a.png"))[..., :3].mean(-1)
    rows = ((picture < 0.1).mean(1) > 0.5).nonzero()[0]  # those of the dark half below
    columns = (picture[rows[len(rows) // 2]] < 0.1).nonzero()[0]
    height, width = 2 * len(rows), len(columns)
    left, above = columns[0] + width // 4, rows[0] - height // 4
    assert picture[above, left] == 1.0
    assert picture[above, left + width // 3] < 0.1
    assert picture[above + height // 2, left] < 0.1


def test_preview_of_complex_and_failed_slices(images, tmp_path: Path) -> None:
    images[0] = torch.nan
    preview(images, tmp_path / "nan.png", unit="1/mm")
    preview(torch.full((2, 16, 16), torch.nan), tmp_path / "all.png")
    preview(torch.complex(images, images), tmp_path / "complex.png", pixel_size=0.001)
    assert len(list(tmp_path.iterdir())) == 3


def test_comparison_has_a_panel_more_than_images(images, tmp_path: Path) -> None:
    shape = imread(
        comparison({"FBP": images[0], "TV": images[1]}, images[2], tmp_path / "a.png", pixel_size=1.0)
    ).shape
    assert shape[1] > 1.5 * shape[0]
    many = {str(i): images[0] for i in range(8)}
    rows = imread(comparison(many, images[2], tmp_path / "rows.png")).shape
    assert 1.8 < rows[0] / shape[0] < 2.2
    assert rows[1] / shape[1] == pytest.approx(5 / 3, rel=0.1)
    with pytest.raises(ValueError, match=r"expected shape \(height, width\), found \(5, 40, 60\)"):
        comparison({"FBP": images}, images, tmp_path / "b.png")


def test_evenly_spaced() -> None:
    assert evenly_spaced(1, 3) == [0]
    assert evenly_spaced(2, 3) == [0, 1]
    assert evenly_spaced(9, 3) == [1, 4, 7]
    assert evenly_spaced(0, 3) == []


def test_grey_range_ignores_hot_pixels_and_nan() -> None:
    image = torch.linspace(0.0, 1.0, 10_000).reshape(100, 100)
    image[0, 0], image[0, 1] = 1000.0, torch.nan
    low, high = grey_range(image)
    assert low == 0.0
    assert high == pytest.approx(0.999, abs=2e-3)
    assert grey_range(torch.zeros(4, 4)) == (0.0, 1.0)


def test_pictures_need_no_pyplot(tmp_path: Path) -> None:
    script = (
        "import sys, torch; from ctflow.report import preview; preview(torch.ones(9, 9), sys.argv[1]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.png")], check=True)


def test_names_of_files_are_no_formulas(images, tmp_path: Path) -> None:
    title = r"$\frac{a$ <b> $\undefined{$.h5"
    preview(images, tmp_path / "a.png", unit="$", names=[title] * 5, title=title)
    comparison({title: images[0]}, images[1], tmp_path / "b.png", unit=title, title=title)
    assert len(list(tmp_path.iterdir())) == 2
