"""A judgement on somebody's runs, as it stands on a terminal."""

from typing import Any

from rich.table import Table

from infinito.cli.app import console, plain


def show(result: dict[str, Any]) -> None:
    """Print what was read, the verdicts, the arms and their best runs, and all that must be said."""
    screen = console()
    screen.print(f"\n{plain(result['read_as']['sentence'])}\n")
    for found in result["comparisons"]:
        verdict = found["verdict"]
        screen.print(f"[bold]{verdict}[/bold]{plain(found['sentence'].removeprefix(verdict))}")
        for remark in found["remarks"]:
            screen.print(f"  - {plain(remark)}")
        more = found["more_runs_for_80_percent_power"]
        if verdict == "INCONCLUSIVE" and more:
            what = "pairs" if found["paired"] else "runs an arm"
            screen.print(f"  - If the true difference is as large as this, {more:,} more {what} find it 4 times in 5.")
    table = Table("arm", "task", "metric", "n", "mean", "sd", "median", "failed", title="\nruns")
    for arm in result["arms"]:
        table.add_row(
            plain(arm["arm"]), plain(arm["task"]), plain(arm["metric"]), str(arm["n"]), _number(arm["mean"]),
            _number(arm["sd"]), _number(arm["median"]), str(arm["failed"] or ""),
        )  # fmt: skip
    screen.print(table)
    for over in result["across_tasks"]:
        screen.print(f"\n[bold]Over {len(over['tasks'])} tasks[/bold] by {plain(over['metric'])}:")
        for found in over["comparisons"]:
            screen.print(plain(f"  {found['sentence']}"))
        if over["ranks"]:
            ranks = ", ".join(f"{one['arm']} {_ranked(one['mean'])}" for one in over["ranks"])
            screen.print(f"  Mean ranks: {plain(ranks)}")
        for remark in over["remarks"]:
            screen.print(f"  - {plain(remark)}")
    if result["best"]:
        screen.print("\nBest runs, beside what luck gives the best of as many equally good ones:")
    for best in result["best"]:
        place = " ".join(filter(None, (best["arm"], best["task"], best["metric"])))
        screen.print(
            plain(
                f"  {place}: {best['run']} of {best['tried']}: {best['value']:.6g} ({best['in_sd']:.2f} sd; luck gives "
                f"{best['expected_by_luck']:.6g}, {best['expected_in_sd']:.2f} sd; as much by luck in "
                f"{100 * best['chance_of_as_much']:.2g}% of such trials): {best['sentence']}"
            )
        )
        for other in best["elsewhere"]:
            r = "" if other["correlation"] is None else f", correlation {other['correlation']:.2f}"
            screen.print(plain(f"    by {other['metric']} it is number {other['rank']} of {other['of']}{r}"))
    screen.print()
    for remark in result["remarks"]:
        screen.print(f"- {plain(remark)}")


def _ranked(mean: dict[str, Any]) -> str:
    low, high = mean["ci_low"], mean["ci_high"]
    return f"{mean['value']:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low is not None else "")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
