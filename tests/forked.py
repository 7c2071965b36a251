"""Commands as processes that are forked from one that has loaded the program: none has to load it again.

What has to be seen of a start itself, such as its locale, streams and signals, needs `python -m nst_daemon`.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: Seconds that a command may take on a busy machine.
DEADLINE = 180.0
#: Bytes that a request may have: its arguments and variables.
LONGEST = 1 << 20


class Loaded:
    """A process that has loaded the program, and forks for each command.

    Args:
        modules: What else it loads.
    """

    def __init__(self, *modules: str) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(DEADLINE)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked", str(theirs.fileno()), *modules],
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def run(
        self, *words: str | Path, cwd: Path, env: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder with these variables."""
        request = {"words": [str(word) for word in words], "cwd": str(cwd), "env": dict(env)}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            descriptors = [out.fileno(), err.fileno()]
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
                code = int(self._socket.recv(100))
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                raise
            said = []
            for stream in (out, err):
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(request["words"], code, *said)


#: One for each set of modules; it ends with the process of the tests, which closes its socket.
loaded = functools.cache(Loaded)


def serve(requests: socket.socket) -> None:
    """Fork for each request, and answer with the exit code."""
    while True:
        data, descriptors, *_ = socket.recv_fds(requests, LONGEST, 2)
        if not data:
            return
        child = os.fork()
        if not child:
            requests.close()
            run(json.loads(data), *descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        requests.send(str(code).encode())


def run(request: dict[str, object], out: int, err: int) -> None:
    """Become the command. It does not return."""
    from nst_daemon.cli import main

    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    for descriptor, number in ((out, 1), (err, 2)):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv[1:] = request["words"]
    # What the program restarts itself with where the locale is not UTF-8.
    sys.orig_argv[1:] = ["-m", "nst_daemon", *request["words"]]
    sys.exit(main())


if __name__ == "__main__":
    import_module("nst_daemon.cli")
    for module in sys.argv[2:]:
        import_module(module)
    serve(socket.socket(fileno=int(sys.argv[1])))
