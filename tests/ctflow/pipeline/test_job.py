from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ctflow.pipeline.job import Job, chosen_slices, load_job, parse_slices

GIVEN = {"files": ["scan.h5"], "output": "recon.h5"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(
        "files: [a.h5, b.h5]\noutput: out\nsolver: tv\nsettings: {weight: 1e-1, iterations: 30}\n"
        "slices: 10:14\nviews: 45\nangles-unit: degrees\ncentre: 318.5\n"
    )
    return file


def test_defaults() -> None:
    job = load_job(None, GIVEN)
    assert (job.solver, job.prior_name(), job.seed, job.batch) == ("flower", "ct-small", 0, None)
    assert job.reading() == {}


def test_settings_file(config: Path) -> None:
    job = load_job(config, {})
    assert job.files == (config.parent / "a.h5", config.parent / "b.h5")
    assert job.output == config.parent / "out"
    assert job.settings == {"weight": 0.1, "iterations": 30}
    assert job.slices == "10:14"  # plain YAML reads a number in base 60
    assert job.reading() == {"views": 45, "centre": 318.5, "angles_unit": "degrees"}
    assert job.prior_name() is None


def test_command_line_wins_and_settings_merge(config: Path) -> None:
    job = load_job(config, {"views": 60, "slices": None, "settings": {"weight": "0.5"}, "files": ("c.h5",)})
    assert job.views == 60
    assert job.slices == "10:14"
    assert job.settings == {"weight": "0.5", "iterations": 30}
    assert job.files == (Path("c.h5"),)


def test_settings_of_another_solver_are_left_out(config: Path) -> None:
    job = load_job(config, {"solver": "cgls", "settings": {"iterations": 5}})
    assert (job.solver, job.settings) == ("cgls", {"iterations": 5})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "x"}, "files: expected a measured file, found none"),
        ({"files": [], "output": "x"}, "files: expected a measured file, found none"),
        ({"files": ["x"]}, r"output: expected a file or folder to write \(-o\), found none"),
        ({**GIVEN, "solver": "flowr"}, "no solver 'flowr'; did you mean 'flower'?"),
        ({**GIVEN, "settings": {"step": 3}}, "flower: no setting 'step'; did you mean 'steps'?"),
        ({**GIVEN, "settings": {"steps": 0}}, "flower: steps: expected at least 1, found 0"),
        ({**GIVEN, "batch": 0}, "batch: expected greater than or equal to 1, found 0"),
        ({**GIVEN, "angles_unit": "grad"}, "angles_unit: expected 'degrees' or 'radians', found 'grad'"),
        ({**GIVEN, "slices": "1-3"}, "slices: expected a:b or a number, found '1-3'"),
        ({**GIVEN, "seed": "one"}, "seed: expected an integer, .*, found 'one'"),
        ({**GIVEN, "output": 5}, "output: expected a path, found 5"),
        ({**GIVEN, "dask": {"adress": "tcp://a:1"}}, "dask: no key 'adress'; did you mean 'address'?"),
        ({**GIVEN, "centre": "left"}, "centre: expected a number, .*, found 'left'"),
    ],
)
def test_errors_are_one_line(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_job(None, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sovler: tv", "no key 'sovler'; did you mean 'solver'?"),
        ("- a", "expected keys and values, found list"),
        ("a: [", "expected YAML, found a mistake in line 1"),
        ("solver: tv\nsettings: 3", "settings: expected a dictionary, found 3"),
    ],
)
def test_errors_of_the_settings_file(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        load_job(file, GIVEN)
    assert "\n" not in str(caught.value)


def test_missing_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no\.yaml: cannot read the settings: No such file"):
        load_job(tmp_path / "no.yaml", GIVEN)


def test_a_job_is_frozen_and_strict() -> None:
    job = Job(**GIVEN)
    with pytest.raises(ValidationError):
        job.seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Job(**GIVEN, worker=3)


def test_outputs(tmp_path: Path) -> None:
    one = Job(files=["x/scan.h5"], output=tmp_path / "recon.h5")
    assert one.output_of(one.files[0]) == tmp_path / "recon.h5"
    several = Job(files=["a.h5", "b.h5"], output=tmp_path / "out")
    assert [several.output_of(file).name for file in several.files] == ["a_recon.h5", "b_recon.h5"]
    folder = Job(files=["a.h5"], output=tmp_path)
    assert folder.output_of(folder.files[0]) == tmp_path / "a_recon.h5"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2:4", [2, 3]),
        ("3", [3]),
        (":2", [0, 1]),
        ("3:", [3, 4]),
        ("-1", [4]),
        ("-2:", [3, 4]),
        (None, [0, 1, 2, 3, 4]),
    ],
)
def test_chosen_slices(text: str | None, expected: list[int]) -> None:
    assert list(chosen_slices(text, 5)) == expected


@pytest.mark.parametrize("text", ["5", "4:9", "3:2", "-6:"])
def test_slices_outside(text: str) -> None:
    with pytest.raises(ValueError, match="expected within 0:5"):
        chosen_slices(text, 5)


def test_parse_slices_errors() -> None:
    for text in ("", "a", "1:2:3", "x:2"):
        with pytest.raises(ValueError, match="expected a:b or a number"):
            parse_slices(text)


def test_samples_go_to_solvers_that_draw(tmp_path: Path) -> None:
    def settings(**values: Any) -> dict[str, Any]:
        return load_job(None, {"files": ["a.h5"], "output": "b.h5", "samples": 8, **values}).solver_settings

    assert settings() == {"sample": True, "samples": 8}
    assert settings(settings={"sample": "no"}) == {"sample": "no", "samples": 8}
    assert settings(solver="dds") == {"samples": 8}
    with pytest.raises(ValueError, match="samples: tv gives one image for a measurement; these draw: flower"):
        settings(solver="tv")
    with pytest.raises(ValueError, match="samples: expected greater than or equal to 2, found 1"):
        settings(samples=1)
    with pytest.raises(ValueError, match="no solver 'flowr'; did you mean 'flower'"):
        settings(solver="flowr")
