"""Where a result was made: the versions, the hardware and the git revision behind it."""

import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from infinito.machine import git, nvidia, processor
from infinito.storage import sha256

Json = dict[str, Any]

PACKAGES = (
    "infinito", "torch", "numpy", "scipy", "statsmodels", "pandas", "pyarrow", "safetensors", "pydantic",
    "transformers", "tokenizers", "datasets", "triton",
)  # fmt: skip


def this_device() -> str:
    """Where this process trains: cuda or cpu."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def device_class(device: str) -> str:
    """The kind of processor, as far as it may change the bits of a result."""
    if device == "cpu":
        return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return torch.cuda.get_device_name()


def working_tree(folder: Path) -> Json:
    """The git revision around a study, and what of its code and settings has been changed since.

    Returns:
        revision (None without git), diff_sha256 (of the changes to infinito/, flows/ and the study's params.yaml, as
        every stack records it; None: no changes), changed and untracked: those files.
    """
    what = (":/infinito", ":/flows", "params.yaml")
    revision = git(folder, "rev-parse", "HEAD")
    difference = git(folder, "diff", "HEAD", "--", *what)
    return {
        "revision": revision.strip() if revision else None,
        "diff_sha256": sha256(difference) if difference else None,
        "changed": (git(folder, "diff", "HEAD", "--name-only", "--", *what) or "").splitlines(),
        "untracked": (git(folder, "ls-files", "--others", "--exclude-standard", "--full-name", "--", *what) or "")
        .splitlines(),
    }  # fmt: skip


def environment(device: str) -> Json:
    """Versions, hardware and the time now; `device` is cpu or cuda.

    Returns:
        versions (python, the packages of `PACKAGES`, and on a GPU CUDA and its driver), device, processor, finished.
    """
    versions: dict[str, str | None] = {"python": platform.python_version()}
    versions |= {name: _version(name) for name in PACKAGES}
    if device != "cpu":
        versions |= {"cuda": torch.version.cuda, "driver": next(iter(nvidia("driver_version")), None)}
    return {
        "versions": versions,
        "device": device_class(device),
        "processor": processor(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
