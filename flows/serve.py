"""`python -m infinito.flows.serve up`: the Prefect server with its pages, and studies on a schedule or at a click.

Three processes. The keeper starts the other two, starts them again when they end, and stops them when it is told to
(`down`). The server is Prefect's own. The runner starts flow runs when they are due, one at a time, and stops those
that are cancelled. All they know is kept in .infinito/prefect of the git repository.
"""

import argparse
import fcntl
import json
import logging.handlers
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import IO, NoReturn

from infinito.flows import needing
from infinito.flows.fanout import die_with_parent

with needing("orchestrate"):
    import psutil  # type: ignore[import-untyped]

    from infinito.flows.service import Service, schedule

SECONDS_TO_START = 120  # the first server of a repository creates its database
SECONDS_TO_STOP = 60  # a flow run has 30 to end
LONGEST_PAUSE = 60  # seconds before a process that keeps ending is started again
LOG_BYTES = 5_000_000
# Of Prefect's server, unless the environment says otherwise: it would schedule an hour, or a hundred runs, ahead, and
# when all of them have been missed mark each one late, at the same time, until its database is locked.
SERVER = {
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "15",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT60S",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "10",
}


def up(service: Service, home: Path) -> int:
    """Start the keeper in the background and wait until everything is served."""
    serving = served(home)
    if serving is not None:
        return _already_up(serving, service)
    _check_port(service.port)
    ready, log = home / "ready", home / "keeper.log"
    ready.unlink(missing_ok=True)
    with log.open("w") as output:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "infinito.flows.serve", "keep", *service.arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # the terminal may be closed
        )
    latest = time.monotonic() + 2 * SECONDS_TO_START
    try:
        while not ready.exists():
            if keeper.poll() is not None:
                sys.stderr.write(log.read_text())
                return keeper.returncode
            if time.monotonic() > latest:
                raise TimeoutError(f"nothing is served after {2 * SECONDS_TO_START} s; see {home}/*.log")
            time.sleep(0.1)
    except (TimeoutError, KeyboardInterrupt):
        keeper.terminate()
        keeper.wait()
        raise
    print(ready.read_text(), end="")
    return 0


def down(home: Path) -> int:
    """Stop the keeper and with it everything else, flow runs too; finished stacks are kept."""
    if served(home) is None:
        print("infinito: nothing is up")
        return 0
    keeper = int(json.loads((home / "lock").read_text())["pid"])
    for number, patience in ((signal.SIGTERM, 2 * SECONDS_TO_STOP), (signal.SIGKILL, 10)):
        os.kill(keeper, number)
        latest = time.monotonic() + patience
        while time.monotonic() < latest:
            if served(home) is None and not _alive(keeper):
                print("infinito: down")
                return 0
            time.sleep(0.1)
    raise TimeoutError(f"process {keeper} does not end")


def keep(service: Service, home: Path) -> int:
    """Be the keeper, until SIGTERM or Ctrl-C."""
    with _locked(home, service) as locked:
        if not locked:
            serving = served(home)
            return 1 if serving is None else _already_up(serving, service)
        _check_port(service.port)
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        ready = home / "ready"
        ready.unlink(missing_ok=True)
        url = f"{service.url}/api"
        environment = {
            **SERVER,
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": url,
            "PREFECT_SERVER_API_PORT": str(service.port),  # not --port: the pages would call another one
        }
        server = _Child("server", ["prefect", "server", "start"], environment, home)
        runner = _Child("runner", ["infinito.flows.serve", "work", *service.arguments], environment, home)
        try:
            server.start()
            if not _wait(lambda: _answers(url), stop, server):
                raise RuntimeError(f"the Prefect server does not start: {server.last_words()}")
            runner.start()
            if not _wait(ready.exists, stop, runner):
                raise RuntimeError(f"the studies are not served: {runner.last_words()}")
            if not stop.is_set():
                print(ready.read_text(), end="", flush=True)
            while not stop.wait(1):
                for child in (server, runner):
                    child.restart_if_ended()
        finally:
            runner.stop()  # first, while it can still tell the server
            server.stop()
            ready.unlink(missing_ok=True)
    return 0


