"""What people see: a flow run's pages of a real Prefect server, in a real browser that has no network.

`python -m tests.test_screens http://127.0.0.1:4200 docs/images` takes the pictures of the documentation, of the latest
flow run of the server that answers there.
"""

import base64
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from infinito.storage import read_json
from tests.browser import CHROMIUM, HEIGHT, WIDTH, Page, browser
from tests.toy import (
    ROOT,
    ask,
    eventually,
    free_port,
    latest_flow_run,
    make_repository,
    run_flow,
    task_runs,
    toy_environment,
)

# Prefect's pages ask there how to collect statistics even if analytics_enabled is false; they then send none.
SETTINGS_OF_STATISTICS = "sr-client-cfg.amplitude.com"
GREEN = "g > r + 60 && g > b + 40"  # stages and stacks that have ended well


def counted(page: Page, picture: bytes, condition: str = "true") -> tuple[int, int]:
    """How many pixels of a PNG fulfil a condition on r, g and b, and how many colours they have."""
    found = page.run(f"""(async () => {{
        const image = new Image();
        image.src = "data:image/png;base64,{base64.b64encode(picture).decode()}";
        await image.decode();
        const canvas = document.createElement("canvas");
        canvas.width = image.width; canvas.height = image.height;
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        const data = context.getImageData(0, 0, image.width, image.height).data, colours = new Set();
        let pixels = 0;
        for (let i = 0; i < data.length; i += 4) {{
            const [r, g, b] = data.slice(i, i + 3);
            if ({condition}) {{ pixels++; colours.add(r * 65536 + g * 256 + b); }}
        }}
        return [pixels, colours.size];
    }})()""")
    return found[0], found[1]


def screens(page: Page, base: str, stages: Mapping[str, str]) -> Iterator[tuple[str, bytes, str]]:
    """Name, picture and text of the pages of the latest flow run, whose stages have ended as `stages` says."""
    run = latest_flow_run(f"{base}/api")
    url = f"{base}/v2/runs/flow-run/{run['id']}"
    page.open(f"{url}?tab=Details", run["name"], "State Message", *(f"{name} {end}" for name, end in stages.items()))
    details = page.text()
    page.open(f"{url}?tab=TaskRuns", run["name"], "Task runs")
    yield "flow_run", page.picture(), details + page.text()

    for icon in ("expand", "crosshair"):  # the whole window, and as large as fits in there
        page.run(f"document.querySelector('button:has(svg.lucide-{icon})').click()")
        page.wait()
    yield "graph", page.picture(), page.text()

    for key in ("lineage", "verdict"):
        page.open(f"{base}/v2/artifacts/key/{key}", run["name"])  # all versions, each with its flow run
        (version,) = (x["id"] for x in artifacts(base, key) if x["flow_run_id"] == run["id"])
        page.run(f"""document.querySelector('a[href*="{version}"]').click()""")
        page.wait("Artifact", "Raw")
        assert eventually(lambda: page.run("document.querySelectorAll('table').length > 0"))
        page.wait()
        yield key, page.picture(), page.text()


def artifacts(base: str, key: str) -> list[dict[str, Any]]:
    return ask(f"{base}/api", "artifacts", {"artifacts": {"key": {"any_": [key]}}})


@contextmanager
def server_with_pages(home: Path) -> Iterator[str]:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start"],
        cwd=ROOT,  # where prefect.toml is
        env=toy_environment(PREFECT_HOME=str(home), PREFECT_SERVER_API_PORT=str(port), PREFECT_API_URL=f"{base}/api"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{base}/api/health").close()
        except OSError:
            return False
        return True

    try:
        assert eventually(answers)
        yield base
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium, chromium-browser or google-chrome")
def test_the_pages_show_the_stages_the_stacks_the_lineage_and_the_verdict(
    write_study: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_study()
    make_repository(folder)
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for entry in stages.values():  # without the code, which is elsewhere
        entry["deps"] = [path for path in entry["deps"] if path.startswith(("data/", "models/", "results/"))]
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    with server_with_pages(tmp_path / "home") as base:
        done = run_flow(folder, f"{base}/api", tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        stacks = list((folder / ".infinito" / "scratch").iterdir())
        tasks = task_runs(f"{base}/api", len(stages) + len(stacks))
        with browser() as page:
            pictures, texts = {}, {}
            for name, picture, text in screens(page, base, dict.fromkeys(stages, "Completed")):
                pictures[name], texts[name] = picture, text
            assert page.hosts <= {"", "127.0.0.1", SETTINGS_OF_STATISTICS}
    with browser() as page:
        for name, picture in pictures.items():
            (tmp_path / f"{name}.png").write_bytes(picture)
            pixels, colours = counted(page, picture)
            assert pixels == WIDTH * HEIGHT and colours > 100, (name, colours)
        for name in ("flow_run", "graph"):  # the bars are painted: no word of them can be read
            assert counted(page, pictures[name], GREEN)[0] > 5000, name

    assert f"{len(tasks)} Task runs" in texts["flow_run"]
    newest = sorted(tasks.values(), key=lambda task: task["expected_start_time"])[-5:]  # a page has twenty
    assert all(task["name"] in texts["flow_run"] for task in newest)
    graph, _, table = texts["lineage"].partition("Study tiny")
    assert "graph TD" not in graph and all(name in graph.splitlines() for name in stages)  # drawn, not the source
    assert "models/runs" in table and all(f"{name}\tCompleted\tup to date" in table for name in stages)
    result = read_json(folder / "results/compare.json")
    assert result["sentence"] in texts["verdict"] and f"verdict\t{result['verdict']}" in texts["verdict"]


if __name__ == "__main__":
    address, target = sys.argv[1], Path(sys.argv[2])
    os.makedirs(target, exist_ok=True)
    with browser() as page:
        for name, picture, _ in screens(page, address, {}):
            (target / f"{name}.png").write_bytes(picture)
