#!/bin/sh
# Runs a command of nst-daemon. At the first start, the home folder, /data, gets its folders and config.yaml.
if ! [ -e "$HOME/config.yaml" ] && ! [ -e "$HOME/nst-daemon.yaml" ]; then
	nst-daemon init "$HOME" >/dev/null || exit
fi
exec nst-daemon "$@"
