"""What `grep val_loss: logs/*/*.log` prints: lines of many logs, each behind the file that it is from."""

import re
from pathlib import Path

from infinito.readers import folder, logs
from infinito.readers.results import Options, Results

LINE = re.compile(r"(?P<file>[^\s:]+\.(?:log|txt|out|err|stdout|stderr))(?::\d+)?[:-]\s*(?P<line>.*)")


def is_one(path: Path) -> bool:
    """Whether all of the first lines begin so."""
    with path.open(encoding="utf-8", errors="replace") as file:
        first = [line.strip() for line in (next(file, "") for _ in range(20)) if line.strip(" -\n")]
    return bool(first) and all(LINE.fullmatch(line) for line in first)


def read(path: Path, options: Options) -> Results:
    """A file that is named is a run; what its path means is told as of a folder's files."""
    lines: dict[Path, list[str]] = {}
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if match := LINE.fullmatch(line.strip()):
                lines.setdefault(Path(match["file"]), []).append(match["line"])
    names = {name: name.as_posix() for name in lines}
    return folder.runs_of(
        names, lambda name, said: logs.read_run(lines[name], said), "names in lines", options, path.name
    )
