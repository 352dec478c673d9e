"""`python -m infinito.flows.stage NAME`: one stage of the study in the current folder; this is what dvc.yaml runs.

Under a flow run (`python -m infinito.flows.pipeline`) the stage's stacks appear as tasks of that flow run; under plain
`dvc repro` they run in the same worker processes without Prefect.
"""

from infinito.flows import needing
from infinito.interrupt import at_once

with at_once(), needing("orchestrate"):
    import argparse
    import base64
    import os
    import sys
    import time
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import contextmanager
    from pathlib import Path

    from infinito.disk import refusal
    from infinito.flows import dask, fanout, lock
    from infinito.flows.fanout import J, Run

_FLOW_RUN = "INFINITO_FLOW_RUN"
_CONSOLE = "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"


def share_flow_run(environment: dict[str, str]) -> dict[str, str]:
    """`environment` with what a child process needs to join the flow run and the task run that are active here."""
    import cloudpickle
    from prefect.context import serialize_context

    # the parent logs what the child prints: of the child's tasks, which have logs of their own, only warnings
    shared = base64.b85encode(cloudpickle.dumps(serialize_context())).decode()
    return {_CONSOLE: "WARNING"} | environment | {_FLOW_RUN: shared}


@contextmanager
def joined_flow_run() -> Iterator[bool]:
    """Join the flow run that the parent process shares; gives False when there is none."""
    shared = os.environ.get(_FLOW_RUN)
    if shared is None:
        yield False
        return
    import cloudpickle
    from prefect.context import hydrated_context

    with hydrated_context(cloudpickle.loads(base64.b85decode(shared))):
        yield True


def fan_out(jobs: Sequence[J], run: Run[J]) -> list[Path]:
    """Do `jobs` by `run` in worker processes here or on a cluster, as tasks of the parent's flow run if any."""
    with joined_flow_run() as joined:
        submitter = fanout.as_tasks if joined else fanout.as_threads
        return fanout.fan_out(jobs, run, submitter, dask.cluster(Path.cwd()))


def guarded(work: Callable[[], None]) -> int:
    """Do the work of a process that must end with its parent, and return its exit code.

    Bad input (ValueError, FileNotFoundError) is one line and 2; failed stacks, a study on which another process works,
    or a full disk, are one line and 1.
    """
    fanout.die_with_parent()
    lock.die_with_dvc()
    try:
        work()
    except (ValueError, FileNotFoundError) as error:
        code, message = 2, str(error)
    except (fanout.FanOutFailed, lock.StudyHeld) as error:
        code, message = 1, str(error)
    except OSError as error:
        code, message = 1, refusal(error)
    except KeyboardInterrupt:
        code, message = 130, "interrupted; finished stacks are saved, the next run goes on from there"
    else:
        return 0
    print(f"infinito: {message}", file=sys.stderr)
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stage that is named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m infinito.flows.stage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="""\
Run one stage of the study in the current folder, always, without looking whether anything changed.
You rarely type this. `dvc repro` does, for the stages that are out of date, and keeps track of inputs
and outputs; `python -m infinito.flows.pipeline` does the same and shows it in Prefect.""",
        epilog="""\
examples:
  dvc repro                           all stages that are out of date, as dvc.yaml says
  dvc repro train                     the same, up to stage train
  cd studies/NAME && dvc repro        another study
  python -m infinito.flows.stage compare       only this stage, only to debug it: DVC does not record the result

Stacks of runs are trained in one process per GPU, or else per CPU core; INFINITO_WORKERS=4 says how many
instead, and INFINITO_DASK=tcp://HOST:8786 that the workers of a Dask cluster train them. Finished stacks are
kept in .infinito/scratch: an interrupted stage goes on where it stopped.

exit code: 0 done; 1 some stacks failed (the others are saved), another process works on the study, or
the disk is full; 2 bad input, said in one line; 130 interrupted.""",
    )
    parser.add_argument("name", metavar="NAME", help="the stage, as in dvc.yaml and params.yaml: prepare, train, ...")
    name: str = parser.parse_args(arguments).name

    def work() -> None:
        # imported here: --help and bad arguments answer at once, and the worker processes import only what they need
        from infinito.library import check_link
        from infinito.study import load_study

        study = load_study(Path.cwd())
        check_link(study.folder)
        # Before the long imports, or another one could take the study meanwhile. Without waiting: DVC has locked the
        # files of this stage, for which whoever holds the study may come to wait.
        with lock.hold(study.folder):
            from infinito.lineage.records import write_record
            from infinito.runs.finish import finish
            from infinito.stages import STAGES

            if name not in STAGES:
                raise ValueError(f"stage: found {name!r}; allowed: {', '.join(STAGES)}")
            began = time.monotonic()
            STAGES[name](study, lambda jobs: fan_out(jobs, finish))
            write_record(study, name, time.monotonic() - began)
        if study.params.tracking is not None and name in ("train", "golden", "ensemble"):  # the stages that train
            from infinito.tracking.study import log

            log(study)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
