"""The parameters of anybody's script: on its command line, and in config files. Secrets are masked."""

import datetime
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from infinito.tracking.record import Value
from infinito.yaml_reader import parse_yaml

CONFIGS = (".yaml", ".yml", ".json", ".toml")
SCRIPTS = (".py", ".sh", ".bash", ".r", ".jl", ".pl", ".rb", ".js", ".m", ".ipynb")
LAUNCHERS = re.compile(r"(python|pypy)[\d.]*(\.exe)?|torchrun|accelerate|deepspeed|horovodrun|mpirun|srun|uv|poetry")
OPTION = re.compile(r"--?([A-Za-z_][\w.\-/]*)(?:=(.*))?", re.DOTALL)
ASSIGNED = re.compile(r"([+~]{0,2})([A-Za-z_][\w.\-/@]*)=(.*)", re.DOTALL)  # as Hydra has them
SEED = re.compile(r"(^|[._/\-])(seed|random_state|rng)$", re.IGNORECASE)
MASK = "***"
MOST_CONFIG_KEYS = 1000  # a file with more of them holds data


class Command(NamedTuple):
    """A command line, taken apart. program: the script, without interpreter and folders above the repository."""

    program: str
    params: dict[str, Value]
    shown: list[str]  # the words, secrets masked


def of_command(command: Sequence[str], root: Path) -> Command:
    """Parameters as --lr 0.1, --lr=0.1, -x 3, lr=0.1 and flags; what has no name is argument.1, argument.2, ...

    An option takes all words up to the next one. root: what the script's path begins from.
    """
    start = _script(command)
    found: dict[str, list[str]] = {}
    shown = list(command[: start + 1])
    name, numbered, literal = "", 0, False
    for word in command[start + 1 :]:
        option = None if literal else OPTION.fullmatch(word)
        assigned = None if literal or option else ASSIGNED.fullmatch(word)
        if word == "--" and not literal:
            name, literal = "", True
            shown.append(word)
            continue
        if option or assigned:
            name = option[1].replace("-", "_") if option else assigned[2]  # type: ignore[index]
            value = option[2] if option else assigned[3]  # type: ignore[index]
            found.setdefault(name, [])
            if value is None:
                shown.append(word)
                continue
            found[name].append(value)
            shown.append(word[: len(word) - len(value)] + MASK if is_secret(name) else without_password(word))
            name = ""
        elif name:
            found[name].append(word)
            shown.append(MASK if is_secret(name) else without_password(word))
        else:
            numbered += 1
            found[f"argument.{numbered}"] = [word]
            shown.append(without_password(word))
    params = {name: masked(name, scalar(" ".join(words)) if words else True) for name, words in found.items()}
    return Command(_called(command, start, root), params, [without_password(word) for word in shown])


def _script(command: Sequence[str]) -> int:
    """Where the parameters' owner stands: the script or module behind interpreters and launchers."""
    launched = LAUNCHERS.fullmatch(Path(command[0]).name.lower()) is not None
    for place, word in enumerate(command):
        if launched and word in ("-m", "-c") and place + 1 < len(command):
            return place + 1
        if Path(word).suffix.lower() in SCRIPTS and (place == 0 or launched):
            return place
    return 0


def _called(command: Sequence[str], start: int, root: Path) -> str:
    """The program in the same words, wherever the repository and the interpreter lie."""
    script = command[start]
    path = Path(script)
    if path.is_file():
        place = path.resolve()
        script = place.relative_to(root.resolve()).as_posix() if place.is_relative_to(root.resolve()) else path.name
    elif start == 0:
        script = path.name
    before = [Path(command[0]).name, *command[1:start]] if start else []
    if before and re.match("python|pypy", before[0]):
        before = ["-c"] if before[-1] == "-c" else []
    return " ".join(without_password(word) for word in [*before, script])


def scalar(text: str) -> Value:
    """A value as YAML has it: 0.10 and 1e-1 are one number, true is a truth value; anything else is text."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text
    if isinstance(value, bool | int):
        return value
    try:
        number = float(value if isinstance(value, float) else text)
    except ValueError:
        return text
    return number if abs(number) < float("inf") else text  # NaN too: JSON has none


def of_config(path: Path) -> dict[str, Value]:
    """The content of a YAML, JSON or TOML file by its dotted keys; lists as text.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no such format, not readable, or no mapping; in one line.
    """
    if path.suffix.lower() not in CONFIGS:
        raise ValueError(f"{path}: found a file {path.suffix or 'without a suffix'}; allowed: {', '.join(CONFIGS)}")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() == ".toml":
            content: Any = tomllib.loads(text)
        elif path.suffix.lower() == ".json":
            content = json.loads(text)
        else:
            content = parse_yaml(text, str(path))
    except (UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: not readable: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: found {type(content).__name__}; allowed: a mapping of settings")
    return flat(content)


def flat(content: Mapping[Any, Any], above: str = "") -> dict[str, Value]:
    """Nested settings by their dotted keys; secrets masked, lists as text in JSON."""
    found: dict[str, Value] = {}
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = masked(name, _plain(value))
    return found


def _plain(value: Any) -> Value:
    if isinstance(value, float):
        return float(value) if abs(value) < float("inf") else str(value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def is_seed(name: str) -> bool:
    """Whether a parameter's name says that it is a seed: seed, train.seed, random_state, data_seed."""
    return bool(SEED.search(name)) or name.lower().endswith("_seed")


def is_secret(name: str) -> bool:
    """Whether a parameter's name says that nobody else may see it: token, api_key, db.password; not pad_token."""
    words = [word for word in re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()) if word]
    last, before = (words[-1], words[-2] if len(words) > 1 else "") if words else ("", "")
    if last == "token":
        return before not in ("pad", "eos", "bos", "mask", "unk", "sep", "cls", "per", "image", "special")
    if last == "key":
        return before in ("api", "access", "private", "secret", "auth", "account", "storage")
    return last in (
        "secret",
        "secrets",
        "password",
        "passwd",
        "passphrase",
        "pwd",
        "credential",
        "credentials",
        "apikey",
    )


def masked(name: str, value: Value) -> Value:
    """A value that may be seen."""
    if is_secret(name):
        return MASK
    return without_password(value) if isinstance(value, str) else value


def without_password(text: str) -> str:
    """A text in which the password of a URL (https://name:password@host) is masked."""
    return re.sub(r"(\w+://[^/\s:@]*):[^@/\s]+@", rf"\1:{MASK}@", text)
