"""Text from outside inside Markdown: names, units, settings and sentences show as they are and do nothing else."""

import re


def markdown(text: str) -> str:
    """A text as Markdown that shows just this text: in one line, with nothing that Markdown or HTML would interpret."""
    text = " ".join(text.split()).replace("&", "&amp;")
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"[\\`*|~]", r"\\\g<0>", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    text = re.sub(r"^(?=[#>+=-])|^(\d+)(?=[.)]\s)", r"\g<1>\\", text)  # what begins a heading, a quotation, a list
    return text.replace("](", "]\\(")


def code(text: str) -> str:
    """A text as code inside a line of Markdown, also in a cell of a table."""
    return "`" + " ".join(text.split()).replace("`", "'").replace("|", "\\|") + "`"
