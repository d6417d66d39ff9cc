"""What the page on extending says, done: its own blocks of code run."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ctflow import FlowPrior, InverseProblem, load_prior, make_solver, save_prior
from ctflow.cli import main
from ctflow.io.results import read_result
from ctflow.solvers import CGLS, FBP
from operators import GaussianNoise
from tests.ctflow.io.measured import write_dxchange
from tests.ctflow.priors import write_prior

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SOLVER, PRIOR, OPERATOR = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PLACE = "annealed:Annealed"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the page's solver, a scan and a prior."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "annealed.py").write_text(SOLVER)
    write_dxchange(tmp_path / "scan.h5", noise=True)
    write_prior(tmp_path)
    yield tmp_path
    for name in ("annealed", "my_priors"):
        sys.modules.pop(name, None)


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return int(caught.value.code or 0)


def test_the_solver_runs_beside_ours(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("compare", "scan.h5", "--solvers", f"cgls,{PLACE}", "--set", f"{PLACE}.steps=3")
    assert run(*words, "--prior", "tiny", "--slices", "1", "--json") == 0
    _, own = json.loads(capsys.readouterr().out)["solvers"]
    assert own["solver"] == {"name": "annealed", "steps": 3}
    assert own["evaluations"]["network"] == 3


def test_a_job_of_it_goes_on_only_while_the_file_is_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("reconstruct", "scan.h5", "-o", "r.h5", "--solver", PLACE, "--prior", "tiny", "--set", "steps=2")
    assert run(*words, "--executor", "processes", "--workers", "1") == 0
    result = read_result("r.h5")
    assert result.attributes["solver"] == {"name": "annealed", "steps": 2}
    assert torch.isfinite(result.images).all()
    capsys.readouterr()
    assert run(*words, "--executor", "processes", "--workers", "1") == 0
    assert "there already" in capsys.readouterr().out
    (folder / "annealed.py").write_text(SOLVER + "\n# Another.\n")
    assert run(*words, "--executor", "processes", "--workers", "1") == 2
    assert "made with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("missing:Own", "missing:Own: expected a module 'missing', found none"),
        ("annealed:Absent", "expected a dataclass of settings with a method __call__"),
        ("annealed:torch", "expected a dataclass of settings with a method __call__"),
        ("ctflow.solvers.solver:Step", "expected a dataclass of settings with a method __call__"),
    ],
)
def test_what_is_no_solver_is_said(folder: Path, place: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        make_solver(place)


def test_a_module_that_lacks_something_says_what(folder: Path) -> None:
    (folder / "broken.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(ModuleNotFoundError, match="nowhere_to_be_found"):
        make_solver("broken:Own")


def test_settings_of_an_own_solver_are_checked(folder: Path) -> None:
    with pytest.raises(ValueError, match="annealed: no setting 'step'; did you mean 'steps'"):
        make_solver(PLACE, {"step": 3})


def test_a_job_knows_the_weights_of_an_own_prior(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "my_priors.py").write_text(
        "import ctflow\n\n\ndef lungs():\n    return ctflow.load_prior('tiny')\n"
    )
    words = ("reconstruct", "scan.h5", "-o", "r.h5", "--slices", "0", "--set", "steps=1")
    assert run(*words, "--prior", "my_priors:lungs") == 0
    own = read_result("r.h5")
    assert run(*words[:3], "ours.h5", *words[4:], "--prior", "tiny") == 0
    assert torch.equal(own.images, read_result("ours.h5").images)
    assert run(*words, "--prior", "my_priors:lungs") == 0
    assert "there already" in capsys.readouterr().out
    prior = load_prior("tiny")
    with torch.no_grad():
        next(prior.parameters()).add_(0.1)
    save_prior(prior, "tiny")
    assert run(*words, "--prior", "my_priors:lungs") == 2
    assert "made with other settings" in capsys.readouterr().err
    with pytest.raises(ValueError, match="expected a function that gives a FlowPrior"):
        load_prior("annealed:dataclass")


def test_the_prior_is_one() -> None:
    names: dict[str, Any] = {"network": torch.nn.Identity()}
    exec(PRIOR.replace("network,", "lambda x, t: x,"), names)
    prior = names["prior"]
    assert isinstance(prior, FlowPrior)
    x = torch.randn(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    # The noise that is predicted is x itself: x1 = (x - (1 - t) x) / t = x.
    assert torch.allclose(prior.destination(x, 0.25), x, atol=1e-5)


def test_the_operator_is_one() -> None:
    names: dict[str, Any] = {}
    exec(OPERATOR, names)
    operator = names["Subsampling"](6, 9)
    x, y = torch.rand(3, 6, 9), torch.rand(3, 6, 5)
    assert torch.allclose((operator(x) * y).sum(), (x * operator.H(y)).sum())
    truth = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(0))
    problem = InverseProblem(operator, operator(truth), GaussianNoise(0.01))
    image = CGLS(iterations=2)(problem).image
    assert torch.allclose(image[..., ::2], truth[..., ::2], atol=1e-5)
    assert not image[..., 1::2].any()
    assert FBP.needs_prior is CGLS.needs_prior is False
