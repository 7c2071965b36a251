#!/bin/sh
# Runs the program in ../lib/nst-daemon, relative to this file, so that both can be moved together.
exec "$(dirname "$(readlink -f "$0")")/../lib/nst-daemon/bin/python" -P -m nst_daemon "$@"
