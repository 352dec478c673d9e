"""Where the numbers come from: code, data, machine and settings, and the runs behind every figure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infinito.report import words
from infinito.report.evidence import Evidence, Json
from infinito.report.tables.table import Table
from infinito.report.words import number

LISTED_RUNS = 1000


def recorded(stacks: Iterable[Json], key: str) -> set[str]:
    """All that the records of stacks have under a key."""
    return {str(record[key]) for record in stacks if record.get(key) is not None}


def provenance(evidence: Evidence) -> Table:
    """Where the numbers come from."""
    stacks, runs = evidence.stacks, evidence.runs
    finished = sorted(recorded(stacks, "finished"))
    changed = any(record.get("git_diff_sha256") for record in stacks)
    revisions = ", ".join(sorted(recorded(stacks, "git_revision"))) or "not in a git repository"
    units = {"examples": "examples", "blocks": "blocks", "scored_tokens": "tokens", "words": "words", "bytes": "bytes"}
    splits = "; ".join(
        f"{name}: " + ", ".join(f"{split[key]:,} {unit}" for key, unit in units.items() if key in split)
        for name, split in evidence.manifest["splits"].items()
    )
    rows = [
        ("Git revision", revisions + (", with uncommitted changes" if changed else "")),
        ("Code, SHA-256", ", ".join(sorted(recorded(stacks, "code_sha256")))),
        ("Data, SHA-256", evidence.compare["data_sha256"]),
        ("Plan of the comparison, SHA-256", evidence.compare["plan"]["plan_sha256"] or "no plan"),
        ("Splits", splits),
        ("Overlap of the splits", "; ".join(overlaps(evidence))),
        ("Runs", f"{len(runs):,} in {len(stacks):,} stacks"),
        ("Training time, all stacks added up", words.duration(sum(record["wall_seconds"] for record in stacks))),
        ("Trained between (UTC)", _between(finished)),
        ("Device", ", ".join(sorted(recorded(stacks, "device")))),
        ("Processor", ", ".join(sorted(recorded(stacks, "processor")))),
        ("Compiled", ", ".join(sorted({"yes" if record.get("compiled") else "no" for record in stacks}))),
    ]
    versions: dict[str, set[str]] = {}
    for record in stacks:
        for package, version in record["versions"].items():
            versions.setdefault(package, set()).add(version or "not installed as a package")
    rows.append(("Versions", ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in versions.items())))
    return Table(("", ""), rows, "ll")


def overlaps(evidence: Evidence) -> list[str]:
    """How much of every split stands in one before it too."""
    return [
        f"{number(100 * share, 2)} % of {split} also in {before}"
        for split, shares in evidence.manifest["overlap"].items()
        for before, share in shares.items()
    ]


def _between(finished: list[str]) -> str:
    if not finished:
        return words.UNKNOWN
    first, last = (moment[:16].replace("T", " ") for moment in (finished[0], finished[-1]))
    return first if first == last else f"{first} and {last}"


def settings(evidence: Evidence) -> Table:
    """All of params.yaml."""
    rows = [(key, text) for key, text in _flat(evidence.params.model_dump())]
    return Table(("Key", "Value"), rows, "ll")


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "" if value is None else str(value)


def runs(evidence: Evidence) -> Table:
    """The runs behind every figure, the first thousand."""
    seeds = ["init_seed", "data_seed", "noise_seed", "rep"]
    losses = ["val_loss", "test_loss", "last_batch_loss"]
    sign = evidence.metric.sign
    shown = evidence.runs.assign(**{name: evidence.runs[name] * sign for name in losses})
    shown = shown.sort_values(["design", "arm", *seeds], kind="stable").head(LISTED_RUNS)
    if (evidence.runs["noise_seed"] == evidence.runs["data_seed"]).all():
        seeds.remove("noise_seed")
    if not evidence.runs["rep"].any():
        seeds.remove("rep")
    rows = [
        tuple(number(cell, 5) if isinstance(cell, float) else str(cell) for cell in row[:-1])
        + ("diverged" if row[-1] else "",)
        for row in shown[["run_id", "design", "arm", *seeds, *losses, "diverged"]].itertuples(index=False, name=None)
    ]
    heads = {"init_seed": "Init seed", "data_seed": "Data seed", "noise_seed": "Noise seed", "rep": "Rerun"}
    head = ("Run", "Design", "Arm", *(heads[seed] for seed in seeds), "Validation", "Test", "Last batch", "")
    return Table(head, rows, f"lll{'r' * (len(seeds) + len(losses))}l")
