"""The `ctflow` command, as a user calls it: what it makes, what it says, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from ctflow import __version__
from ctflow.cli import main
from ctflow.io.results import read_result
from ctflow.io.scan import open_scan
from ctflow.metrics import psnr
from tests.ctflow.io.measured import CENTRE, Edit, body, replaced, without, write_dxchange
from tests.ctflow.priors import write_prior

Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Call the command; exit code, and the lines that it wrote to standard output and standard error."""

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return int(caught.value.code or 0), written.out.splitlines(), written.err.splitlines()

    return call


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    write_dxchange(tmp_path / "scan.h5", noise=True)
    return tmp_path / "scan.h5"


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_help_and_version(run: Run) -> None:
    code, lines, _ = run("--help")
    text = "\n".join(lines)
    assert code == 0
    assert all(command in text for command in ("info", "reconstruct", "simulate", "train", "demo"))
    assert "Exit codes: 0 done, 1 some slices failed, 2 bad usage or bad input." in text
    assert run("--version") == (0, [f"ctflow {__version__}"], [])


def test_module_and_command_are_the_same() -> None:
    done = subprocess.run([sys.executable, "-m", "ctflow", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"ctflow {__version__}")


def test_info_for_a_person_and_for_a_program(run: Run, scan: Path) -> None:
    code, lines, errors = run("info", scan)
    assert (code, errors) == (0, [])
    assert lines[0].split() == ["format", "DXchange"]
    assert any(line.startswith("missing") and "none" in line for line in lines)
    code, lines, _ = run("info", scan, "--json", "--views", 10, "--centre", CENTRE)
    described = json.loads("\n".join(lines))
    assert (code, described["slices"], described["views"], described["centre"]) == (0, 3, 10, CENTRE)


def test_info_says_what_is_wrong_inside_a_readable_file(run: Run, tmp_path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["/exchange/data"][0, 1, 2] = np.nan

    write_dxchange(tmp_path / "scan.h5", spoil)
    code, lines, _ = run("info", tmp_path / "scan.h5", "--centre", CENTRE)
    assert code == 0
    assert any(line.startswith("problems") and "nan in slice 1 at view 0, bin 2" in line for line in lines)


@pytest.mark.parametrize(
    ("solver", "settings", "least"),
    [
        ("fbp", [], 20),
        ("cgls", ["--set", "iterations=8"], 20),
        ("sirt", ["--set", "iterations=60"], 20),
        ("tv", ["--set", "iterations=60"], 22),
    ],
)
def test_classical_solvers(
    run: Run, scan: Path, tmp_path: Path, solver: str, settings: list[str], least: float
) -> None:
    output = tmp_path / "recon.h5"
    code, lines, errors = run("reconstruct", scan, "-o", output, "--solver", solver, *settings)
    assert (code, errors) == (0, [])
    assert lines[0].startswith(f"{output}: 3 slices in ")
    assert lines[1] == str(tmp_path / "recon.png")
    result = read_result(output)
    assert result.status == ("done",) * 3
    assert float(psnr(result.images, body()).min()) > least
    assert imread(tmp_path / "recon.png").size
    assert result.attributes["solver"]["name"] == solver


def test_flower_with_a_prior_of_ones_own(run: Run, scan: Path, tmp_path: Path) -> None:
    prior, output = write_prior(tmp_path), tmp_path / "recon.h5"
    options = ("--prior", prior, "--steps", 3, "--views", 15, "--slices", "1:3", "--seed", 5)
    code, _, errors = run("reconstruct", scan, "-o", output, *options)
    assert (code, errors) == (0, [])
    result = read_result(output)
    assert result.images.shape == (2, 41, 41)
    found = result.attributes
    assert (found["prior"], found["seed"], found["slices"]) == ("tiny", 5, "1:3")
    assert found["solver"]["steps"] == 3
    assert found["scan"]["views"] == 15
    assert found["evaluations"]["network"] == 3


def test_settings_from_a_file(run: Run, scan: Path, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(
        "solver: sirt\nsettings: {iterations: 2}\nfiles: scan.h5\noutput: recon.h5\nslices: 0:1\n"
    )
    code, _, _ = run("reconstruct", "--config", config, "--slices", "2")
    result = read_result(tmp_path / "recon.h5")
    assert (code, len(result.images), result.attributes["slices"]) == (0, 1, "2:3")
    assert result.attributes["solver"]["iterations"] == 2


def test_several_files_into_a_folder(run: Run, scan: Path, tmp_path: Path) -> None:
    write_dxchange(tmp_path / "other.h5")
    options = ("-o", tmp_path / "out", "--solver", "fbp", "--slices", "1")
    code, lines, _ = run("reconstruct", scan, tmp_path / "other.h5", *options)
    assert code == 0
    assert files(tmp_path / "out") == [
        "other_recon.h5",
        "other_recon.png",
        "scan_recon.h5",
        "scan_recon.png",
    ]
    assert len(lines) == 4


def test_slices_that_fail_are_named_and_the_rest_is_written(run: Run, tmp_path: Path) -> None:
    def spoil(file: h5py.File) -> None:
        file["/exchange/data"][0, 2, 2] = np.nan

    write_dxchange(tmp_path / "scan.h5", spoil)
    output = tmp_path / "recon.h5"
    code, lines, errors = run("reconstruct", tmp_path / "scan.h5", "-o", output, "--solver", "fbp")
    assert code == 1
    assert len(errors) == 2
    assert errors[1].startswith("failed slices again: ctflow ")
    assert errors[1].endswith(" --retry-failed")
    assert "scan.h5: slice 2 failed: " in errors[0]
    assert "nan in slice 2 at view 0, bin 2" in errors[0]
    assert lines[0].startswith(f"{output}: 2 slices in ")
    result = read_result(output)
    assert result.status[:2] == ("done", "done")
    assert result.status[2].startswith("failed: ")
    assert torch.isnan(result.images).any(-1).any(-1).tolist() == [False, False, True]


def test_simulated_scans_are_reproducible_and_measure_their_truth(run: Run, tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        options = ("-n", 2, "--seed", 3, "--views", 8, "--photons", 1e5, "-o", tmp_path / name)
        assert run("simulate", "sparse-view", *options)[0] == 0
    scan, again = open_scan(tmp_path / "a.h5"), open_scan(tmp_path / "b.h5")
    assert torch.equal(scan[0:2].measurement, again[0:2].measurement)
    assert not torch.equal(scan[0].measurement, scan[1].measurement)
    clean = scan.operator(scan.truth(slice(0, 2)))
    assert float((scan[0:2].measurement - clean).square().mean().sqrt()) < 0.1
    assert scan.metadata["seeds"] == [1_000_000_003, 1_000_000_004]
    code, _, errors = run("simulate", "sparse-view", "-o", tmp_path / "a.h5")
    assert (code, len(errors)) == (2, 1)
    assert "the file exists already" in errors[0]


def test_a_simulated_volume_is_reconstructed(run: Run, tmp_path: Path) -> None:
    scan, prior = tmp_path / "vol.h5", str(write_prior(tmp_path))
    code, lines, _ = run("simulate", "cone", "-o", scan, "--size", 16, "--views", 20)
    assert (code, lines) == (0, [f"{scan}: 16 slices of 16 x 16 pixels"])
    truth = open_scan(scan).truth(slice(0, 16))
    assert truth is not None
    for solver, options in (
        ("fbp", ()),
        ("tv", ()),
        ("flower", ("--prior", prior, "--steps", 2, "--set", "coupling=3")),
    ):
        output = tmp_path / f"{solver}.h5"
        assert run("reconstruct", scan, "-o", output, "--solver", solver, *options)[0] == 0
        error = (read_result(output).images - truth).norm() / truth.norm()
        assert float(error) < {"fbp": 0.6, "tv": 0.25, "flower": 1.0}[solver]
    code, lines, _ = run("info", scan)
    assert code == 0
    assert any("cone beam, 20 views" in line for line in lines)
    code, _, errors = run("simulate", "cone", "-n", 2, "-o", tmp_path / "two.h5")
    assert (code, errors) == (2, ["error: -n: expected 1 for cone, which is one volume a file, found 2"])


def test_training_makes_a_prior_that_reconstructs(run: Run, scan: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = body().numpy()
    (tmp_path / "train.yaml").write_text(
        "name: mine\noutput: prior\nimages: [{file: images.h5, dataset: images}]\n"
        "network: {widths: [8, 8], layers: 1, patch: 2, groups: 4}\n"
        "representation: {scale: 0.3, offset: 0.3, unit: 1/mm}\nsteps: 2\nbatch: 2\ncrops: [16]\n"
    )
    code, lines, _ = run("train", tmp_path / "train.yaml")
    assert code == 0
    assert lines[-1].startswith("prior: ")
    prior = lines[-1].removeprefix("prior: ")
    options = ("--prior", prior, "--steps", 2, "--slices", "0", "--centre", CENTRE)
    assert run("reconstruct", scan, "-o", tmp_path / "recon.h5", *options)[0] == 0


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (without("/exchange/data"), "/exchange/data: expected a dataset of real numbers with 3 axes, found"),
        (without("/exchange/data_white"), "/exchange/data_white: expected flat fields (frames, y, x), found"),
        (without("/exchange"), "format: expected one of the formats"),
        (
            replaced("/exchange/data", lambda values: values.transpose(2, 0, 1)),
            "/exchange/data_white: expected 30 rows of 3 bins",
        ),
        (
            replaced("/exchange/data_white", lambda values: values[..., :-1]),
            "/exchange/data_white: expected 3 rows of 41 bins as in /exchange/data, found 3 rows of 40 bins",
        ),
        (
            replaced("/exchange/theta", np.deg2rad),
            "/exchange/theta: expected angles in degrees, found 30 angles over 3.142, in an unstated unit",
        ),
        (
            replaced("/exchange/theta", lambda values: values[:3]),
            "/exchange/theta: expected one angle a view, found 3 angles for the 30 views",
        ),
        (
            replaced("/exchange/data", lambda values: np.full_like(values, np.nan)),
            "no slice could be reconstructed; slice 0:",
        ),
    ],
)
def test_bad_files(run: Run, tmp_path: Path, edit: Edit, message: str) -> None:
    write_dxchange(tmp_path / "scan.h5", edit)
    (tmp_path / "recon.h5").write_text("an older result")
    options = ("-o", tmp_path / "recon.h5", "--overwrite", "--solver", "fbp", "--centre", CENTRE)
    code, lines, errors = run("reconstruct", tmp_path / "scan.h5", *options)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert errors[0].startswith(f"error: {tmp_path / 'scan.h5'}: ")
    assert message in errors[0]
    assert files(tmp_path) == ["recon.h5", "scan.h5"]
    assert (tmp_path / "recon.h5").read_text() == "an older result"


def test_a_truncated_file(run: Run, scan: Path, tmp_path: Path) -> None:
    scan.write_bytes(scan.read_bytes()[:20_000])
    for command in (("info", scan), ("reconstruct", scan, "-o", tmp_path / "recon.h5")):
        code, _, errors = run(*command)
        assert (code, len(errors)) == (2, 1)
        assert "scan.h5: file: expected a readable HDF5 file, found a truncated" in errors[0]
    assert files(tmp_path) == ["scan.h5"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--solver", "flowr"), "no solver 'flowr'; did you mean 'flower'?"),
        (("--prior", "ct-smal"), "no prior 'ct-smal'; did you mean 'ct-small'?"),
        (("--prior", "nowhere/mine"), "no prior at nowhere/mine"),
        (("--set", "step=3"), "flower: no setting 'step'; did you mean 'steps'?"),
        (("--set", "steps"), "--set: expected KEY=VALUE, found 'steps'"),
        (("--steps", "many"), "Invalid value for '--steps'"),
        (("--slices", "7:9"), "slices: expected within 0:3, found '7:9'"),
        (("--views", "31"), "views: expected a number from 1 to 30, found 31"),
        (("--device", "tpu"), "device: expected auto, cpu or cuda, found 'tpu'"),
        (("--angles-unit", "turns"), "angles_unit: expected 'degrees' or 'radians', found 'turns'"),
        (("--config", "none.yaml"), "none.yaml: cannot read the settings"),
        (("--speed", "3"), "No such option"),
    ],
)
def test_bad_usage(run: Run, scan: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    code, lines, errors = run("reconstruct", scan, "-o", tmp_path / "recon.h5", *options)
    assert (code, lines, len(errors)) == (2, [], 1)
    assert message in errors[0]
    assert files(tmp_path) == ["scan.h5"]


def test_outputs_that_cannot_be_written(run: Run, scan: Path, tmp_path: Path) -> None:
    before = scan.read_bytes()
    (tmp_path / "old.h5").write_text("an older result")
    (tmp_path / "new.png").write_text("a picture")
    for output, message in (
        (tmp_path / "old.h5", "the file exists already"),
        (tmp_path / "new.h5", "new.png: the file exists already"),
        (tmp_path / "no" / "recon.h5", "no does not exist"),
        (tmp_path / "recon.png", "expected an HDF5 file such as recon.h5"),
        (scan, "expected another name than that of the file being read"),
    ):
        code, _, errors = run("reconstruct", scan, "-o", output, "--solver", "fbp")
        assert (code, len(errors)) == (2, 1), output
        assert message in errors[0]
    assert files(tmp_path) == ["new.png", "old.h5", "scan.h5"]
    assert scan.read_bytes() == before
    assert (tmp_path / "old.h5").read_text() == "an older result"
    assert run("reconstruct", scan)[0] == 2


def test_an_interrupt_keeps_what_was_there(
    run: Run, scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ctflow.pipeline.blocks.Worker.solve", interrupt)
    code, _, errors = run("reconstruct", scan, "-o", tmp_path / "recon.h5", "--solver", "fbp")
    assert (code, errors) == (130, ["interrupted"])
    assert files(tmp_path) == ["recon.h5.parts", "scan.h5"]


def test_samples_are_stored_with_mean_and_spread(run: Run, scan: Path, tmp_path: Path) -> None:
    prior = write_prior(tmp_path)
    code, _, errors = run(
        "reconstruct", scan, "-o", tmp_path / "r.h5", "--prior", prior, "--steps", 2, "--samples", 3
    )
    assert (code, [line for line in errors if "error" in line]) == (0, [])
    result = read_result(tmp_path / "r.h5")
    assert result.samples is not None
    assert result.std is not None
    assert result.samples.shape == (3, *result.images.shape)
    assert torch.allclose(result.samples.mean(0), result.images, atol=1e-6)
    assert torch.allclose(result.samples.std(0), result.std, atol=1e-6)
    assert result.attributes["solver"]["sample"] is True
    code, _, errors = run("reconstruct", scan, "-o", tmp_path / "s.h5", "--solver", "fbp", "--samples", 3)
    assert code == 2
    assert "samples: fbp gives one image for a measurement" in errors[-1]


def test_compare(run: Run, tmp_path: Path) -> None:
    file, report = tmp_path / "sim.h5", tmp_path / "report.html"
    run("simulate", "sparse-view", "-o", file, "--size", 24, "--views", 20)
    code, lines, _ = run("compare", file, "--solvers", "fbp,cgls", "--set", "cgls.iterations=4", "-o", report)
    assert code == 0
    assert [line.split()[0] for line in lines] == ["solver", "fbp", "cgls", "report:"]
    assert report.read_text().startswith("<!doctype html>")
    code, lines, _ = run("compare", file, "--solvers", "fbp", "--json")
    assert json.loads("\n".join(lines))["solvers"][0]["psnr"] > 10
    for arguments, message in (
        (("--solvers", "fbp,flwer"), "no solver 'flwer'; did you mean 'flower'"),
        (
            ("--solvers", "fbp", "--set", "tv.weight=1"),
            "--set: expected SOLVER.KEY=VALUE with a solver of fbp",
        ),
        (("--solvers", "fbp", "-o", report), "the file exists already"),
        (("--reference", tmp_path / "none.h5"), "none.h5"),
    ):
        code, _, errors = run("compare", file, *arguments)
        assert code == 2
        assert message in errors[-1]


def test_data_outside_a_files_folder_are_read_only_when_allowed(run: Run, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with h5py.File(scan) as raw, h5py.File(tmp_path / "here" / "linked.h5", "w") as file:
        for name in raw:
            file[name] = h5py.ExternalLink("../scan.h5", f"/{name}")
    words = ("reconstruct", tmp_path / "here" / "linked.h5", "-o", tmp_path / "r.h5", "--solver", "fbp")
    code, _, errors = run(*words)
    assert code == 2
    assert "--allow-external-links" in errors[-1]
    assert run("info", words[1], "--allow-external-links")[0] == 0
    assert run(*words, "--allow-external-links")[0] == 0
    run("reconstruct", scan, "-o", tmp_path / "plain.h5", "--solver", "fbp")
    assert torch.equal(read_result(tmp_path / "r.h5").images, read_result(tmp_path / "plain.h5").images)
