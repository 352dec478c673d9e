"""What the machine and the git repository say of themselves."""

import platform
import subprocess
from pathlib import Path


def git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails, there is no repository, or no git."""
    printed = git_bytes(folder, *arguments)
    return None if printed is None else printed.decode("utf-8", "replace")


def git_bytes(folder: Path, *arguments: str) -> bytes | None:
    """The same to the byte: a difference of files may be in any encoding."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def processor() -> str:
    """What the machine says its processor is."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def nvidia(*properties: str) -> list[str]:
    """Properties of every NVIDIA card, joined by commas, as nvidia-smi has them (name, driver_version); [] without."""
    query = ["nvidia-smi", f"--query-gpu={','.join(properties)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []
