"""The page itself, as HTML and as Markdown: one content, content.j2, in the two vocabularies of the other templates."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from infinito.report import tables, words
from infinito.report.draw import DARK, LIGHT, Figure, css_colours
from infinito.report.evidence import Evidence

HERE = Path(__file__).parent
INTERVAL = re.compile(r"\[[^\[\]]*, [^\[\]]*\]")  # a table may break a line before it, not inside
FILTERS = ("number", "signed", "plain", "interval", "value", "estimate", "percent", "signed_percent", "p_value")


def html(evidence: Evidence, figures: dict[str, Figure]) -> str:
    """One file that opens offline: styles and charts inside, no script, nothing to fetch."""
    style = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    context = content(evidence, figures) | {
        "style": style,
        "light": css_colours(LIGHT),
        "dark": css_colours(DARK),
    }
    return _environment().get_template("report.html.j2").render(context)


def markdown(evidence: Evidence, figures: dict[str, Figure]) -> str:
    """The same content, with pictures in charts/."""
    environment = _environment()
    environment.finalize = lambda x: (
        Markup(plain_markdown(x)) if isinstance(x, str) and not isinstance(x, Markup) else x
    )
    text = environment.get_template("report.md.j2").render(content(evidence, figures))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def content(evidence: Evidence, figures: dict[str, Figure]) -> dict[str, Any]:
    """What the templates know."""
    compare, golden = evidence.compare, evidence.golden
    cells = np.array(evidence.attribute["candidate"]["cells"])
    best_init, best_data = (int(i) for i in np.unravel_index(cells.argmin(), cells.shape))
    checks = tables.checks(evidence)
    groups = {entry["groups"] for arm in tables.ARMS for entry in evidence.ensemble[arm]["curve"]}
    return {
        "title": evidence.params.report.title,
        "study": evidence.params.study,
        "params": evidence.params,
        "compare": compare,
        "attribute": evidence.attribute,
        "golden": golden,
        "ensemble": evidence.ensemble,
        "groups": groups,
        "groups_by_size": ", ".join(
            f"{entry['groups']} {'group' if entry['groups'] == 1 else 'groups'} of {entry['size']}"
            for entry in evidence.ensemble["candidate"]["curve"]
        ),
        "confidence": f"{100 * (1 - compare['alpha']):g}%",
        "verdicts": words.verdict_words(compare["equivalence"]["smallest_effect"]),
        "status": golden["status"].replace("_", " "),
        "status_words": words.STATUS_WORDS[golden["status"]],
        "best_cell": {
            "init_seed": evidence.attribute["init_seeds"][best_init],
            "data_seed": evidence.attribute["data_seeds"][best_data],
            "loss": float(cells.min()),
            "of": cells.size,
        },
        "diverged_pairs": int(evidence.candidate["diverged"].sum() + evidence.baseline["diverged"].sum()),
        "revision": next((record["git_revision"] for record in evidence.stacks if record.get("git_revision")), None),
        "checks_failed": sum(check.ok is False for check in checks),
        "runs": len(evidence.runs),
        "listed": min(len(evidence.runs), tables.LISTED_RUNS),
        "figures": figures,
        "tables": {
            "arms": tables.arms(compare),
            "secondary": tables.secondary(compare),
            "claims": tables.claims(compare),
            "components": tables.components(evidence.attribute),
            "winner": tables.winner(golden),
            "ranking": tables.ranking(golden),
            "ensemble": tables.ensemble(evidence.ensemble),
            "checks": tables.check_table(checks),
            "provenance": tables.provenance(evidence),
            "settings": tables.settings(evidence),
            "runs": tables.runs(evidence),
        },
    }


def plain_markdown(text: str) -> str:
    """A text as Markdown that shows just this text: in one line, with nothing that Markdown or HTML would interpret."""
    text = " ".join(text.split()).replace("&", "&amp;")
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    text = re.sub(r"[\\`*|~]", r"\\\g<0>", text)
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)
    return text.replace("](", "]\\(")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {name: getattr(words, name) for name in FILTERS}
    environment.filters["unbroken"] = lambda text: Markup(
        INTERVAL.sub(r'<span class="interval">\g<0></span>', str(escape(text)))
    )
    environment.filters["one_line"] = lambda text: Markup(" ".join(str(text).split()))
    environment.filters["quoted"] = lambda text: Markup(
        "\n".join(f"> {line}".rstrip() for line in re.sub(r"\n{3,}", "\n\n", str(text).strip()).splitlines())
    )
    return environment
