"""`python -m ctflow` is the `ctflow` command."""

from __future__ import annotations

from ctflow.cli import main

if __name__ == "__main__":
    main()
