"""What a YAML file and the command line ask for, as one dictionary, not yet validated."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT_SOLVER = "flower"


def merged_settings(config: Path | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a YAML file, if there is one, and the values given on the command line, which win.

    Relative paths in the file start at the file's folder. Solver settings of the two are merged; those in the
    file are left out where the command line names another solver than the file.

    Raises
    ------
    ValueError
        In one line, for a file that cannot be read.
    """
    written = _read(config) if config is not None else {}
    given = {key: value for key, value in values.items() if value is not None}
    settings = given.pop("settings", {})
    written_for = written.get("solver", DEFAULT_SOLVER)
    if given.get("solver", written_for) == written_for:
        own = written.get("settings") or {}
        settings = {**own, **settings} if isinstance(own, Mapping) else own
    return {**written, **given, "settings": settings}


def _read(config: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML without numbers in base 60, which would read `slices: 10:14` as 614."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in rules if not tag.endswith((":int", ":float"))]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]+$"), list("-+0123456789"))
    number = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    try:
        # A subclass of the safe loader, which makes plain data only.
        written = yaml.load(config.read_text(), Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a text"
        raise ValueError(f"{config}: cannot read the settings: {reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not readable"
        raise ValueError(f"{config}: expected YAML, found a mistake{where}: {problem}") from error
    if not isinstance(written, dict):
        raise ValueError(f"{config}: expected keys and values, found {type(written).__name__}")
    job = {str(key).replace("-", "_"): value for key, value in written.items()}
    folder = config.parent
    if isinstance(files := job.get("files"), list | str):
        job["files"] = [_beside(folder, word) for word in ([files] if isinstance(files, str) else files)]
    if isinstance(output := job.get("output"), str):
        job["output"] = folder / output
    if isinstance(prior := job.get("prior"), str) and (folder / f"{prior}.json").is_file():
        job["prior"] = str(folder / prior)
    if isinstance(maps := job.get("coil_maps"), str) and (folder / maps).exists():
        job["coil_maps"] = str(folder / maps)
    return job


def _beside(folder: Path, word: Any) -> Any:
    """A name, a pattern or a list such as ``@files.txt`` that starts at a folder."""
    if not isinstance(word, str):
        return word
    return f"@{folder / word[1:]}" if word.startswith("@") else str(folder / word)
