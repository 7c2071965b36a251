"""The status page: what `nst-daemon status` tells, to look at, and a form that drops pictures into the inbox.

It runs in a process of its own (`ops.status_page` starts it), reads the ledger and the status file as any other process
may, and writes nothing but new files into the inbox (`intake.submit`): the daemon treats those as anybody's drop.
"""
