"""What to do: validated settings of a reconstruction, from a YAML file and the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ctflow.pipeline.files import measured_files
from ctflow.pipeline.settings import DEFAULT_SOLVER, merged_settings
from ctflow.solvers import SOLVERS, make_solver, solver_class
from ctflow.solvers.solver import nearest

DEFAULT_PRIORS = {"CT": "ct-small", "MR": "mr-small"}


class DaskSettings(BaseModel):
    """Where a Dask cluster is, or how one is made.

    Attributes
    ----------
    address
        Of a scheduler that is running, such as "tcp://node:8786".
    slurm
        Keyword arguments of dask_jobqueue.SLURMCluster, such as queue, cores, memory, walltime. Ask for one
        GPU in `job_extra_directives`, and say `device: cuda`, for one process with one GPU in each SLURM job.
    dashboard
        The port of the dashboard of a cluster on this machine; 0 takes a free one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = None
    slurm: dict[str, Any] | None = None
    dashboard: int = Field(default=0, ge=0, le=65535)


class Job(BaseModel):
    """One or more measured files, how to read them, and how to reconstruct them.

    Attributes
    ----------
    files
        Measured files; also patterns, folders, and lists of them, see `measured_files`.
    output
        The file to write for one input; a folder for several, or where it has no suffix.
    solver, settings
        A solver's name, or the place of one of your own such as "annealed:Annealed", see
        `ctflow.solvers.solver_class`; and the settings that differ from its defaults.
    samples
        Independent draws of every slice, at least 2: the image is then their mean, and standard deviation
        and samples are stored, too. A solver that draws on request (`sample`) does so unless `settings` say
        otherwise. Whether the spread is to be read as uncertainty is in the solver's docstring.
    prior
        A bundled prior's name or a path; "ct-small" or "mr-small" for solvers that need one. Solvers
        without a prior ignore it.
    slices
        "a:b", "a:", ":b" or a single number; all unless given. Negative numbers count from the end.
    batch
        Slices computed at a time; as many as the memory is good for unless given, 4 at most on a CPU. It
        changes memory and speed, and the result by rounding only.
    seed
        Of the randomness; every slice has its own, derived from this and its number.
    device
        Where to compute, such as "cpu" or "cuda"; "auto" takes a GPU where there is one on this machine,
        whatever the workers of a cluster have.
    precision
        Of the network: "bfloat16" is faster where the hardware has it.
    overwrite
        Replace an output that other settings, another version or another input made.
    keep_going
        Begin although some of the files cannot be read.
    retry_failed
        Compute the slices again that failed before.
    executor
        "serial"; "processes" of this machine; or "dask", a cluster of them.
    workers
        How many of the last two.
    threads
        Of each process. The results of networks depend on it by rounding. As many as torch takes unless given
        where there is one process, which are all cores, and 1 where there are several.
    dask
        For "dask": `address` of a scheduler that is running, or `slurm`, settings of a
        dask_jobqueue.SLURMCluster; a cluster on this machine without.
    views
        Use this many of the angles, evenly spaced.
    centre
        Where the rotation axis falls on the detector, in bins; what the file says, or searched for.
    pixel_size
        Of the image, in mm.
    size
        Of the image in pixels, one number for height and width.
    angles_unit
        "degrees" or "radians", where the file does not say or is wrong.
    photons
        Detected per bin without an object, where the file does not tell.
    mode
        Of 2DeteCT, which of its three.
    remove_stripes
        Reduce rings by evening out the detector's bins.
    coil_maps, coils, undersample, noise_std
        Of k-space; see `ctflow.io.scan.open_scan`.
    rebin
        Of helical scans: reconstruct slice by slice, from fan beams, instead of a volume.
    allow_external_links
        Read data that a file keeps in others outside its folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    files: tuple[Path, ...] = Field(min_length=1)
    output: Path
    solver: str = DEFAULT_SOLVER
    settings: dict[str, Any] = Field(default_factory=dict)
    samples: int | None = Field(default=None, ge=2)
    prior: str | None = None
    slices: str | None = None
    batch: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    overwrite: bool = False
    keep_going: bool = False
    retry_failed: bool = False
    executor: Literal["serial", "processes", "dask"] = "serial"
    workers: int | None = Field(default=None, ge=1)
    threads: int | None = Field(default=None, ge=1)
    dask: DaskSettings = Field(default_factory=DaskSettings)
    views: int | None = Field(default=None, ge=1)
    centre: float | None = None
    pixel_size: float | None = Field(default=None, gt=0)
    size: int | None = Field(default=None, ge=1)
    angles_unit: Literal["degrees", "radians"] | None = None
    photons: float | None = Field(default=None, gt=0)
    mode: int | None = None
    remove_stripes: bool = False
    coil_maps: str | None = None
    coils: int | None = Field(default=None, ge=1)
    undersample: str | None = None
    noise_std: float | None = Field(default=None, gt=0)
    rebin: bool = False
    allow_external_links: bool = False

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        words = (value,) if isinstance(value, str | Path) else value
        named = isinstance(words, list | tuple) and all(isinstance(word, str | Path) for word in words)
        return measured_files(words) if named else words

    @field_validator("slices", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        # YAML reads 3 as a number, and 10:14 in base 60 as one: 10:14 is 614.
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return value

    @field_validator("slices")
    @classmethod
    def _slices_make_sense(cls, value: str | None) -> str | None:
        if value is not None:
            parse_slices(value)
        return value

    @model_validator(mode="after")
    def _solver_exists(self) -> Job:
        make_solver(self.solver, self.solver_settings)
        return self

    def prior_name(self, modality: str = "CT") -> str | None:
        """The prior to load: the one asked for, the modality's where the solver needs one, or None."""
        return (self.prior or DEFAULT_PRIORS[modality]) if needs_prior(self.solver) else None

    @property
    def fixed_threads(self) -> int:
        """How many threads each process computes in."""
        if self.threads is not None:
            return self.threads
        return torch.get_num_threads() if self.executor == "serial" else 1

    @property
    def processes(self) -> int:
        """How many processes compute; of clusters that grow, those that are asked for."""
        if self.executor == "serial":
            return 1
        return self.workers or (1 if self.elsewhere else _cores())

    @property
    def elsewhere(self) -> bool:
        """Whether other machines than this one may compute."""
        return self.executor == "dask" and (self.dask.address is not None or self.dask.slurm is not None)

    @property
    def solver_settings(self) -> dict[str, Any]:
        """`settings`, and what `samples` adds to them."""
        if self.samples is None:
            return self.settings
        if not can_sample(self.solver):
            able = ", ".join(name for name in SOLVERS if can_sample(name))
            raise ValueError(f"samples: {self.solver} gives one image for a measurement; these draw: {able}")
        draws = "sample" in _settings_of(self.solver)
        return {**({"sample": True} if draws else {}), **self.settings, "samples": self.samples}

    def reading(self) -> dict[str, Any]:
        """The keyword arguments of `open_scan` that differ from its defaults."""
        of_ct = ("views", "centre", "pixel_size", "size", "angles_unit", "photons", "mode")
        names = (*of_ct, "coil_maps", "coils", "undersample", "noise_std")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        asked = {
            name: True for name in ("remove_stripes", "rebin", "allow_external_links") if getattr(self, name)
        }
        return {**given, **asked}

    def output_of(self, file: Path) -> Path:
        """Where the reconstruction of one of the files goes."""
        if not self.into_folder:
            return self.output
        name = file.resolve().name if file.is_dir() else file.stem
        return self.output / f"{name}_recon.h5"

    @property
    def into_folder(self) -> bool:
        """Whether the output is a folder of files."""
        # A shell completes folders with a slash, which paths drop: what has no suffix is a folder.
        return len(self.files) > 1 or not self.output.suffix or self.output.is_dir()


