"""The process that decodes the pictures of a drop before their originals leave the inbox: `… picture_check FD`.

It receives `Check` messages, decodes one file after the other as a worker does, and answers each with `Checked`, in
their order. It keeps no picture. `workers.picture_check` starts and ends it.
"""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from contextlib import suppress

from nst_daemon import machine, managed_process
from nst_daemon.errors import DamagedPicture, NstError, Retry
from nst_daemon.jobs import JobInput
from nst_daemon.pictures.decode import decode_file
from nst_daemon.unexpected import kind_and_message
from nst_daemon.workers import messages
from nst_daemon.workers.messages import Check, Checked

#: Painting has precedence over this process.
NICENESS = 5
#: The kernel ends this process first when memory runs out: its death costs nothing.
OOM_SCORE = 1000
#: Larger pictures are reduced while they are decoded, which reads them to the end with less memory.
USED_SIDE = 512
#: So many files are known to be whole: a style of the library is decoded once and not for each job.
REMEMBERED = 10_000


class Checker:
    """Decodes files and remembers which are whole, by content, as long as the limits are the same."""

    def __init__(self) -> None:
        self._whole: OrderedDict[str, None] = OrderedDict()
        self._limits: tuple[object, ...] = ()

    def check(self, check: Check) -> Checked:
        """The answer for one job."""
        machine.limit_memory(check.limits.max_memory)
        try:
            for file in check.inputs:
                self._decode(check, file)
        except NstError as error:
            if error.retry is not Retry.NEVER:  # not an error of the picture
                return Checked(check.job_id, undecided=str(error))
            damaged = isinstance(error, DamagedPicture)
            return Checked(check.job_id, reason=str(error), incomplete=damaged)
        except Exception as error:  # noqa: BLE001 (the worker decides)
            return Checked(check.job_id, undecided=kind_and_message(error))
        return Checked(check.job_id)

    def _decode(self, check: Check, file: JobInput) -> None:
        limits = check.limits
        checked = (limits.max_pixels, limits.max_side, limits.formats)
        if checked != self._limits:
            self._whole.clear()
            self._limits = checked
        if file.sha256 in self._whole:
            self._whole.move_to_end(file.sha256)
            return
        decode_file(check.spool / file.spooled, limits, name=file.name, used=lambda _: USED_SIDE)
        self._whole[file.sha256] = None
        if len(self._whole) > REMEMBERED:
            self._whole.popitem(last=False)


def serve(end: socket.socket) -> None:
    """Answer until the daemon closes its end."""
    checker = Checker()
    while (message := messages.receive(end)) is not None:
        if isinstance(message, Check):
            messages.send(end, checker.check(message))


def main() -> None:
    """Serve the daemon at the other end of the descriptor that the first argument names."""
    end = managed_process.begin()
    with suppress(OSError):
        os.nice(NICENESS)
    machine.end_first(OOM_SCORE)
    try:
        messages.send(end, messages.Alive())
        serve(end)
    except OSError:
        pass  # the daemon is gone
    os._exit(0)


if __name__ == "__main__":
    main()
