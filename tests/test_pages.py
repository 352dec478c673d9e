"""What README and docs show can be typed: every YAML block is valid, every command exists with its flags."""

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from pydantic import TypeAdapter

from infinito import params
from infinito.cli import app
from infinito.params import Params
from infinito.yaml_reader import parse_yaml
from tests.conftest import ROOT, TINY, Infinito

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("studies/*/README.md"))]
ARRAYS = {  # of which the docs show the keys that differ
    "task": "arrays", "source": "x.csv", "config": None, "kind": "classes", "inputs": None, "targets": ["y"],
    "standardise": True, "seed": 0, "validation": 0.1, "test": 0.1,
}  # fmt: skip


def blocks(*languages: str) -> Iterator[Any]:
    for page in PAGES:
        for number, (language, block) in enumerate(re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", page.read_text())):
            if language in languages:
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


def commands() -> Iterator[Any]:
    """What stands after a prompt, or at the beginning of a line or of a span of code."""
    seen = set()
    for page in PAGES:
        text = page.read_text()
        fenced = "\n".join(re.findall(r"(?ms)^```(?:console|)\n(.*?)^```$", text))
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```$", "", text))
        lines = [line.removeprefix("$ ") for line in fenced.splitlines()]
        for line in [*lines, *spans]:
            for part in re.sub(r"\s+#.*", "", line).split(" && "):
                words = part.split(" ")
                if words[0] in ("infinito", "dvc", "make") or part.startswith("python -m "):
                    if (page, part) not in seen and "..." not in part:
                        seen.add((page, part))
                        yield pytest.param(part, id=f"{page.relative_to(ROOT)}: {part}")


@pytest.mark.parametrize("block", list(blocks("yaml")))
def test_a_yaml_block_is_valid_beside_what_it_leaves_out(block: str) -> None:
    found = parse_yaml(block, "block")
    if "source" in found and "prepare" not in found:  # the lines that differ
        TypeAdapter(params.Prepare).validate_python(ARRAYS | found)
        return
    whole = yaml.safe_load(yaml.safe_dump(TINY))
    if found.get("prepare", {}).get("task") == "command":
        whole = parse_yaml((ROOT / "infinito/cli/template/params_command.yaml").read_text(), "template")
    for section, content in found.items():
        if section == "prepare":  # a block that shows it shows all of it
            whole[section] = content
            continue
        if section == "tracking":  # which no study needs
            whole[section] = content
            continue
        for key, value in content.items():
            assert key in whole[section], f"{section}.{key}"
            whole[section][key] = value
    Params.model_validate(whole)


@pytest.mark.parametrize("command", list(commands()))
def test_a_command_exists_with_its_flags(command: str) -> None:
    program, *words = shlex.split(re.sub(r"\b[A-Z_]+=('[^']*'|\S+) ?", "", command))
    if program == "make":
        targets = {word for word in words if "=" not in word}
        assert targets <= set(re.findall(r"(?m)^([\w-]+):", (ROOT / "Makefile").read_text()))
    elif program == "infinito":
        name, *arguments = words
        verbs: Any = typer.main.get_command(app)
        if name.startswith("-"):
            assert name == "--help"
            return
        verb = verbs.commands[name]
        if not arguments and any(parameter.required for parameter in verb.params):
            return  # in running text: just its name
        verb.make_context(
            name, [word for word in arguments if word != "--help"], resilient_parsing="--help" in arguments
        )
    elif program == "dvc":
        from dvc.cli.parser import get_main_parser

        parser: ArgumentParser = get_main_parser()
        if len(words) > 1:
            parser.parse_args(words)
            return
        with pytest.raises(SystemExit) as end:  # in running text: just its name
            parser.parse_args([*words, "--help"])
        assert end.value.code == 0
    else:
        module = ROOT / Path(*words[1].split("."))
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_published_claim_of_the_readme_is_judged(infinito: Infinito) -> None:
    (line,) = re.findall(r"(?m)^\$ infinito (judge --[^#]*?)\s+#", (ROOT / "README.md").read_text())
    done = infinito(*line.split())
    assert done.returncode == 0 and "INCONCLUSIVE" in done.stdout
