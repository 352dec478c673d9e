"""`infinito`: the questions people ask of a study, on the command line, one file a topic.

What takes seconds to import is imported by the commands that need it: help and bad arguments answer at once.
"""

import sys
from typing import Any

import typer

from infinito.cli import check, judge, ledger, lineage, link, log, new, plan, runs, track, verdict, verify
from infinito.cli.app import app
from infinito.disk import refusal

__all__ = [
    "app",
    "check",
    "judge",
    "ledger",
    "lineage",
    "link",
    "log",
    "main",
    "new",
    "plan",
    "runs",
    "track",
    "verdict",
    "verify",
]

UsageError: Any = typer.BadParameter.__mro__[1]  # of click, which some versions of typer carry inside


def main() -> None:
    """Run the command line; bad input is one line and exit code 2, what the disk refuses one line and 1."""
    code = 2
    try:
        sys.exit(app(sys.argv[1:] or ["--help"], standalone_mode=False))
    except (ValueError, FileNotFoundError) as error:
        message = str(error)
    except UsageError as error:
        message = error.format_message()
    except OSError as error:
        code, message = 1, refusal(error)
    print(f"infinito: {message}", file=sys.stderr)
    sys.exit(code)
