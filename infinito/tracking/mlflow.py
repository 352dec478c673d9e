"""MLflow: runs on a tracking server, by its REST interface, which needs no package here.

An experiment a name, under it one run for the study or script, and below that a run each. The tag infinito.id says
which runs are there: what was broken off is completed, and nothing is logged twice.
"""

import base64
import http.client
import json
import math
import os
import ssl
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from infinito.tracking.parameters import is_seed, scalar
from infinito.tracking.record import DIED, FAILED, FINISHED, KILLED, RUNNING, Json, Record
from infinito.tracking.sent import Progress, Sent
from infinito.tracking.store import attachments

API = "/api/2.0/mlflow"
SECONDS = 30  # for an answer
CONNECTIONS = 4
MOST_METRICS, MOST_PARAMS, MOST_FOUND = 1000, 100, 1000  # of a call, as the server has it
LONGEST_PARAM, LONGEST_TAG = 6000, 5000
STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", KILLED: "KILLED", DIED: "KILLED", RUNNING: "RUNNING"}
FINAL = ".final"  # behind the name of a figure that is not the last of the curve of its name
ID, SEEDS, PARENT = "infinito.id", "infinito.seeds", "mlflow.parentRunId"


class Server:
    """A tracking server; MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN, are for it as for MLflow itself."""

    def __init__(self, uri: str) -> None:
        self.uri, self.parts, self.kept = uri, urlsplit(uri), threading.local()
        self.opened: list[http.client.HTTPConnection] = []
        self.headers = {"Content-Type": "application/json"}
        user, token = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_TOKEN")
        if user:
            password = os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
            self.headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        elif token:
            self.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, content: Json | bytes | None = None) -> Json:
        """What it answers.

        Raises:
            OSError: it does not, or refuses.
        """
        body = content if isinstance(content, bytes | None) else json.dumps(content).encode()
        for again in (True, False):  # a connection that was kept may have been closed meanwhile
            connection = getattr(self.kept, "connection", None) or self._connected()
            try:
                connection.request(method, self.parts.path.rstrip("/") + path, body, self.headers)
                answer = connection.getresponse()
                text = answer.read()
                break
            except (http.client.HTTPException, OSError) as error:
                self.kept.connection = None
                connection.close()
                if not again or isinstance(error, TimeoutError | ConnectionRefusedError):
                    raise OSError(f"{self.uri}: does not answer: {error or type(error).__name__}") from error
        try:
            found = json.loads(text) if text else {}
        except ValueError:
            found = {"message": text[:100].decode("utf-8", "replace")}
        if answer.status >= 400:
            raise OSError(f"{self.uri}{path}: {answer.status} {found.get('message', answer.reason)}")
        return found if isinstance(found, dict) else {}

    def close(self) -> None:
        """Close the connections of all threads: a server that is to stop waits for those that are open."""
        for connection in self.opened:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        host, port = self.parts.hostname or "", self.parts.port
        if self.parts.scheme == "https":
            context = ssl.create_default_context()
            connection: Any = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=SECONDS)
        self.kept.connection = connection
        self.opened.append(connection)
        return connection

    def runs(self, experiments: Sequence[str], condition: str = "") -> Iterator[Json]:
        """All runs of experiments that meet a condition."""
        token = None
        while experiments:
            query = {"experiment_ids": list(experiments), "filter": condition, "max_results": MOST_FOUND}
            found = self.call("POST", f"{API}/runs/search", query | ({"page_token": token} if token else {}))
            yield from found.get("runs", [])
            token = found.get("next_page_token")
            if not token:
                return

    def experiments(self) -> dict[str, str]:
        """Numbers of the experiments, by name."""
        found: dict[str, str] = {}
        token = None
        while True:
            query = {"max_results": MOST_FOUND} | ({"page_token": token} if token else {})
            answer = self.call("POST", f"{API}/experiments/search", query)
            found |= {entry["name"]: entry["experiment_id"] for entry in answer.get("experiments", [])}
            token = answer.get("next_page_token")
            if not token:
                return found


def send(runs: Sequence[Record], uri: str, progress: Progress, source: Path | None = None) -> Sent:
    """Log runs, those that are not there and finished yet; see `targets.send`."""
    with closing(Server(uri)) as server:
        return _send(runs, server, progress, source)


def _send(runs: Sequence[Record], server: Server, progress: Progress, source: Path | None) -> Sent:
    new, through = 0, 0
    experiments = server.experiments()
    for name in dict.fromkeys(record.name for record in runs):
        if name not in experiments:
            experiments[name] = server.call("POST", f"{API}/experiments/create", {"name": name})["experiment_id"]
        experiment = experiments[name]
        there = {_tags(run).get(ID, ""): run["info"] for run in server.runs([experiment])}
        parent = there.get("parent") or _created(
            server, experiment, name, 0, {ID: "parent", "infinito.kind": "all runs"}
        )
        ended = {key for key, info in there.items() if info["status"] != "RUNNING"}
        wanted = [record for record in runs if record.name == name and record.id not in ended]

        def one(record: Record, there: Json = there, parent: Json = parent, experiment: str = experiment) -> None:
            _log(server, experiment, parent["run_id"], record, there.get(record.id), source)

        with ThreadPoolExecutor(CONNECTIONS) as pool:
            for _ in pool.map(one, wanted):
                through += 1
                progress(through)
        _end(server, parent["run_id"], FINISHED, max((_milliseconds(r.ended or r.began) for r in runs), default=0))
        new += len(wanted)
    return Sent(new, len(runs) - new)


