#!/bin/sh
# Runs the program in ../lib/nst-daemon, relative to this file, so that both can be moved together. That is a link, and
# is resolved here: a process that runs keeps its files when an upgrade changes the link.
exec "$(readlink -f "$(dirname "$(readlink -f "$0")")/../lib/nst-daemon")/bin/python" -P -m nst_daemon "$@"
