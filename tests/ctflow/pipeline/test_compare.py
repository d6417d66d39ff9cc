"""One file through several solvers: numbers, references, coverage, failures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ctflow.io.formats.native import write_scan
from ctflow.io.formats.native_kspace import write_kspace_scan
from ctflow.io.results import write_result
from ctflow.io.scan import open_scan
from ctflow.metrics import psnr
from ctflow.pipeline.compare import compare
from ctflow.report_page import table, write_page
from ctflow.simulate import scan_settings, simulate_preset
from ctflow.solvers import CGSENSE, FBP, SIRT
from ctflow.volume_metrics import complex_nmse, volume_nmse, volume_psnr, volume_ssim
from tests.ctflow.io.measured_kspace import complex_noise, head_image, smooth_maps, to_kspace
from tests.ctflow.priors import write_prior

SIZE = 24


def write(path: Path, *, truth: bool = True, number: int = 3) -> Path:
    settings = scan_settings("sparse-view", size=SIZE, views=20)
    scan = simulate_preset("sparse-view", range(number), size=SIZE, views=20)
    operator = settings.operator()
    write_scan(
        path,
        scan.problem.measurement,
        operator.geometry,
        operator.grid,
        scan.problem.noise,
        truth=scan.truth if truth else None,
        metadata={},
    )
    return path


def test_numbers_are_those_of_the_images(tmp_path: Path) -> None:
    file = write(tmp_path / "scan.h5")
    found = compare(file, {"fbp": {}, "sirt": {"iterations": "5"}})
    scan = open_scan(file)
    problem, truth = scan[0:3], scan.truth(slice(0, 3))
    assert truth is not None
    for row, solver in zip(found.rows, (FBP(), SIRT(5)), strict=True):
        image = solver(problem).image
        assert row.psnr == pytest.approx(float(psnr(image, truth).mean()), abs=1e-3)
        assert row.misfit == pytest.approx(float(problem.data_fit(image).mean()), rel=1e-3)
        assert row.calibration is None
    assert found.rows[1].solver["iterations"] == 5
    json.dumps(found.to_dict(), allow_nan=False)


def test_references(tmp_path: Path) -> None:
    bare, known = write(tmp_path / "bare.h5", truth=False), write(tmp_path / "known.h5")
    (row,) = compare(bare, {"fbp": {}}).rows
    assert row.psnr is row.ssim is None
    truth = open_scan(known).truth(slice(0, 3))
    assert truth is not None
    write_result(tmp_path / "truth.h5", truth, status=["done"] * 3, attributes={"unit": "1/mm"})
    rows = [
        compare(bare, {"fbp": {}}, {"slices": slices}, reference=reference).rows[0]
        for reference in (known, tmp_path / "truth.h5")
        for slices in (None, "1:3")
    ]
    assert rows[0].psnr == rows[2].psnr
    assert rows[1].psnr == rows[3].psnr != rows[0].psnr
    write_result(tmp_path / "other.h5", truth[:2, :20], status=["done"] * 2, attributes={})
    for reference, message in (
        (bare, "bare.h5: expected a file with images, found a scan whose truth is unknown"),
        (tmp_path / "other.h5", r"other.h5: expected images of shape \(3, 24, 24\), found \(2, 20, 24\)"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(bare, {"fbp": {}}, reference=reference)


def test_samples_have_a_coverage_and_the_page_needs_no_other_file(tmp_path: Path) -> None:
    file = write(tmp_path / "a <b> & c.h5")
    prior = str(write_prior(tmp_path))
    job = {"samples": 3, "prior": prior, "seed": 1}
    found = compare(file, {"fbp": {}, "flower": {"steps": 2}}, job)
    plain, flower = found.rows
    assert plain.calibration is None
    assert flower.solver["samples"] == 3
    assert flower.solver["sample"] is True
    assert flower.calibration is not None
    assert all(0 <= share <= 1 for share in flower.calibration.found)
    lines = table(found)
    assert "within 1 std" in lines[0]
    assert len({len(line) for line in lines}) == 1
    write_page(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "a &lt;b&gt; &amp; c.h5" in page
    assert "<b>" not in page
    assert page.count("data:image/png;base64,") == 4
    assert not any(word in page for word in ("http:", "https:", "<script"))
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix == ".part") == []


def test_what_fails_is_named_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "scan.h5", number=1)

    def broken(*_: object, **__: object) -> None:
        raise ValueError("sirt: no luck")

    monkeypatch.setattr(SIRT, "__call__", broken)
    found = compare(file, {"sirt": {}, "fbp": {}})
    assert [row.name for row in found.rows] == ["fbp"]
    assert "sirt: no luck" in found.refused["sirt"]
    assert "sirt: no luck" in table(found)[-1]


def test_nothing_is_computed_for_settings_that_make_no_sense(tmp_path: Path) -> None:
    file = write(tmp_path / "scan.h5", number=1)
    for solvers, message in (
        ({}, "solvers: expected at least one name, found none"),
        ({"fbp": {}, "flowr": {}}, "no solver 'flowr'; did you mean 'flower'"),
        ({"fbp": {}, "tv": {"wieght": 1}}, "tv: no setting 'wieght'; did you mean 'weight'"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(file, solvers)


def test_volumes(tmp_path: Path) -> None:
    settings = scan_settings("cone", size=16, views=12)
    scan = simulate_preset("cone", range(1), size=16, views=12)
    operator = settings.operator()
    write_scan(
        tmp_path / "cone.h5",
        scan.problem.measurement[0],
        operator.geometry,
        operator.grid,
        scan.problem.noise,
        truth=scan.truth[0],
        metadata={},
    )
    (row,) = compare(tmp_path / "cone.h5", {"sirt": {"iterations": 3}}).rows
    assert row.psnr is not None
    assert torch.isfinite(row.images).all()


def test_mr_images_are_measured_by_volume_and_by_magnitude(tmp_path: Path) -> None:
    truth, file = head_image(64, 80, 3), tmp_path / "scan.h5"
    truth[1] *= 0.2
    kspace = to_kspace(truth[:, None] * smooth_maps(4, 64, 80))
    kspace = kspace + 0.01 * complex_noise(kspace.shape)
    write_kspace_scan(file, kspace, np.ones(80, bool), noise_std=0.01, truth=truth, metadata={})
    job = {"coil_maps": "adaptive", "undersample": "equispaced:2"}
    found = compare(file, {"cg-sense": {}, "rss": {}}, job)
    assert not found.refused
    sense, rss = found.rows
    scan = open_scan(file, **job)
    expected = torch.stack([CGSENSE()(scan[i]).image for i in range(3)])
    true = torch.as_tensor(truth)
    assert sense.psnr == pytest.approx(float(psnr(expected.abs(), true.abs()).mean()), abs=1e-3)
    assert sense.volume is not None
    assert sense.volume.psnr == pytest.approx(volume_psnr(expected, true), abs=1e-3)
    assert sense.volume.nmse == pytest.approx(volume_nmse(expected, true), rel=1e-3)
    assert sense.volume.ssim == pytest.approx(volume_ssim(expected, true), rel=1e-4)
    assert sense.volume.complex_nmse == pytest.approx(complex_nmse(expected, true), rel=1e-3)
    # A root sum of squares has no phase, and explains no measurement.
    assert rss.volume is not None
    assert rss.volume.complex_nmse is rss.misfit is None
    assert "complex NMSE" in table(found)[0]
    assert json.loads(json.dumps(found.to_dict()))["solvers"][0]["volume"]["nmse"] == sense.volume.nmse
    write_page(found, tmp_path / "report.html")
    assert "as fastMRI defines them" in (tmp_path / "report.html").read_text()
