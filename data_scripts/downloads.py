"""Large public files: what there is and how large, fetched with resume, checked, and unpacked.

Standard library only. A file appears under its own name when it is complete and its checksum is right; until
then it is NAME.part, from whose end the next run goes on.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ZENODO = "https://zenodo.org"
_CHUNK = 1 << 20
_TIMEOUT = 60.0
_TRIES, _PAUSE, _LONGEST_PAUSE = 8, 5.0, 60.0
# Answers after which asking again may help.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
Say = Callable[[str], object]


class FetchError(Exception):
    """Something that cannot be fetched, in one line."""


@dataclass(frozen=True)
class Remote:
    """A file on a server.

    Attributes
    ----------
    name
        Under which it is kept.
    url
        Where it is.
    size
        In bytes, or None where the server does not say.
    md5, sha256
        In hexadecimal, or None.
    """

    name: str
    url: str
    size: int | None = None
    md5: str | None = None
    sha256: str | None = None


def zenodo_files(record: int, server: str = ZENODO) -> list[Remote]:
    """Return the files of a Zenodo record with their sizes and checksums."""
    url = f"{server}/api/records/{record}"
    found = fetch_json(url)
    try:
        return [
            Remote(
                str(entry["key"]),
                _on(server, str(entry["links"]["self"])),
                int(entry["size"]),
                str(entry["checksum"]).removeprefix("md5:"),
            )
            for entry in found["files"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise FetchError(f"{url}: expected files with key, links, size and checksum ({error!r})") from error


def fetch_json(url: str) -> Any:
    """Return the content of a JSON answer."""
    with _opened(url, 0) as answer:
        content = answer.read()
    try:
        return json.loads(content)
    except ValueError as error:
        raise FetchError(f"{url}: expected JSON, found {content[:60]!r}") from error


def chosen(files: Iterable[Remote], names: Iterable[str]) -> list[Remote]:
    """Return the files of these names, in the order of the names."""
    there = {file.name: file for file in files}
    wanted = list(names)
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise FetchError(f"expected {', '.join(lacking)}, found {', '.join(sorted(there)) or 'no files'}")
    return [there[name] for name in wanted]


def listing(files: Sequence[Remote], folder: Path) -> list[str]:
    """Return what would be fetched into a folder, a line a file and the sum."""
    lines = []
    for file in files:
        state = "there already" if (folder / file.name).exists() else ""
        partial = _partial(folder / file.name)
        if not state and partial.exists():
            state = f"{readable(partial.stat().st_size)} there already"
        lines.append(f"{readable(file.size):>10}  {file.name}  {state}".rstrip())
    return [*lines, f"{readable(remaining(files, folder)):>10}  to fetch"]


def remaining(files: Iterable[Remote], folder: Path) -> int:
    """Return the bytes that are still to be fetched, of files of known size."""
    total = 0
    for file in files:
        if file.size is None or (folder / file.name).exists():
            continue
        partial = _partial(folder / file.name)
        total += file.size - min(file.size, partial.stat().st_size if partial.exists() else 0)
    return total


def readable(size: float | None) -> str:
    """Return a number of bytes for a person."""
    if size is None:
        return "unknown"
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def require_space(folder: Path, needed: int) -> None:
    """Refuse to begin what will not fit on the disk."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FetchError(f"{folder}: expected {readable(needed)} of free disk, found {readable(free)}")