def load_job(config: Path | None, values: Mapping[str, Any]) -> Job:
    """The job of a YAML file and of values from the command line, which win; see `merged_settings`.

    Raises
    ------
    ValueError
        In one line: the key, what was expected and what was found.
    """
    return job_of(merged_settings(config, values), config)


def job_of(merged: Mapping[str, Any], config: Path | None = None) -> Job:
    """The job of settings that were merged already, those of a file among them; see `load_job`."""
    for key in merged:
        if key not in Job.model_fields:
            raise ValueError(f"{config}: no key {key!r}; {nearest(str(key), Job.model_fields)}")
    try:
        return Job(**merged)
    except ValidationError as error:
        raise ValueError(_one_line(error)) from error


def _cores() -> int:
    """Cores that this process may use, which a queue or a container may have made fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def needs_prior(solver: str) -> bool:
    """Whether the solver of that name works with a prior."""
    return bool(getattr(solver_class(solver), "needs_prior", True))


def can_sample(solver: str) -> bool:
    """Whether the solver of that name can give several samples."""
    return "samples" in _settings_of(solver)


def _settings_of(solver: str) -> set[str]:
    return {field.name for field in fields(solver_class(solver))}


def parse_slices(text: str) -> slice:
    """The slice of "a:b", "a:", ":b", ":" or "a"; ValueError for anything else."""
    first, colon, last = text.partition(":")
    try:
        start, stop = (int(part) if part.strip() else None for part in (first, last))
    except ValueError:
        start, stop, colon, first = None, None, "", ""
    if not colon:
        if not first.strip():
            raise ValueError(f"slices: expected a:b or a number, found {text!r}")
        stop = (start or 0) + 1 or None
    return slice(start, stop)


def chosen_slices(text: str | None, count: int) -> range:
    """The slices that `text` takes of `count`; ValueError where that is none or outside."""
    if text is None:
        return range(count)
    part = parse_slices(text)
    chosen = range(count)[part]
    outside = any(end is not None and not -count <= end <= count for end in (part.start, part.stop))
    if outside or not chosen:
        raise ValueError(f"slices: expected within 0:{count}, found {text!r}")
    return chosen


def _one_line(error: ValidationError) -> str:
    """The first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    place = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "missing" or first["type"] == "too_short":
        what = {"files": "a measured file", "output": "a file or folder to write (-o)"}
        return f"{place}: expected {what.get(place, 'a value')}, found none"
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        return f"{place}: no key {key!r}; {nearest(key, DaskSettings.model_fields)}"
    cause = first.get("ctx", {}).get("error")
    if cause is not None:
        return str(cause)
    if first["type"] == "path_type":
        return f"{place}: expected a path, found {first['input']!r}"
    expected = first["msg"].removeprefix("Input should be ").replace("a valid i", "an i")
    expected = expected.replace("a valid ", "a ")
    return f"{place}: expected {expected}, found {first['input']!r}"