def served(home: Path) -> Service | None:
    """What is up, if anything."""
    try:
        with (home / "lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                while not (text := (home / "lock").read_text()):  # its holder is about to write
                    time.sleep(0.01)
                found = json.loads(text)["service"]
                return Service(**found | {"studies": tuple(found["studies"])})
    except FileNotFoundError:
        pass
    return None


@contextmanager
def _locked(home: Path, service: Service) -> Iterator[bool]:
    """Hold the lock of the keeper, which ends with the process however it ends; gives False if another holds it."""
    path = home / "lock"
    while True:
        with path.open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if served(home) is None:
                    continue  # it was only looked at
                yield False
                return
            if not path.exists() or path.stat().st_ino != os.fstat(file.fileno()).st_ino:
                continue  # a keeper that ended has just removed it
            file.truncate(0)
            json.dump({"pid": os.getpid(), "service": asdict(service)}, file)
            file.flush()
            try:
                yield True
            finally:
                path.unlink()
            return


def _alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _already_up(serving: Service, wanted: Service) -> int:
    if serving == wanted:
        print(f"infinito: already up: {serving}")
        return 0
    raise ValueError(f"already up with other settings: {serving}; first: python -m infinito.flows.serve down")


def _check_port(port: int) -> None:
    with socket.socket() as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"--port: {port} is used by another program; allowed: a free port") from error


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except OSError:
        return False
    return True