def _created(server: Server, experiment: str, name: str, start: int, tags: dict[str, str]) -> Json:
    content = {
        "experiment_id": experiment,
        "start_time": start,
        "run_name": name,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    info: Json = server.call("POST", f"{API}/runs/create", content)["run"]["info"]
    return info


def _log(server: Server, experiment: str, parent: str, record: Record, there: Json | None, source: Path | None) -> None:
    """One run. Times are the run's own, so that figures logged again are the same figures."""
    start, end = _milliseconds(record.began), _milliseconds(record.ended or record.began)
    if there is None:
        seeds = " ".join(f"{key}={value}" for key, value in record.seeds.items())
        name = " ".join(filter(None, (record.arm, record.design, seeds))) or record.id
        own = {"arm": record.arm, "design": record.design, "code": record.code}
        dirty = {} if record.dirty is None else {"dirty": str(record.dirty).lower()}
        git = record.facts.get("git") or {}
        commit = record.tags.get("git.revision") or git.get("revision")
        tags = {ID: record.id, PARENT: parent, SEEDS: json.dumps(list(record.seeds)), "mlflow.source.name": record.name}
        tags |= {"mlflow.user": record.tags.get("user", ""), "mlflow.source.git.commit": commit or ""} | own | dirty
        tags |= {"began": record.began} | record.tags
        there = _created(server, experiment, name, start, {k: v[:LONGEST_TAG] for k, v in tags.items() if v})
    run = there["run_id"]
    params = [
        {"key": key, "value": str(value)[:LONGEST_PARAM]} for key, value in (record.params | record.seeds).items()
    ]
    points = [(name, 0.0, value) for name, value in _final(record).items()]
    points += [(name, step, value) for name, curve in record.curves.items() for step, value in curve]
    metrics = [
        {"key": name, "value": _number(value), "timestamp": end, "step": int(step)} for name, step, value in points
    ]
    while params or metrics:
        most = min(MOST_METRICS, MOST_METRICS - min(len(params), MOST_PARAMS))  # of both together
        batch = {"run_id": run, "params": params[:MOST_PARAMS], "metrics": metrics[:most]}
        server.call("POST", f"{API}/runs/log-batch", batch)
        params, metrics = params[MOST_PARAMS:], metrics[most:]
    place = there.get("artifact_uri", "")
    if source is not None or record.facts.get("command"):  # a registered run brings its whole record
        _keep(server, place, "record.json", json.dumps(record.to_json(), indent=2, ensure_ascii=False).encode())
        for name in attachments(record):
            if source and (source / name).is_file():
                _keep(server, place, Path(name).name, (source / name).read_bytes())
    if record.status != RUNNING:
        _end(server, run, record.status, end)


def _final(record: Record) -> dict[str, float]:
    """The final figures, without those that end their curves: the server takes the last of a curve for them."""
    last = {name: max(curve)[1] for name, curve in record.curves.items() if curve}
    own = {name: value for name, value in record.metrics.items() if name not in last}
    return own | {
        name + FINAL: value
        for name, value in record.metrics.items()
        if name in last and value != last[name] and not (math.isnan(value) and math.isnan(last[name]))
    }


def _keep(server: Server, place: str, name: str, content: bytes) -> None:
    """A file beside a run, where the server takes files."""
    if place.startswith("mlflow-artifacts:"):
        path = place.removeprefix("mlflow-artifacts:").lstrip("/")
        server.call("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}/{quote(name)}", content)


def _end(server: Server, run: str, status: str, end: int) -> None:
    server.call("POST", f"{API}/runs/update", {"run_id": run, "status": STATUS[status], "end_time": end})


def records(uri: str) -> Iterator[Record]:
    """All runs of all experiments, whoever logged them; those above others left out.

    Raises:
        OSError: the server does not answer.
    """
    with closing(Server(uri)) as server:
        for name, experiment in server.experiments().items():
            found = list(server.runs([experiment]))
            above = {_tags(run).get(PARENT) for run in found}
            for run in found:
                if run["info"]["run_id"] not in above and _tags(run).get(ID) != "parent":
                    yield _record(run, name)


def _record(run: Json, experiment: str) -> Record:
    info, data, tags = run["info"], run.get("data", {}), _tags(run)
    given = {entry["key"]: scalar(entry["value"]) for entry in data.get("params", [])}
    metrics = {entry["key"]: float(entry["value"]) for entry in data.get("metrics", [])}
    known = set(json.loads(tags.get(SEEDS, "[]"))) or {name for name in given if is_seed(name)}
    commit = tags.get("mlflow.source.git.commit", "")
    return Record(
        id=tags.get(ID) or info["run_id"],
        name=experiment,
        status=info["status"],
        began=tags.get("began") or _iso(info.get("start_time")) or "",
        ended=_iso(info.get("end_time")),
        arm=tags.get("arm", ""),
        design=tags.get("design", ""),
        params={name: value for name, value in given.items() if name not in known},
        seeds={name: value for name, value in given.items() if name in known},
        metrics={name: value for name, value in metrics.items() if not name.endswith(FINAL)}
        | {name.removesuffix(FINAL): value for name, value in metrics.items() if name.endswith(FINAL)},
        tags={key: value for key, value in tags.items() if not key.startswith("mlflow.")},
        dirty={"true": True, "false": False}.get(tags.get("dirty", "")),
        code=tags.get("code") or commit[:10],
    )


def _tags(run: Json) -> dict[str, str]:
    return {entry["key"]: entry["value"] for entry in run.get("data", {}).get("tags", [])}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _milliseconds(time: str) -> int:
    return int(1000 * datetime.fromisoformat(time).timestamp()) if time else 0


def _iso(milliseconds: int | str | None) -> str | None:
    from datetime import UTC

    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).isoformat(timespec="seconds") if milliseconds else None
