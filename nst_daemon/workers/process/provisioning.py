"""What a worker on another machine needs: `python -m nst_daemon.workers.process.provisioning` prints it and ends.

It is a process of its own, because finding the weights and exporting the network need torch.
"""

from __future__ import annotations

import sys

from nst_daemon.errors import NstError, Retry
from nst_daemon.workers import messages
from nst_daemon.workers.process.main import load_factory


def main() -> None:
    """Read a `Join` from stdin; write a `Provisioning` to stdout, or a `Leaving` if that fails."""
    join = messages.decode(sys.stdin.buffer.read())
    assert isinstance(join, messages.Join)
    answer: messages.Provisioning | messages.Leaving
    try:
        answer = load_factory(join.options.renderer).provisioning(join.options)
    except NstError as error:
        answer = messages.Leaving(f"could not start: {error}", error.retry is Retry.NEVER)
    sys.stdout.buffer.write(messages.encode(answer))


if __name__ == "__main__":
    main()
