"""The `ctflow` command. What it needs is imported by the command that needs it, so that `--help` is quick."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctflow import __version__
from ctflow.io.errors import printable

if TYPE_CHECKING:
    from ctflow.pipeline.running import Outcome

app = typer.Typer(
    name="ctflow",
    help="CT and MR images from scanner measurements, with exact physics and flow-matching priors.",
    epilog="Exit codes: 0 done, 1 some slices failed, 2 bad usage or bad input.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# What typer raises for bad usage; its exact home differs between releases.
_UsageError: type[Exception] = typer.BadParameter.__bases__[0]
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit; errors are one line."""
    # Torch's idle threads would spin, and take the cores from the threads of the projectors.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_streams()
    command = typer.main.get_command(app)
    try:
        given = None if arguments is None else list(arguments)
        code = command.main(args=given, prog_name="ctflow", standalone_mode=False)
    except _UsageError as error:
        code = _fail(getattr(error, "format_message", error.__str__)())
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        sys.stderr.close()
        code = 0
    except ConnectionError as error:
        _fail(error)
        code = 1
    except (ValueError, OSError) as error:
        code = _fail(error)
    except ImportError as error:
        code = _fail(f"{error}; see the README on how to install what is missing")
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    if code == _INTERRUPTED:  # typer returns it for an interrupt that it sees first
        _complain("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Put the null device where a process was started without standard streams, as by some schedulers.

    Files would take their numbers, and be written to by whatever writes to them.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            os.set_inheritable(null := os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, os.fdopen(null, "w" if number else "r"))


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"ctflow {__version__}")
        raise typer.Exit


Files = Annotated[
    list[Path] | None, typer.Argument(metavar="FILES...", help="Measured files, or folders of them.")
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The file to write; a folder for several, or without suffix."),
]
Centre = Annotated[float | None, typer.Option(help="Rotation axis on the detector, in bins.")]
PixelSize = Annotated[float | None, typer.Option(help="Of the image, in mm.")]
Size = Annotated[int | None, typer.Option(help="Height and width of the image, in pixels.")]
AnglesUnit = Annotated[
    str | None, typer.Option(help="degrees or radians, where the file is silent or wrong.")
]
Photons = Annotated[float | None, typer.Option(help="Per bin without an object, where the file is silent.")]
RemoveStripes = Annotated[bool | None, typer.Option("--remove-stripes", help="Reduce ring artefacts.")]
Links = Annotated[
    bool | None,
    typer.Option("--allow-external-links", help="Read data that a file keeps outside its folder."),
]
Rebin = Annotated[bool | None, typer.Option("--rebin", help="Of helical scans: fan beams, slice by slice.")]
Mode = Annotated[int | None, typer.Option(help="Of 2DeteCT: 1, 2 or 3.")]
CoilMaps = Annotated[
    str | None, typer.Option(help="Of k-space: espirit (default), adaptive, none, or a file of maps.")
]
Coils = Annotated[int | None, typer.Option(help="Of k-space: compress to so many virtual coils.")]
Undersample = Annotated[
    str | None,
    typer.Option(
        help="Of k-space: leave samples out; equispaced, random, magic or poisson, such as random:4."
    ),
]
NoiseStd = Annotated[float | None, typer.Option(help="Of k-space, of a complex sample.")]
Samples = Annotated[
    int | None, typer.Option(help="Draws of each slice: stores mean, standard deviation and samples.")
]
Prior = Annotated[
    str | None,
    typer.Option(help="A bundled prior's name, such as ct-small, a path, or your own, module:function."),
]
Slices = Annotated[str | None, typer.Option(help="a:b, or one number; all unless given.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, or auto (default).")]
Seed = Annotated[int | None, typer.Option(help="Of the randomness; 0 unless given.")]
Views = Annotated[int | None, typer.Option(help="Use this many of the angles, evenly spaced.")]


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A measured file, or a folder of one scan.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    views: Views = None,
    centre: Centre = None,
    pixel_size: PixelSize = None,
    size: Size = None,
    angles_unit: AnglesUnit = None,
    photons: Photons = None,
    mode: Mode = None,
    coil_maps: CoilMaps = None,
    coils: Coils = None,
    undersample: Undersample = None,
    noise_std: NoiseStd = None,
    rebin: Rebin = None,
    allow_external_links: Links = None,
) -> None:
    """Show what a measured file holds, what is assumed about it, and what is missing."""
    from ctflow.io.scan import open_scan
    from ctflow.pipeline.job import load_job

    given: dict[str, Any] = {"views": views, "centre": centre, "pixel_size": pixel_size, "size": size}
    given |= {"angles_unit": angles_unit, "photons": photons, "mode": mode, "rebin": rebin}
    given["allow_external_links"] = allow_external_links
    given |= {"coil_maps": coil_maps, "coils": coils, "undersample": undersample, "noise_std": noise_std}
    job = load_job(None, {"files": [file], "output": "-", "solver": "fbp", **given})
    described = open_scan(file, **job.reading()).describe()
    typer.echo(json.dumps(described, indent=2) if as_json else "\n".join(_lines(described)))


