"""What a disk refuses (no room, a file too large, a folder that may not be written), said in one line."""

import errno
import os
import re

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def refusal(error: OSError) -> str:
    """One line: which file, and what the system says."""
    file = f"{error.filename}: " if error.filename else ""
    return file + " ".join((error.strerror or str(error)).split())


def no_room(error: Exception, file: str | os.PathLike[str]) -> OSError | None:
    """The plain error with the file, where a library says, in words of its own, that there is no room to write it."""
    number = getattr(error, "errno", None)
    if number is None:
        found = re.search(r"(?:os error|\[Errno) (\d+)", str(error))
        number = int(found[1]) if found else None
    return OSError(number, os.strerror(number), os.fspath(file)) if number in NO_ROOM else None
