#!/bin/sh
# The program in the environment beside this file, wherever both have been moved to.
exec "$(dirname "$(readlink -f "$0")")/../lib/nst-daemon/bin/python" -P -m nst_daemon "$@"
