"""Damaged files of every format: they are read, or refused in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctflow.cli import main
from ctflow.io.errors import ScanError
from tests.ctflow.io.fuzzing import TARGETS, attempt, damaged
from tests.ctflow.io.mutations import damage_bytes

ROOT = Path(__file__).parents[3]
SEED = 1


@pytest.fixture(scope="module")
def reports() -> dict[str, dict[str, Any]]:
    """What came of a few hundred damaged files, read in another process of limited memory."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    command = [sys.executable, "-m", "tests.ctflow.io.fuzzing", "--seed", str(SEED)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {report["format"]: report for report in found}


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused_in_one_line(name: str, reports: dict[str, dict[str, Any]]) -> None:
    report = reports[name]
    assert report["findings"] == []
    assert report["copies"] == TARGETS[name].copies
    # The damage hurts, and not always.
    assert 0 < report["readable"] < report["copies"]
    assert report["grown"] < 400  # MiB


@pytest.mark.parametrize("name", ["ctflow parallel", "NXtomo", "HelTomo 5", "FIPS 7.3", "DICOM-CT-PD"])
def test_the_command_refuses_them_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    valid, target = tmp_path / "valid", TARGETS[name]
    target.write(valid)
    refused = 0
    for k in range(8):
        copy = tmp_path / f"copy{k}"
        damaged(valid, copy, target, (SEED, k))
        try:
            problem = attempt(copy)
        except ScanError:
            problem = None
        with pytest.raises(SystemExit) as caught:
            main(["info", str(copy)])
        lines = capsys.readouterr().err.splitlines()
        if problem is None:
            assert (caught.value.code or 0, lines) == (0, [])
        elif caught.value.code:
            refused += 1
            assert (caught.value.code, len(lines)) == (2, 1)
            assert lines[0].startswith("error: ")
            assert lines[0].isprintable()
    assert refused


def test_damage_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    valid, target = tmp_path / "valid", TARGETS["ctflow parallel"]
    target.write(valid)
    for name, number in (("a", 3), ("b", 3), ("c", 4)):
        damaged(valid, tmp_path / name, target, (7, number))
    contents = [(tmp_path / name).read_bytes() for name in ("a", "b", "c")]
    assert contents[0] == contents[1] != contents[2]


def test_the_valid_file_stays_as_it_is(tmp_path: Path) -> None:
    valid, copy = tmp_path / "valid", tmp_path / "copy"
    valid.write_bytes(bytes(range(256)))
    copy.symlink_to(valid)
    damage_bytes(copy, np.random.default_rng(0))
    assert valid.read_bytes() == bytes(range(256))
    assert not copy.is_symlink()
