"""Records as people read them."""

from typing import Any

Json = dict[str, Any]


def ran(record: Json) -> str:
    """When and where a stage ran, by its record."""
    return (
        f"ran {record['seconds']:,.1f} s until {record['finished']} on {record['device']} ({record['processor']}), "
        f"revision {revision(record['git_revision'], record['git_diff_sha256'])}"
    )


def revision(commit: str | None, difference: str | None) -> str:
    """A git revision and the hash of the changes since, both cut."""
    changes = f" with changes {difference[:12]}" if difference else ""
    return (commit[:12] if commit else "unknown") + changes


def circumstances(common: Json) -> list[str]:
    """What stacks have in common, one line each: revisions, code, data, hardware, versions, time."""
    versions = common["versions"]
    return [
        "revisions " + ", ".join(revision(commit, None) for commit in common["git_revision"])
        + (", with uncommitted changes" if any(common["git_diff_sha256"]) else ""),
        "code " + ", ".join(str(code)[:12] for code in common["code_sha256"]),
        "data " + ", ".join(str(data)[:12] for data in common["data_sha256"]),
        "on " + ", ".join(map(str, common["device"])) + " (" + ", ".join(map(str, common["processor"])) + ")",
        "with " + ", ".join(f"{name} {' / '.join(map(str, found))}" for name, found in versions.items()),
    ] + ([f"between {common['finished'][0]} and {common['finished'][1]}"] if common["finished"] else [])  # fmt: skip
