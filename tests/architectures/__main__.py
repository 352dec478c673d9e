"""`python -m tests.architectures`: measure what is not yet in found.json, each in a fresh process; then write the docs.

`--again NAME ...` measures these networks anew (all of them: `--again`).
"""

import argparse
import json
import subprocess
import sys
from dataclasses import asdict

import torch
from rich.progress import track

from tests.architectures import page
from tests.architectures.trial import ENGINES, HOW, Outcome, attempt, cases, read_found, write_found


def main() -> None:
    """Measure, or, with --one, be such a fresh process."""
    parser = argparse.ArgumentParser(prog="python -m tests.architectures", description=__doc__)
    parser.add_argument("--again", nargs="*", metavar="NAME", help="networks to measure anew; without a name: all")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        measure(*arguments.one)
        return
    found = read_found()
    anew = [] if arguments.again is None else arguments.again or list(cases())
    found = {name: {} if name in anew else found.get(name, {}) for name in cases()}
    # what is quick first: whoever stops the rest has a whole column
    missing = [
        (name, how) for how in HOW for name in cases() if any(engine + how not in found[name] for engine in ENGINES)
    ]
    for name, how in track(missing, "networks"):
        said = subprocess.run(
            [sys.executable, "-m", "tests.architectures", "--one", name, how],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        outcomes = json.loads(said.stdout.splitlines()[-1])
        found[name] |= {engine + how: Outcome(**outcome) for engine, outcome in outcomes.items()}
        write_found(found)
    page.PAGE.write_text(page.written(page.PAGE.read_text(), found))


def measure(name: str, how: str) -> None:
    """Print what comes out of a network by both engines, as a line of JSON."""
    torch.set_num_threads(1)
    print(json.dumps({engine: asdict(attempt(cases()[name], engine, how)) for engine in ENGINES}))


if __name__ == "__main__":
    main()
