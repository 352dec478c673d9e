"""What is served, and when: all that the keeper and the runner both know."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import tzlocal

if TYPE_CHECKING:
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    Schedule = CronSchedule | IntervalSchedule

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Service:
    """What is served, and where; the studies as absolute paths."""

    studies: tuple[str, ...]
    cron: str | None
    every: str | None
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def arguments(self) -> list[str]:
        """This, as on the command line."""
        schedule = {"--cron": self.cron, "--every": self.every}
        given = [f"{flag}={value}" for flag, value in schedule.items() if value is not None]
        return [*(f"--study={study}" for study in self.studies), *given, f"--port={self.port}"]

    def __str__(self) -> str:
        when = f"cron {self.cron}" if self.cron else f"every {self.every}" if self.every else "no schedule"
        return f"{self.url}, {when}, {', '.join(self.studies)}"


def schedule(cron: str | None, every: str | None) -> "Schedule | None":
    """The schedule in the time zone of this machine.

    Raises:
        ValueError: it is none; names the flag.
    """
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule

    zone = tzlocal.get_localzone_name() or "UTC"
    if every is not None:
        match = re.fullmatch(r"(\d{1,6})([smhd])", every)
        seconds = int(match[1]) * UNITS[match[2]] if match else 0
        if seconds < 10:
            raise ValueError(f"--every: found {every!r}; allowed: 10s or more, such as 15m, 2h or 1d")
        # anchored, so that it does not depend on when it was started: 15m is at 0, 15, 30 and 45 minutes past
        anchor = datetime(2024, 1, 1, tzinfo=tzlocal.get_localzone())
        return IntervalSchedule(interval=timedelta(seconds=seconds), anchor_date=anchor, timezone=zone)
    if cron is not None:
        try:
            return CronSchedule(cron=cron, timezone=zone)
        except ValueError as error:
            raise ValueError(
                f"--cron: found {cron!r}; allowed: minute, hour, day, month, weekday, such as '0 3 * * 1-5'"
            ) from error
    return None
