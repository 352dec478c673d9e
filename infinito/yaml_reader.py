"""YAML as people and DVC write it: every key once, and 1e-06 is a number."""

import re
from pathlib import Path
from typing import Any

import yaml


class Scientific(float):
    """A number that is written as 1e-06, which YAML 1.2 and so DVC take as one, and PyYAML as text."""

    text: str  # as it is written


class _Loader(yaml.SafeLoader):
    """YAML in which a mapping has every key once; merge keys (<<) may still be overridden."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for name, _ in node.value:
            if not isinstance(name, yaml.ScalarNode):  # no key that anybody reads
                continue
            merge = name.tag == "tag:yaml.org,2002:merge"
            key, line = name.value if merge else self.construct_object(name), name.start_mark.line + 1
            if key in lines:
                raise ValueError(f"key {name.value!r} stands in line {lines[key]} and again in line {line}")
            lines[key] = line
        return node

    def construct_scientific(self, node: yaml.ScalarNode) -> Scientific:
        number = Scientific(node.value)
        number.text = node.value
        return number


SCIENTIFIC = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("!scientific", SCIENTIFIC, list("-+.0123456789"))  # what PyYAML has no number for
_Loader.add_constructor("!scientific", _Loader.construct_scientific)


def read_yaml(path: Path) -> Any:
    """Raises FileNotFoundError if there is none, ValueError if the file is not YAML or has a key twice."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error


def parse_yaml(text: str, name: str) -> Any:
    """YAML from elsewhere than a file, by a name for messages; raises as `read_yaml`."""
    try:
        return yaml.load(text, _Loader)  # a safe one
    except (yaml.YAMLError, ValueError) as error:  # the latter of a value too, as a date that there is not
        what = "" if str(error).startswith("key ") else "not valid YAML: "
        raise ValueError(f"{name}: {what}{' '.join(str(error).split())}") from error