def fetch(file: Remote, folder: Path, say: Say, *, tries: int = _TRIES, pause: float = _PAUSE) -> Path:
    """Fetch a file, going on where an earlier run or a broken connection ended; its path.

    Parameters
    ----------
    tries
        How often in a row the server may give nothing before it is given up.
    pause
        Seconds before the first repetition; each further one waits twice as long.

    Raises
    ------
    FetchError
        If the server refuses, gives up in the middle, or what it gave is not what it announced.
    """
    target = folder / file.name
    if target.exists():
        if file.size is not None and target.stat().st_size != file.size:
            found = readable(target.stat().st_size)
            raise FetchError(f"{target}: expected {readable(file.size)}, found {found}; move it away")
        return target
    partial = _partial(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        trouble = None if file.size is not None and before == file.size else _go_on(file, partial, before)
        after = partial.stat().st_size if partial.exists() else 0
        if trouble is None:
            break
        failures = 0 if after > before else failures + 1
        if failures >= tries:
            raise FetchError(f"{file.url}: {trouble}; {readable(after)} are kept, start again to go on")
        say(f"{file.name}: {trouble} at {readable(after)}; going on")
        time.sleep(min(pause * 2**failures, _LONGEST_PAUSE))
    _check(file, partial)
    partial.replace(target)
    return target


def _go_on(file: Remote, partial: Path, start: int) -> str | None:
    """Append to a partial file; what went wrong, or None when all of it is there."""
    try:
        with _opened(file.url, start) as answer:
            # A server that does not know ranges starts from the beginning.
            appends = answer.status == http.HTTPStatus.PARTIAL_CONTENT and _start_of(answer) == start
            announced = answer.headers.get("Content-Length")
            wanted = None if announced is None else int(announced)
            got = 0
            with partial.open("ab" if appends else "wb") as kept:
                while block := answer.read(_CHUNK):
                    kept.write(block)
                    got += len(block)
    except (http.client.HTTPException, OSError) as error:
        return f"the connection broke ({error or type(error).__name__})"
    if wanted is not None and got < wanted:
        return "the connection broke"
    if file.size is not None and partial.stat().st_size < file.size:
        return "the server stopped early"
    return None


def _start_of(answer: http.client.HTTPResponse) -> int | None:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


@contextmanager
def _opened(url: str, start: int) -> Iterator[http.client.HTTPResponse]:
    """Open a URL from a byte on; a final refusal is a FetchError, a passing one an OSError."""
    headers = {"User-Agent": "ctflow", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in _PASSING:
                raise ConnectionError(f"the server answered {error.code}") from error
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise FetchError(f"{url}: the .part file is longer than the server's; delete it") from error
            raise FetchError(f"{url}: the server answered {error.code} {error.reason}") from error
    except ValueError as error:
        raise FetchError(f"{url}: expected a URL ({error})") from error
    with answer:
        yield answer


def _check(file: Remote, partial: Path) -> None:
    """Compare size and checksum; what is wrong cannot be gone on with, and is deleted."""
    size = partial.stat().st_size
    wrong = ""
    if file.size is not None and size != file.size:
        wrong = f"expected {file.size} bytes, found {size}"
    for kind, stated in (("md5", file.md5), ("sha256", file.sha256)):
        if not wrong and stated is not None and (found := digest_of(partial, kind)) != stated.lower():
            wrong = f"expected the {kind.upper()} {stated}, found {found}"
    if wrong:
        partial.unlink()
        raise FetchError(f"{file.url}: {wrong}; what was fetched is deleted, start again")


def md5_of(file: Path) -> str:
    """Return the MD5 of a file's content, in hexadecimal."""
    return digest_of(file, "md5")


def digest_of(file: Path, kind: str) -> str:
    """Return the "md5" or "sha256" of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, kind).hexdigest()


def announced_size(url: str) -> int | None:
    """Return how many bytes a server says that a file has, without fetching it, or None."""
    request = urllib.request.Request(url, headers={"User-Agent": "ctflow"}, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
            stated = answer.headers.get("Content-Length", "")
    except ValueError as error:
        raise FetchError(f"{url}: expected a URL ({error})") from error
    except (http.client.HTTPException, OSError):  # not every server answers HEAD; fetching will tell
        return None
    return int(stated) if stated.isdecimal() else None


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None], say: Say) -> list[Path]:
    """Unpack members of a ZIP file that are not there yet; the paths of all that were asked for.

    Parameters
    ----------
    place
        Where below `folder` a member goes, by its name; None leaves it out.

    Raises
    ------
    FetchError
        If the archive is damaged, or a member would leave the folder.
    """
    paths = []
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                where = None if member.is_dir() else place(member.filename)
                if where is None:
                    continue
                path = folder / where
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise FetchError(f"{archive}: {member.filename} would leave {folder}")
                paths.append(path)
                if path.exists() and path.stat().st_size == member.file_size:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                partial = _partial(path)
                with content.open(member) as packed, partial.open("wb") as kept:
                    shutil.copyfileobj(packed, kept, _CHUNK)
                partial.replace(path)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        raise FetchError(f"{archive}: expected a whole ZIP file ({error})") from error
    say(f"{archive.name}: {len(paths)} files in {folder}")
    return paths


def _on(server: str, url: str) -> str:
    """Return a URL of Zenodo's on another server, such as a mirror."""
    if server == ZENODO:
        return url
    parts = urllib.parse.urlsplit(url)
    return server + urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
