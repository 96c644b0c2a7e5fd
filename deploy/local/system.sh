# shellcheck shell=bash
# The system that `up` starts and `down` stops: the names and marks of its processes. The sourcing
# script sets RUN_DIR.

# What a process of this run folder is recognised by.
mark() { printf 'RECADO_PROCESS=%s/%s' "$RUN_DIR" "$1"; }

alive() { pid_of "$1" "$(mark "$1")" >/dev/null; }

# The names under which processes were started and not stopped by `down`, dead or alive:
# started PREFIX
started() {
  local file
  for file in "$RUN_DIR/pids/$1"*; do
    [[ ! -f $file ]] || printf '%s\n' "${file##*/}"
  done
}

# One `up` or `down` at a time for one run folder.
alone() {
  { mkdir -p "$RUN_DIR" && exec 9>"$RUN_DIR/system.lock"; } 2>/dev/null ||
    die "cannot write to $RUN_DIR"
  flock 9
}
