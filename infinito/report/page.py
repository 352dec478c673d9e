"""The page itself, as HTML and as Markdown: one content, content.j2, in the two vocabularies of the other templates."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from infinito.report import tables, words
from infinito.report.draw import DARK, LIGHT, Figure, css_colours
from infinito.report.evidence import Evidence, Json
from infinito.report.figures import DRAWN_REPORTS
from infinito.report.tables import lineage

HERE = Path(__file__).parent
INTERVAL = re.compile(r"\[[^\[\]]*, [^\[\]]*\]")  # a table may break a line before it, not inside
FILTERS = ("number", "signed", "plain", "interval", "value", "estimate", "percent", "signed_percent", "p_value", "p_is")


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
    selected_seed, selected_decision = tables.selected(golden)
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
        "confidence": words.confidence(compare),
        "overall_confidence": f"{100 * (1 - compare['alpha']):g}%",
        "interval": compare.get("difference_simultaneous", compare["difference"]),
        "look": compare.get("sequential"),
        "verdicts": words.verdict_words(compare["equivalence"]["smallest_effect"]),
        "status": golden["status"].replace("_", " "),
        "status_words": words.STATUS_WORDS[golden["status"]],
        "who": words.who(golden),
        "selected_seed": selected_seed,
        "selected_decision": selected_decision,
        "quantities": tables.QUANTITIES,
        "reports": reports(compare),
        "trained_pairs": int(evidence.runs.query("design == 'pairs' and arm == 'candidate'").shape[0]),
        "diverged_pairs": int(evidence.candidate["diverged"].sum() + evidence.baseline["diverged"].sum()),
        "revision": next((record["git_revision"] for record in evidence.stacks if record.get("git_revision")), None),
        "checks_failed": sum(check.ok is False for check in checks),
        "runs": len(evidence.runs),
        "listed": min(len(evidence.runs), tables.LISTED_RUNS),
        "figures": figures,
        "tables": {
            "arms": tables.arms(compare),
            "hypotheses": tables.hypotheses(compare),
            "ablations": tables.ablations(compare),
            "secondary": tables.secondary(compare),
            "claims": tables.claims(compare),
            "reports": tables.reports(compare),
            "components": tables.components(evidence.attribute),
            "variances": tables.variances(evidence.attribute),
            "winner": tables.winner(golden),
            "decisions": tables.decisions(golden),
            "ranking": tables.ranking(golden),
            "ensemble": tables.ensemble(evidence.ensemble),
            "equal_compute": tables.equal_compute(evidence.ensemble) if "equal_compute" in evidence.ensemble else None,
            "checks": tables.check_table(checks),
            "provenance": tables.provenance(evidence),
            "settings": tables.settings(evidence),
            "runs": tables.runs(evidence),
            "stages": lineage.stages(evidence.lineage),
            "executions": lineage.executions(evidence.lineage),
            "environments": lineage.environments(evidence.lineage),
            "files": {name: lineage.files(stage) for name, stage in evidence.lineage.items()},
        },
    }


def reports(compare: Json) -> dict[str, Any]:
    """How far the headlines of one best-seed report after another lie apart; the pilot's counts as one of them."""
    found = ([compare["report_protocol"]] if "pilot" in compare else []) + compare["report_protocol_repeated"]
    return {
        "n": len(found),
        "drawn": DRAWN_REPORTS,
        "significant": sum(claimed["p_value"] < compare["alpha"] for claimed in found),
        **{
            f"{end}_{name}": pick(claimed[key] for claimed in found)
            for name, key in (("best", "best_percent"), ("luck", "expected_best_by_luck"), ("mean", "mean_percent"))
            for end, pick in (("least", min), ("most", max))
            if found
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
    environment.filters["combined"] = lambda first, second: first | second
    environment.filters["unbroken"] = lambda text: Markup(
        INTERVAL.sub(r'<span class="interval">\g<0></span>', str(escape(text)))
    )
    environment.filters["one_line"] = lambda text: Markup(" ".join(str(text).split()))
    environment.filters["quoted"] = lambda text: Markup(
        "\n".join(f"> {line}".rstrip() for line in re.sub(r"\n{3,}", "\n\n", str(text).strip()).splitlines())
    )
    return environment
