"""The page itself, as HTML and as Markdown: one content, content.j2, in the two vocabularies of the other templates."""

import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from infinito.escape import markdown as as_markdown
from infinito.questions.fairness import amount
from infinito.report import tables, words
from infinito.report.draw import DARK, LIGHT, Figure, css_colours
from infinito.report.evidence import Evidence, Json
from infinito.report.figures import DRAWN_REPORTS
from infinito.report.tables import lineage
from infinito.tasks.measure import extreme, moved

HERE = Path(__file__).parent
INTERVAL = re.compile(r"\[[^\[\]]*, [^\[\]]*\]")  # a table may break a line before it, not inside
FILTERS = (
    "capital",
    "plural",
    "number",
    "signed",
    "plain",
    "interval",
    "value",
    "estimate",
    "percent",
    "signed_percent",
    "p_value",
    "p_is",
)


def html(evidence: Evidence, figures: dict[str, Figure]) -> str:
    """One file that opens offline: styles and charts inside, no script, nothing to fetch."""
    style = Markup((HERE / "report.css").read_text(encoding="utf-8"))
    context = content(evidence, figures) | {
        "style": style,
        "light": css_colours(LIGHT),
        "dark": css_colours(DARK),
    }
    return environment().get_template("report.html.j2").render(context)


def markdown(evidence: Evidence, figures: dict[str, Figure]) -> str:
    """The same content, with pictures in charts/."""
    escaping = environment()
    escaping.finalize = lambda x: Markup(as_markdown(x)) if isinstance(x, str) and not isinstance(x, Markup) else x
    text = escaping.get_template("report.md.j2").render(content(evidence, figures))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def content(evidence: Evidence, figures: dict[str, Figure]) -> dict[str, Any]:
    """What the templates know."""
    compare, metric = evidence.compare, evidence.metric
    checks = tables.checks(evidence)
    return {
        "body": "content.j2",
        "charts": "charts",
        "title": evidence.params.title,
        "study": evidence.params.study,
        "params": evidence.params,
        "compare": compare,
        "metric": metric,
        "meaning": words.meaning(metric),
        "moved": moved(metric, compare["difference"]["value"]),
        "extreme": extreme(metric),
        "attribute": evidence.attribute,
        "confidence": words.confidence(compare),
        "overall_confidence": f"{100 * (1 - compare['alpha']):g}%",
        "interval": compare.get("difference_simultaneous", compare["difference"]),
        "look": compare.get("sequential"),
        "verdicts": words.verdict_words(compare["equivalence"]["smallest_effect"], metric),
        "quantities": tables.QUANTITIES,
        "reports": reports(compare),
        "fairness": compare.get("fairness"),
        "amount": amount,
        "trained_pairs": int(evidence.runs.query("design == 'pairs' and arm == 'candidate'").shape[0]),
        "diverged_pairs": int(evidence.candidate["diverged"].sum() + evidence.baseline["diverged"].sum()),
        "revision": next((record["git_revision"] for record in evidence.stacks if record.get("git_revision")), None),
        "checks_failed": sum(check.ok is False for check in checks),
        "runs": len(evidence.runs),
        "listed": min(len(evidence.runs), tables.LISTED_RUNS),
        "folders": evidence.folders,
        "figures": figures,
        **_of_golden(evidence),
        **_of_ensemble(evidence),
        "tables": {
            "arms": tables.arms(compare),
            "hypotheses": tables.hypotheses(compare),
            "ablations": tables.ablations(compare),
            "secondary": tables.secondary(compare),
            "fairness": tables.fairness(compare["fairness"]) if "fairness" in compare else None,
            "claims": tables.claims(compare) if compare["report_protocol"] else None,
            "reports": tables.reports(compare),
            **_tables_of_stages(evidence),
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


def _of_golden(evidence: Evidence) -> dict[str, Any]:
    golden = evidence.golden
    if golden is None:
        return {"golden": None}
    selected_seed, selected_decision = tables.selected(golden)
    kept = golden["checkpoint"] or {}
    return {
        "golden": golden,
        "status": golden["status"].replace("_", " "),
        "status_words": words.STATUS_WORDS[golden["status"]],
        "who": words.who(golden),
        "selected_seed": selected_seed,
        "selected_decision": selected_decision,
        "kept_scores": "".join(
            f", {name} {words.number(kept[name], 4)}"
            for name in evidence.compare["scores"]["candidate"]
            if name in kept
        ),
    }


def _of_ensemble(evidence: Evidence) -> dict[str, Any]:
    ensemble = evidence.ensemble
    if ensemble is None:
        return {"ensemble": None}
    return {
        "ensemble": ensemble,
        "averaged": ensemble.get("averaged", "probabilities"),
        "groups": {entry["groups"] for arm in tables.ARMS for entry in ensemble[arm]["curve"]},
        "groups_by_size": ", ".join(
            f"{entry['groups']} {'group' if entry['groups'] == 1 else 'groups'} of {entry['size']}"
            for entry in ensemble["candidate"]["curve"]
        ),
    }


def _tables_of_stages(evidence: Evidence) -> dict[str, tables.Table | None]:
    """Those of the stages that a study may do without."""
    attribute, golden, ensemble, metric = evidence.attribute, evidence.golden, evidence.ensemble, evidence.metric
    found: dict[str, tables.Table | None] = {}
    if attribute:
        found |= {"components": tables.components(attribute), "variances": tables.variances(attribute)}
    if golden:
        found["winner"] = tables.winner(golden, metric)
        found["decisions"] = tables.decisions(golden, metric)
        found["ranking"] = tables.ranking(golden, metric)
    if ensemble:
        found["ensemble"] = tables.ensemble(ensemble, metric)
        found["equal_compute"] = tables.equal_compute(ensemble, metric) if "equal_compute" in ensemble else None
    return found


def reports(compare: Json) -> dict[str, Any]:
    """How far the headlines of one best-seed report after another lie apart; the pilot's counts as one of them."""
    claimed = compare["report_protocol"]
    found = ([claimed] if claimed and "pilot" in compare else []) + compare["report_protocol_repeated"]
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


def environment() -> Environment:
    """Of the templates, with their filters."""
    found = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    found.filters |= {name: getattr(words, name) for name in FILTERS}
    found.filters["unbroken"] = lambda text: Markup(
        INTERVAL.sub(r'<span class="interval">\g<0></span>', str(escape(text)))
    )
    found.filters["one_line"] = lambda text: Markup(" ".join(str(text).split()))
    found.filters["quoted"] = lambda text: Markup(
        "\n".join(f"> {line}".rstrip() for line in re.sub(r"\n{3,}", "\n\n", str(text).strip()).splitlines())
    )
    return found