@app.command()
def reconstruct(
    files: Files = None,
    output: Output = None,
    solver: Annotated[
        str | None,
        typer.Option(help="flower (default), fbp, tv, wavelet, cg-sense, ...; or your own, module:Class."),
    ] = None,
    prior: Prior = None,
    views: Views = None,
    slices: Slices = None,
    device: Device = None,
    precision: Annotated[
        str | None, typer.Option(help="Of the network: float32 (default) or bfloat16.")
    ] = None,
    seed: Seed = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the solver; repeatable."),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Short for --set steps=N.")] = None,
    samples: Samples = None,
    batch: Annotated[int | None, typer.Option(help="Slices computed at a time; 4 unless given.")] = None,
    config: Annotated[Path | None, typer.Option(help="A YAML file with these settings as keys.")] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Replace an output made with other settings.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check every file, and say what would be done.")
    ] = False,
    keep_going: Annotated[
        bool | None, typer.Option("--keep-going", help="Begin although some files cannot be read.")
    ] = None,
    retry_failed: Annotated[
        bool | None, typer.Option("--retry-failed", help="Compute failed slices again.")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="serial (default), processes or dask.")] = None,
    workers: Annotated[int | None, typer.Option(help="Of processes or dask.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of each process.")] = None,
    dask_address: Annotated[str | None, typer.Option(help="Of a scheduler that is running.")] = None,
    centre: Centre = None,
    pixel_size: PixelSize = None,
    size: Size = None,
    angles_unit: AnglesUnit = None,
    photons: Photons = None,
    mode: Mode = None,
    remove_stripes: RemoveStripes = None,
    coil_maps: CoilMaps = None,
    coils: Coils = None,
    undersample: Undersample = None,
    noise_std: NoiseStd = None,
    rebin: Rebin = None,
    allow_external_links: Links = None,
) -> None:
    """Reconstruct measured files, each into an HDF5 file with a PNG preview beside it.

    Stopped in whatever way, the same command goes on where it was.
    """
    from ctflow.pipeline.settings import merged_settings

    given: dict[str, Any] = {"files": files or None, "output": output, "solver": solver, "prior": prior}
    given |= {"settings": _settings(settings or [], steps), "device": device, "precision": precision}
    given |= {
        "slices": slices,
        "seed": seed,
        "samples": samples,
        "batch": batch,
        "overwrite": overwrite,
        "views": views,
        "centre": centre,
    }
    given |= {"pixel_size": pixel_size, "size": size, "angles_unit": angles_unit, "photons": photons}
    given |= {"keep_going": keep_going, "retry_failed": retry_failed, "executor": executor}
    given |= {"workers": workers, "threads": threads, "mode": mode, "remove_stripes": remove_stripes}
    given |= {"rebin": rebin, "coil_maps": coil_maps, "coils": coils}
    given["allow_external_links"] = allow_external_links
    given |= {"undersample": undersample, "noise_std": noise_std}
    given["dask"] = None if dask_address is None else {"address": dask_address}
    merged = merged_settings(config, given)

    # Before anything that imports torch, which would take longer than all else for a job that is finished.
    from ctflow.pipeline.receipt import finished_before, keep_receipt, request_of, states_beside

    request = None if dry_run else request_of(merged)
    if (known := finished_before(request)) is not None:
        for one in known:
            _say_made(one.output, one.picture, one.slices, "there already")
        return

    from ctflow.pipeline.job import job_of

    job = job_of(merged, config)

    if dry_run:
        from ctflow.pipeline.checks import checked
        from ctflow.pipeline.estimate import estimated

        # All that is wrong is of interest.
        plan = checked(job.model_copy(update={"keep_going": True}), dry_run=True)
        for line in estimated(job, plan):
            typer.echo(printable(line))
        raise typer.Exit(2 if plan.refused else 0)

    from ctflow.pipeline.interruption import interruptions
    from ctflow.pipeline.running import run
    from ctflow.progress import shown

    beside = states_beside(job)
    with interruptions() as stop, shown() as progress:
        outcomes = run(job, progress, lambda: bool(stop))
    for outcome in outcomes:
        _say(outcome)
    left = len(outcomes) < len(job.files) or any(outcome.unfinished for outcome in outcomes)
    # A signal while the last block was computed has stopped nothing.
    if stop and left:
        _complain(f"stopped; to go on: {shlex.join(['ctflow', *sys.argv[1:]])}")
        sys.exit(128 + stop.signal)
    if any(outcome.failed for outcome in outcomes if outcome.output is not None):
        again = [word for word in sys.argv[1:] if word not in ("--retry-failed", "--overwrite")]
        _complain(f"failed slices again: {shlex.join(['ctflow', *again, '--retry-failed'])}")
    if any(outcome.failed or outcome.unfinished for outcome in outcomes):
        raise typer.Exit(1)
    keep_receipt(request, beside, outcomes)