class _Child:
    """A process that is to run for ever, its output in a log that does not grow for ever."""

    def __init__(self, name: str, module: Sequence[str], environment: dict[str, str], home: Path) -> None:
        self._name = name
        self._command = [sys.executable, "-m", *module]
        self._environment = environment
        self._file = home / f"{name}.log"
        self._log = logging.handlers.RotatingFileHandler(self._file, maxBytes=LOG_BYTES, backupCount=2, delay=True)
        self._process: subprocess.Popen[str] | None = None
        self._pause = 0.0  # seconds until it is started again
        self._due: float | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,  # Ctrl-C is for the keeper
            preexec_fn=die_with_parent,
        )
        self._began = time.monotonic()
        assert self._process.stdout is not None
        threading.Thread(target=self._copy, args=(self._process.stdout,), daemon=True).start()

    def _copy(self, output: IO[str]) -> None:
        for line in output:
            self._log.emit(logging.LogRecord(self._name, logging.INFO, "", 0, line.rstrip(), None, None))

    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def restart_if_ended(self) -> None:
        if not self.ended():
            return
        now = time.monotonic()
        if self._due is None:
            assert self._process is not None
            steady = now - self._began > 10 * LONGEST_PAUSE
            self._pause = 0.0 if steady else min(2 * self._pause + 1, LONGEST_PAUSE)
            self._due = now + self._pause
            code = self._process.returncode
            when = datetime.now().astimezone().isoformat(timespec="seconds")
            print(f"{when} {self._name} ended with exit code {code}; starts again in {self._pause:g} s", flush=True)
        elif now >= self._due:
            self._due = None
            self.start()

    def stop(self) -> None:
        if self._process is None or self.ended():
            return
        self._process.terminate()
        try:
            self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Its last error, or else its last line."""
        lines = self._file.read_text(errors="replace").splitlines() if self._file.exists() else []
        said = [line for line in reversed(lines) if line.strip()]
        errors = (line for line in said if re.match(r"\S*(Error|Exception): ", line))
        return next(errors, said[0] if said else "it said nothing") + f" (see {self._file})"


def _wait(condition: Callable[[], bool], stop: threading.Event, child: _Child) -> bool:
    """Wait for what `child` is to do; False if it ended or takes too long. True, too, if the wait is called off."""
    latest = time.monotonic() + SECONDS_TO_START
    while not stop.is_set() and not condition():
        if child.ended() or time.monotonic() > latest:
            return False
        time.sleep(0.1)
    return True


def _repository() -> Path:
    found = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True)
    if found.returncode != 0:
        raise ValueError(f"{Path.cwd()}: in no git repository; studies need one")
    return Path(found.stdout.strip())


def _default_port(repository: Path) -> int:
    file = repository / "prefect.toml"
    settings = tomllib.loads(file.read_text()) if file.is_file() else {}
    port: int = settings.get("server", {}).get("api", {}).get("port", 4200)
    return port


def _service(options: argparse.Namespace, repository: Path) -> Service:
    """The command line, checked.

    Raises:
        FileNotFoundError, ValueError: one line, naming the flag or the file.
    """
    from infinito.flows.repro import read_stages

    if options.cron is not None and options.every is not None:
        raise ValueError("--cron, --every: found both; allowed: one of them")
    port = _default_port(repository) if options.port is None else options.port
    if not str(port).isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"--port: found {port!r}; allowed: 1 to 65535")
    studies = [Path(study).resolve() for study in options.study or ["."]]
    service = Service(tuple(map(str, studies)), options.cron, options.every, int(port))
    schedule(service.cron, service.every)
    if len({study.name for study in studies}) < len(studies):
        raise ValueError("--study: found two folders of the same name, by which Prefect knows them; allowed: different")
    for study in studies:
        read_stages(study)
    return service


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(message.removeprefix("argument "))


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    parser = _Parser(
        prog="python -m infinito.flows.serve",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Serve studies: the Prefect server with its pages, and flow runs of the studies on a schedule or from the pages.
A flow run of a study in which nothing has changed does nothing and says UpToDate.""",
        epilog="""\
examples:
  python -m infinito.flows.serve up                                the study of the current folder, started by hand
  python -m infinito.flows.serve up --every 15m                    at 0, 15, 30 and 45 minutes past
  python -m infinito.flows.serve up --study . NAME --cron '0 3 * * *'   both, at 3 in the night of this time zone
  python -m infinito.flows.serve down
One flow run at a time. A scheduled time is skipped while a run of the same study is at work; those that were missed
while the machine was off are made up for by one run. A run that was cut short with the machine is resumed.

exit code: 0 done; 1 something does not start; 2 bad input, said in one line.""",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    starting = [
        commands.add_parser("up", help="start everything in the background"),
        commands.add_parser("run", help="the same in the foreground, for a service manager"),
        commands.add_parser("keep"),  # the two others are not listed: what up and run start, checked by them
        commands.add_parser("work"),
    ]
    for command in starting:
        command.add_argument("--study", action="extend", nargs="+", metavar="FOLDER", help="studies (default: .)")
        command.add_argument("--cron", metavar="CRON", help="minute, hour, day, month, weekday")
        command.add_argument("--every", metavar="TIME", help="15m, 2h, 1d ...")
        command.add_argument("--port", metavar="PORT", help="of the server (default: as in prefect.toml, or 4200)")
    commands.add_parser("down", help="stop everything; a flow run that is at work goes on with the next one")
    try:
        options = parser.parse_args(arguments)
        repository = _repository()
        home = repository / ".infinito" / "prefect"
        home.mkdir(parents=True, exist_ok=True)
        if options.command == "down":
            return down(home)
        if options.command in ("keep", "work"):
            service = Service(tuple(options.study), options.cron, options.every, int(options.port))
            if options.command == "keep":
                return keep(service, home)
            from infinito.flows.runner import work

            work(service, home)
            return 0
        with needing("orchestrate"):
            service = _service(options, repository)
        os.chdir(repository)  # where prefect.toml is
        if options.command == "up":
            return up(service, home)
        # in place of this process, which has loaded Prefect and DVC only to check the command line
        os.execv(sys.executable, [sys.executable, "-m", "infinito.flows.serve", "keep", *service.arguments])
    except (ValueError, FileNotFoundError) as error:
        print(f"infinito: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, TimeoutError) as error:
        print(f"infinito: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("infinito: interrupted; nothing is up", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
