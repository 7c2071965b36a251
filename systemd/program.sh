#!/bin/sh
# Installs and removes the environment of the program; `make install` and `make uninstall` run it.
#   program.sh install PYTHON PLACE PIP-ARGUMENT…
#   program.sh remove PLACE
# PLACE is a link: a new environment is made beside the one in use, and the link is changed at the end. A service that runs
# keeps its files until its next start, and nothing changes if pip fails. With DESTDIR, for packages, PLACE is a folder.
set -eu

# Whether a process was started from folder $1, which is $2 in its command line. Processes of containers may have the
# same paths below another root. The pattern is not among the words of grep, which would find itself.
in_use() {
	for found in $(printf '%s/bin/python\n' "$2" | grep -lsFf - /proc/[0-9]*/cmdline); do
		if [ "${found%cmdline}root$1" -ef "$1" ]; then
			return 0
		fi
	done
	return 1
}

# An older installation has a folder instead of the link, and starts processes by a longer path.
old_in_use() {
	[ -d "$place" ] && [ ! -h "$place" ] && in_use "$place" "/lib/${place##*/}"
}

make_environment() {
	mkdir -p "$new/tmp"
	export TMPDIR="$new/tmp"  # pip unpacks wheels of 3 GB, and /tmp is often in memory
	"$python" -m venv "$new"
	"$new/bin/python" -m pip install "$@"
	rm -r "$new/tmp"
}

install_beside() {
	if old_in_use; then
		echo "$place is in use, and is not a link as in newer versions; stop the service before this upgrade" >&2
		exit 1
	fi
	mkdir -p "$versions"
	exec 9<"$versions"
	flock -n 9 || { echo "another installation into $place is running" >&2; exit 1; }
	new=$(mktemp -d "$versions/XXXXXX")
	trap 'rm -rf "$new"' EXIT
	trap 'exit 1' HUP INT TERM
	chmod 755 "$new"
	make_environment "$@"
	if [ -d "$place" ] && [ ! -h "$place" ]; then
		mv -T "$place" "$(mktemp -d "$versions/XXXXXX")"
	fi
	ln -sfn "${versions##*/}/${new##*/}" "$versions/link"
	mv -T "$versions/link" "$place"
	trap - EXIT
	remove_former
}

remove_former() {
	for former in "$versions"/*; do
		if [ "$former" = "$new" ]; then
			continue
		elif in_use "$former" "$former"; then
			echo "the former program still runs; \`systemctl restart nst-daemon\` starts the new one, then: rm -r $former"
		else
			rm -rf "$former"
		fi
	done
}

remove() {
	for version in "$versions"/*; do
		if in_use "$version" "$version" || old_in_use; then
			echo "nst-daemon is running; first: systemctl disable --now nst-daemon nst-batch.timer" >&2
			exit 1
		fi
	done
	rm -rf "$place" "$versions"
}

verb=$1
shift
if [ "$verb" = install ]; then
	python=$1
	shift
fi
place=$(realpath -ms "$1")
shift
versions=$place.versions
if [ "$verb" = remove ]; then
	remove
elif [ -n "${DESTDIR:-}" ]; then
	rm -rf "$place"
	new=$place
	make_environment "$@"
else
	install_beside "$@"
fi