def _say(outcome: Outcome) -> None:
    """What became of one file."""
    for index, reason in outcome.failed.items():
        _complain(printable(f"{outcome.file}: slice {index} failed: {reason}"))
    if outcome.unfinished is not None and outcome.slices == 0:
        _complain(printable(f"{outcome.file}: left out: {outcome.unfinished}"))
    elif outcome.unfinished is not None:
        there = f"{outcome.computed} of {_counted(outcome.slices, 'slice')} computed now"
        _complain(printable(f"{outcome.file}: not finished, {there}: {outcome.unfinished}"))
    if outcome.output is not None:
        done = outcome.slices - len(outcome.failed)
        how = f"in {outcome.seconds:.1f} s" if outcome.computed else "there already"
        _say_made(outcome.output, outcome.picture, done, how)


def _say_made(output: Path, picture: Path | None, slices: int, how: str) -> None:
    typer.echo(printable(f"{output}: {_counted(slices, 'slice')} {how}"))
    typer.echo(printable(f"{picture}"))


@app.command()
def status(
    path: Annotated[Path, typer.Argument(metavar="OUT", help="A reconstruction file, or a folder of them.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show how far a reconstruction is: done, failed and remaining slices, running or not."""
    from ctflow.pipeline.status import status_of

    found = status_of(path)
    if as_json:
        lines = [
            {
                "output": str(one.output),
                "slices": one.slices,
                "done": one.done,
                "failed": one.failed,
                "remaining": one.remaining,
                "state": one.state,
            }
            for one in found
        ]
        typer.echo(json.dumps(lines, indent=2))
        return
    for one in found:
        counts = f"{one.done} of {_counted(one.slices, 'slice')} done, {len(one.failed)} failed"
        typer.echo(printable(f"{one.output}: {one.state}, {counts}, {one.remaining} remaining"))
        for index, reason in one.failed.items():
            typer.echo(f"  slice {index}: {printable(reason)}")


@app.command()
def compare(
    file: Annotated[Path, typer.Argument(help="A measured file.")],
    solvers: Annotated[str, typer.Option(help="Names, separated by commas.")] = "fbp,tv,flower",
    reference: Annotated[
        Path | None, typer.Option(help="A file with the true images; the scan's own truth unless given.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The HTML report to write.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers for programs, not the table.")] = False,
    prior: Prior = None,
    samples: Samples = None,
    slices: Slices = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SOLVER.KEY=VALUE", help="A setting of a solver; repeatable."),
    ] = None,
    seed: Seed = None,
    device: Device = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing report.")] = False,
    views: Views = None,
    centre: Centre = None,
    pixel_size: PixelSize = None,
    size: Size = None,
    angles_unit: AnglesUnit = None,
    photons: Photons = None,
    mode: Mode = None,
    coil_maps: CoilMaps = None,
    coils: Coils = None,
    undersample: Undersample = None,
    noise_std: NoiseStd = None,
    allow_external_links: Links = None,
) -> None:
    """Reconstruct one file with several solvers: quality, misfit, time and pictures side by side."""
    from ctflow.io.atomic import check_writable
    from ctflow.pipeline.compare import compare as run_comparison
    from ctflow.progress import shown
    from ctflow.report_page import table, write_page

    if output is not None:
        check_writable(output, overwrite, sources=[file])
    given: dict[str, Any] = {"prior": prior, "samples": samples, "slices": slices, "seed": seed}
    given |= {"device": device, "views": views, "centre": centre, "pixel_size": pixel_size, "size": size}
    given |= {"angles_unit": angles_unit, "photons": photons, "mode": mode}
    given |= {"coil_maps": coil_maps, "coils": coils, "undersample": undersample, "noise_std": noise_std}
    given["allow_external_links"] = allow_external_links
    chosen: dict[str, dict[str, Any]] = {name.strip(): {} for name in solvers.split(",") if name.strip()}
    for name, value in _settings(settings or [], None).items():
        # The key has its hyphens replaced; a place such as lab.solvers:Own has dots before the last.
        word, _, key = name.rpartition(".")
        solver = next((one for one in chosen if one.replace("-", "_") == word), None)
        if solver is None:
            known = ", ".join(chosen)
            raise ValueError(f"--set: expected SOLVER.KEY=VALUE with a solver of {known}, found {name!r}")
        chosen[solver][key] = value
    with shown() as progress:
        comparison = run_comparison(file, chosen, given, reference=reference, progress=progress)
    typer.echo(json.dumps(comparison.to_dict(), indent=2) if as_json else "\n".join(table(comparison)))
    if output is not None:
        write_page(comparison, output)
        if not as_json:
            typer.echo(f"report: {output}")
    raise typer.Exit(1 if any(row.failed for row in comparison.rows) else 0)


@app.command()
def simulate(
    preset: Annotated[
        str,
        typer.Argument(
            help="lodopab-like, sparse-view, limited-angle, interior, metal, or cone, which is a volume; "
            "mri-equispaced-4x, mri-random-4x, mri-random-8x, mri-poisson-8x, mri-single-coil-4x."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    number: Annotated[int, typer.Option("-n", min=1, help="Slices, each of another body.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of bodies and noise.")] = 0,
    views: Annotated[int | None, typer.Option(min=1, help="Angles, in place of the preset's.")] = None,
    photons: Annotated[float | None, typer.Option(help="Per bin without an object.")] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Pixels along each side, of the same bodies.")
    ] = None,
    acceleration: Annotated[
        float | None, typer.Option(min=1, help="Of k-space: one sample in so many.")
    ] = None,
    coils: Annotated[int | None, typer.Option(min=1, help="Of k-space: around the body.")] = None,
    noise_std: Annotated[
        float | None, typer.Option(help="Of k-space, of a sample; the brightest tissue has 1.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
) -> None:
    """Simulate a scan of imagined bodies, none of which a bundled prior was trained on."""
    from ctflow.pipeline.simulation import simulate_file

    given = {"views": views, "photons": photons, "size": size, "acceleration": acceleration}
    given |= {"coils": coils, "noise_std": noise_std}
    typer.echo(simulate_file(preset, output, number=number, seed=seed, given=given, overwrite=overwrite))


@app.command()
def train(
    config: Annotated[
        Path, typer.Argument(metavar="TRAIN.YAML", help="What to train, on what, for how long.")
    ],
    restart: Annotated[bool, typer.Option("--restart", help="Leave an earlier checkpoint aside.")] = False,
) -> None:
    """Train a prior on your own images; run it again to resume."""
    import logging

    from ctflow.flows.training import train_from_yaml
    from ctflow.progress import training_lines

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    prior = train_from_yaml(config, resume=not restart, progress=training_lines())
    typer.echo(f"prior: {prior}")


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A reconstruction file.")],
    target: Annotated[
        Path, typer.Argument(help="x.nii.gz or x.nii, x.tif, or a folder of DICOM files to be.")
    ],
    what: Annotated[str, typer.Option(help="reconstruction, std or samples.")] = "reconstruction",
    kind: Annotated[str | None, typer.Option("--format", help="nifti, dicom or tiff; by name.")] = None,
    hounsfield: Annotated[bool, typer.Option("--hounsfield", help="Attenuation in HU, as in DICOM.")] = False,
    water: Annotated[float | None, typer.Option(help="Its attenuation in 1/mm; 0.02 unless known.")] = None,
    pixel_size: Annotated[float | None, typer.Option(help="In mm, where the file does not know it.")] = None,
    slice_distance: Annotated[float | None, typer.Option(help="In mm, likewise.")] = None,
    axes: Annotated[
        str, typer.Option(help="Where x (right), y (up), z (next slice) point to in the patient.")
    ] = "LAI",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing target.")] = False,
) -> None:
    """Write a reconstruction as NIfTI, as a DICOM series or as TIFF."""
    from ctflow.io.export import export_result

    options: dict[str, Any] = {"pixel_size": pixel_size, "slice_distance": slice_distance, "axes": axes}
    options |= {"hounsfield": hounsfield, "water": water}
    done = export_result(file, target, kind=kind, what=what, overwrite=overwrite, **options)
    for note in done.notes:
        typer.echo(printable(note))
    typer.echo(f"{done.target}: {_counted(done.slices, 'slice')}, {done.kind}, in {done.unit or 'no unit'}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="The picture to make.")] = Path("demo.png"),
    mri: Annotated[bool, typer.Option("--mri", help="Undersampled k-space of 8 coils instead.")] = False,
) -> None:
    """Compare FBP, TV and FLOWER on a simulated low-dose scan of 60 views; with --mri, solvers for MRI."""
    from ctflow.demo import demo as run_demo
    from ctflow.demo import demo_mri

    (demo_mri if mri else run_demo)(path=output, say=typer.echo)


def _settings(pairs: Sequence[str], steps: int | None) -> dict[str, Any]:
    """Solver settings from KEY=VALUE; the solver checks names and types."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ValueError(f"--set: expected KEY=VALUE, found {pair!r}")
        settings[key.strip().replace("-", "_")] = value.strip()
    return settings if steps is None else {**settings, "steps": steps}


def _lines(described: Mapping[str, Any]) -> list[str]:
    """Plain data as aligned lines for a person; several texts take a line each."""
    width = max(len(key) for key in described)
    lines = []
    for key, value in described.items():
        texts = value if isinstance(value, list) and any(isinstance(item, str) for item in value) else [value]
        for k, item in enumerate(texts):
            name = key.replace("_", " ") if k == 0 else ""
            lines.append(f"{name:<{width}}  {_words(item)}")
    return lines


def _words(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_words(item) for item in value) or "none"
    return printable(str(value))


def _complain(line: str) -> None:
    """Write a line on the standard error; none where that cannot be written, which changes no exit code."""
    with suppress(OSError):
        typer.echo(line, err=True)


def _fail(error: object) -> int:
    _complain(f"error: {printable(' '.join(str(error).split()))}")
    return 2


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
