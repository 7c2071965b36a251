"""The status page: the content of `nst-daemon status`, and a form that puts pictures into the inbox.

It runs in a separate process (started by `service.status_page`). It reads the ledger and the status file, and writes
only new files into the inbox (`intake.submit`), which the daemon treats like any other drop.
"""
