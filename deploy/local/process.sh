# shellcheck shell=bash
# Processes that outlive the shell that starts them: each has a pid file that holds the process
# itself. The sourcing script sets RUN_DIR.

say() { printf '%s\n' "$*" >&2; }

die() {
  say "${0##*/}: $*"
  exit 1
}

# Prints a port that the environment or a default gave: port VARIABLE VALUE
port() {
  if [[ ! $2 =~ ^[1-9][0-9]{0,4}$ ]] || (($2 > 65535)); then
    die "$1: '$2' is not a port"
  fi
  printf '%s' "$2"
}

# The first free port from PORT on.
free_port() {
  local port=$1
  while port_answers "$port"; do port=$((port + 1)); done
  printf '%s' "$port"
}

# Whether a GET is answered with 200: http_ok PORT PATH
http_ok() {
  local status=
  {
    exec 3<>"/dev/tcp/127.0.0.1/$1" &&
      printf 'GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n' "$2" >&3
  } 2>/dev/null || return 1
  read -r -t 5 -u 3 status || true
  exec 3>&-
  [[ $status == "HTTP/1.1 200"* ]]
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# require_free_port VARIABLE PORT
require_free_port() {
  if port_answers "$2"; then
    die "port $2 is taken by another program; set $1 to a free one"
  fi
}

# Prints the pid of NAME. A process is recognised by a mark, an argument or a variable that it was
# started with, since a pid that a dead process left behind may be anybody's by now: pid_of NAME MARK
pid_of() {
  local pid
  { read -r pid <"$RUN_DIR/pids/$1"; } 2>/dev/null || return 1
  [[ $pid =~ ^[0-9]+$ ]] || return 1
  grep -qzxF -- "$2" "/proc/$pid/cmdline" "/proc/$pid/environ" 2>/dev/null || return 1
  printf '%s' "$pid"
}

# Starts a command in a session of its own, its output appended to logs/NAME.log: launch NAME COMMAND…
launch() {
  local name=$1
  shift
  mkdir -p "$RUN_DIR/pids" "$RUN_DIR/logs"
  # The child must not hold the caller's lock.
  setsid "$@" >>"$RUN_DIR/logs/$name.log" 2>&1 </dev/null 9>&- &
  printf '%s\n' "$!" >"$RUN_DIR/pids/$name"
}

# Waits until a command succeeds; fails when SECONDS have passed or NAME, just launched, has ended:
# await SECONDS NAME COMMAND…
await() {
  local limit=$((SECONDS + $1)) pid
  read -r pid <"$RUN_DIR/pids/$2"
  shift 2
  until "$@"; do
    if ((SECONDS >= limit)) || ! kill -0 "$pid" 2>/dev/null; then
      return 1
    fi
    sleep 0.05
  done
}

# Signals NAME if it runs: send SIGNAL NAME MARK
send() {
  local pid
  pid=$(pid_of "$2" "$3") || return 0
  kill "-$1" "$pid" 2>/dev/null || ! pid_of "$2" "$3" >/dev/null ||
    die "$2 (pid $pid) belongs to another user"
}

# Waits until NAME has ended; fails when SECONDS have passed: await_end SECONDS NAME MARK
await_end() {
  local limit=$((SECONDS + $1))
  while pid_of "$2" "$3" >/dev/null; do
    ((SECONDS < limit)) || return 1
    sleep 0.05
  done
  rm -f "$RUN_DIR/pids/$2"
}

# Prints why NAME did not start, and ends: fail NAME REASON
fail() {
  say "--- the end of $RUN_DIR/logs/$1.log"
  tail -n 15 "$RUN_DIR/logs/$1.log" >&2 || true
  die "$1 $2"
}
