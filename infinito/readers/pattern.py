"""Arm, seed, task and run out of paths and names: "{arm}/tuned/{seed}/stats.json", "{arm}-s{seed}"."""

import re
from pathlib import Path

KEYS = ("arm", "seed", "task", "run", "metric")


def compiled(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression; `*` is anything.

    Raises:
        ValueError: braces around another word than those of KEYS, or a word twice.
    """
    parts = re.split(r"(\{[^{}]*\}|\*)", pattern)
    seen: set[str] = set()
    text = ""
    for part in parts:
        if part == "*":
            text += ".*?"
        elif part.startswith("{"):
            name = part[1:-1]
            if name not in KEYS or name in seen:
                raise ValueError(
                    f"--pattern: found {part}; allowed, each once: {', '.join('{' + k + '}' for k in KEYS)}"
                )
            seen.add(name)
            text += rf"(?P<{name}>[^/]+)" if name != "seed" else r"(?P<seed>[^/]*?\d+)"
        else:
            text += re.escape(part)
    return re.compile(text)


def parts_of(name: str, pattern: str, what: str) -> dict[str, str]:
    """What a pattern finds in a name; the arm takes as much as it can.

    Raises:
        ValueError: it does not fit.
    """
    match = compiled(pattern).fullmatch(name)
    if match is None:
        raise ValueError(f"--pattern: {pattern!r} does not fit the {what} {name!r}")
    return match.groupdict()


def parts_of_path(path: Path, pattern: str) -> dict[str, str]:
    """What a pattern finds in the last parts of a path, as many as it has itself.

    Raises:
        ValueError: it does not fit.
    """
    depth = pattern.count("/") + 1
    return parts_of("/".join(path.parts[-depth:]), pattern, "path")
