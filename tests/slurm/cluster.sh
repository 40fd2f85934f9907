#!/usr/bin/env bash
# A real Slurm for tests: two nodes, n1 and n2, and accounting, all on this machine and as root.
#   tests/slurm/cluster.sh install    from Debian's packages, where something is missing
#   tests/slurm/cluster.sh start      whatever does not run yet; prints the path of slurm.conf:
#                                     export SLURM_CONF=$(tests/slurm/cluster.sh start)
#   tests/slurm/cluster.sh stop       cancels every job, then stops the daemons; the accounting stays
# Everything lies in one folder, SYNTHDIV_SLURM, and nothing of it in /etc/slurm, /etc/munge or a database of this
# machine. A machine that belongs to a real cluster is refused.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
folder=${SYNTHDIV_SLURM:-/tmp/synthdiv-slurm}
conf=$folder/slurm.conf

refuse() {
  echo "cluster.sh: $*" >&2
  exit 2
}

fail() {
  echo "cluster.sh: $*" >&2
  tail -n 8 "$folder"/*.log >&2 || true
  exit 1
}

install() {
  local program
  for program in sbatch sacct slurmctld slurmd slurmdbd munged mariadbd; do
    type -P "$program" >/dev/null && continue
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm slurmdbd munge mariadb-server
    return
  done
}

configure() {
  local name memory=$(($(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo) / 2)) # half of the machine's per node
  for name in slurm.conf slurmdbd.conf; do
    (umask 077 && sed -e "s|@folder@|$folder|g" -e "s|@host@|$(hostname -s)|g" -e "s|@memory@|$memory|g" \
      -e "s|@share@|$((memory / 2))|g" "$here/$name" >"$folder/$name")
  done
  chmod 644 "$conf" # the other must be readable for Slurm's user only
}

# running NAME: its process is there, is this program (Debian's have a suffix), and is no zombie, which has no exe
running() { [[ -s $folder/$1.pid && $(readlink "/proc/$(cat "$folder/$1.pid" 2>/dev/null)/exe") == */"${1%.*}"* ]]; }

# launch NAME COMMAND...: unless it runs. It must hold neither the caller's pipe nor our lock open.
launch() { running "$1" || "${@:2}" </dev/null >>"$folder/$1.out.log" 2>&1 9>&- || fail "$1 did not start"; }

# await SECONDS COMMAND...: until the command succeeds
await() {
  local until=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    ((SECONDS < until)) || fail "not within $1 s: ${*:2}"
    sleep 0.2
  done
}

database() {
  setsid mariadbd --no-defaults --user=mysql --datadir="$folder/mysql/data" --socket="$MYSQL_UNIX_PORT" \
    --skip-networking &
  echo $! >"$folder/mariadbd.pid"
}

nodes_up() { [[ $(sinfo --noheader --Node --format=%T | grep -cE '^(idle|mixed|allocated|completing)$') == 2 ]]; }

start() {
  mkdir -p "$folder"
  exec 9>"$folder/lock" # two sessions of tests may start at once
  flock 9
  configure
  if [[ ! -e $folder/munge/key ]]; then
    mkdir -p "$folder/munge"
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge/key")
    chown -R munge: "$folder/munge"
  fi
  launch munged setpriv --reuid=munge --regid=munge --init-groups munged --socket="$folder/munge/socket" \
    --key-file="$folder/munge/key" --pid-file="$folder/munge/pid" --log-file="$folder/munge/log" \
    --seed-file="$folder/munge/seed"
  ln -sf munge/pid "$folder/munged.pid"
  if [[ ! -d $folder/mysql/data/mysql ]]; then
    mkdir -p "$folder/mysql"
    chown mysql: "$folder/mysql"
    mariadb-install-db --no-defaults --user=mysql --datadir="$folder/mysql/data" --skip-test-db \
      --auth-root-authentication-method=socket >"$folder/install-db.log" 2>&1 || fail "no database"
  fi
  launch mariadbd database
  await 30 mariadb-admin --no-defaults --socket="$MYSQL_UNIX_PORT" ping
  launch slurmdbd slurmdbd
  await 30 sacctmgr --noheader list cluster
  [[ -n $(sacctmgr --noheader list cluster synthdiv) ]] || sacctmgr --immediate add cluster synthdiv >/dev/null
  launch slurmctld slurmctld
  await 30 scontrol ping
  for node in n1 n2; do launch "slurmd.$node" slurmd -N "$node"; done
  await 60 nodes_up
  await 30 sacct --noheader
  echo "$conf"
}

stop() {
  if running slurmctld; then # or the jobs' processes outlive the daemons
    scancel --user=root || true
    for _ in {1..100}; do [[ -n $(squeue --noheader) ]] && sleep 0.2 || break; done
  fi
  for name in slurmd.n1 slurmd.n2 slurmctld slurmdbd mariadbd munged; do
    running "$name" || continue
    kill "$(<"$folder/$name.pid")"
    for _ in {1..100}; do running "$name" && sleep 0.1 || break; done
  done
}

case ${1:-} in
install | start | stop) ;;
*) refuse "install, start or stop?" ;;
esac
[[ $EUID == 0 ]] || refuse "only root can run this cluster"
if [[ ${SLURM_CONF:-$conf} != "$conf" || -e /etc/slurm/slurm.conf || -e /etc/slurm-llnl/slurm.conf ]]; then
  refuse "this machine belongs to a Slurm cluster already (SLURM_CONF or /etc/slurm/slurm.conf)"
fi
export SLURM_CONF=$conf MYSQL_UNIX_PORT=$folder/mysql/socket # the second is how slurmdbd finds this database
"$1"
