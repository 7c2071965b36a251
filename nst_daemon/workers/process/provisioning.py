"""What a worker on another machine must be given: `python -m nst_daemon.workers.process.provisioning` says it and ends.

A process of its own, because finding the weights and exporting the network take torch, and whoever asks has none.
"""

from __future__ import annotations

import sys

from nst_daemon.errors import NstError, Retry
from nst_daemon.workers import messages
from nst_daemon.workers.process.main import factory


def main() -> None:
    """Read a `Join` from stdin; write an `Provisioning` to stdout, or a `Leaving` where that fails."""
    join = messages.decode(sys.stdin.buffer.read())
    assert isinstance(join, messages.Join)
    answer: messages.Provisioning | messages.Leaving
    try:
        answer = factory(join.options.painter).provisioning(join.options)
    except NstError as error:
        answer = messages.Leaving(f"could not start: {error}", error.retry is Retry.NEVER)
    sys.stdout.buffer.write(messages.encode(answer))


if __name__ == "__main__":
    main()
