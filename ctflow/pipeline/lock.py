"""One job at a time writes to a target; the lock of a process that died is free."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ctflow.io.errors import OutputError

_NAME = "lock"


class Lock:
    """The lock of a folder of parts.

    The kernel holds it for the process, and lets go of it when the process ends in whatever way; what the
    file says is for people.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / _NAME
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        OutputError
            If another process holds it.
        """
        while True:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The holder before may have removed the file between our opening and our locking it.
                if _is(descriptor, self._file):
                    break
            except BlockingIOError:
                holder = _read(self._file)
                os.close(descriptor)
                who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
                raise OutputError(f"{self._file.parent}: another job is writing here: {who}") from None
            except OSError as error:
                os.close(descriptor)
                raise OutputError(f"{self._file}: cannot be locked ({error.strerror})") from error
            os.close(descriptor)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go of it, and remove its file."""
        if self._descriptor is not None:
            self._file.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def holder_of(folder: Path) -> Mapping[str, Any] | None:
    """Process and host that hold a folder's lock; None where nobody does."""
    try:
        descriptor = os.open(folder / _NAME, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(folder / _NAME)
    finally:
        os.close(descriptor)
    return None


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (OSError, ValueError):
        return {}


def _is(descriptor: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), file.stat())
    except FileNotFoundError:
        return False
