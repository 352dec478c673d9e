"""`infinito new --command`: two command lines as the arms of a study."""

import json
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infinito.readers.direction import direction

FIGURE = re.compile(r"(?P<file>.+\.(?:json|jsonl|csv|tsv)):(?P<key>[^:]+)")
UNQUOTED = re.compile(r"[\w@%+=:,./{}-]+")
SEEDS = ("{seed}", "{init_seed}", "{data_seed}")
UNITS = {"accuracy": "share of examples", "acc": "share of examples"}


@dataclass(frozen=True)
class Scripts:
    """As the user gives them, all of the current folder.

    Args:
        candidate, baseline: command lines.
        value: where the figure is: of what is printed, "accuracy: {value}", or FILE:KEY.
        guess: what a model scores that has learned nothing.
        higher: whether the figure is better when it is higher; None: as its name says.
    """

    candidate: str | None
    baseline: str | None
    value: str | None
    guess: float | None
    higher: bool | None

    def params(self, template: str, root: Path, study: Path) -> tuple[str, list[str]]:
        """The text of params.yaml, and the files that the commands read, as seen from the study.

        Raises:
            ValueError: what is missing or can't be told, by its flag.
        """
        lines: dict[str, str] = {}
        files: list[str] = []
        for flag, command in (("--command", self.candidate), ("--against", self.baseline)):
            if command is None:
                raise ValueError(
                    f"{flag}: found none; allowed: a command line, as 'python train.py --seed {{seed}}'; --command is "
                    "the candidate, --against the baseline"
                )
            lines[flag], read = _from(study, command, flag, root)
            files += read
        files = list(dict.fromkeys(files))
        if not files:
            raise ValueError(
                f"--command: found {self.candidate!r}, which names no file of {root}; allowed: a script in this "
                "repository, for a changed script must be run anew"
            )
        name, place = self._value()
        way = direction(name) if self.higher is None else "higher" if self.higher else "lower"
        if way is None:
            raise ValueError(f"--higher/--lower: found neither, and {name!r} does not say which way it is better")
        if self.guess is None:
            raise ValueError(
                "--guess: found none; allowed: what a model scores that has learned nothing, as 0.1 for the accuracy "
                "of ten classes, for a run that fails counts with it"
            )
        unit = UNITS.get(name.lower(), name)
        text = template
        for old, new in (
            ("    name: accuracy\n", f"    name: {json.dumps(name)}\n"),
            ("    unit: share of examples\n", f"    unit: {json.dumps(unit)}\n"),
            ("    direction: higher #", f"    direction: {way} #"),
            ("    guess: 0.5 ", f"    guess: {self.guess:g} "),
            ("  files: [train.py] ", f"  files: {json.dumps(files)} "),
            ("    command: COMMAND --lr 0.1\n", f"    command: {json.dumps(lines['--command'])}\n"),
            ("    command: COMMAND --lr 0.01\n", f"    command: {json.dumps(lines['--against'])}\n"),
            ('    test: {stdout: "accuracy: {value}"}  # the last such line\n', f"    test: {place}\n"),
            ("  # share of examples, declared", f"  # {unit}, declared"),
        ):
            assert old in text, old
            text = text.replace(old, new, 1)
        return text, files

    def _value(self) -> tuple[str, str]:
        """The metric's name, and where params.yaml says it is."""
        if self.value is not None and "{value}" in self.value:
            words = re.findall(r"[A-Za-z][\w./-]*", self.value.partition("{value}")[0])
            return (words[-1] if words else "value"), f"{{stdout: {json.dumps(self.value)}}}"
        match = FIGURE.fullmatch(self.value or "")
        if match is None:
            raise ValueError(
                f"--value: found {self.value!r}; allowed: what the command prints, as 'accuracy: {{value}}', or a file "
                "and its key, as '{out}/metrics.json:test.accuracy'"
            )
        key = match["key"]
        return key.rpartition(".")[2], f"{{file: {json.dumps(match['file'])}, key: {json.dumps(key)}}}"


def _from(study: Path, command: str, flag: str, root: Path) -> tuple[str, Sequence[str]]:
    """A command line as run in the study's folder, and the files of the repository that it names."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"{flag}: found {command!r}: {error}") from error
    if not any(seed in command for seed in SEEDS):
        raise ValueError(
            f"{flag}: found {command!r}, without a seed; allowed: with {{seed}}, or {{init_seed}} and {{data_seed}}"
        )
    files = []
    for place, word in enumerate(words):
        path = Path(word).resolve()
        if path.is_file() and path.is_relative_to(root):
            words[place] = os.path.relpath(path, study)
            files.append(words[place])
    return " ".join(word if UNQUOTED.fullmatch(word) else shlex.quote(word) for word in words), files
