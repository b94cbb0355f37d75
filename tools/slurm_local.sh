#!/usr/bin/env bash
# Slurm on this machine alone, from Debian's packages: a controller and one node of two processors, or
# more nodes, all on loopback. For tests and to try `--cmd_backend slurm`; needs root, not a network.
#
# Usage: tools/slurm_local.sh start FOLDER [--nodes N] [--cpus N]
#        tools/slurm_local.sh stop FOLDER
#   start   install slurm-wlm and munge where they are missing, write FOLDER/slurm.conf, start the
#           daemons, wait until the nodes are idle
#   stop    end the daemons that FOLDER's start began (by their process ids), leave their logs
# Then: export SLURM_CONF=FOLDER/slurm.conf; sinfo

set -euo pipefail
shopt -s inherit_errexit
export LC_ALL=C

die() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

usage() {
    sed -n '2,${/^#/!q; s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

if [[ ${1:-} == @(-h|--help) ]]; then
    usage
    exit 0
fi
(($# >= 2)) || die "expected start FOLDER or stop FOLDER; $0 --help tells more"
action=$1
folder=$(realpath -m -- "$2")
shift 2
nodes=1
cpus=2
while (($# > 0)); do
    case $1 in
        --nodes | --cpus)
            [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || die "$1 ${2:-}: expected a whole number from 1"
            printf -v "${1#--}" '%s' "$2"
            shift 2
            ;;
        *) die "unknown option '$1', expected --nodes or --cpus" ;;
    esac
done

# daemon_runs NAME: succeed while the process that FOLDER/NAME.pid tells of is that program.
daemon_runs() {
    local pid
    [[ -s $folder/$1.pid ]] || return 1
    pid=$(<"$folder/$1.pid")
    [[ -r /proc/$pid/cmdline ]] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$folder"
}

# stop_daemon NAME: end it, and wait for its end.
stop_daemon() {
    local pid wait
    if daemon_runs "$1"; then
        pid=$(<"$folder/$1.pid")
        kill "$pid"
        for ((wait = 0; wait < 100; wait++)); do
            daemon_runs "$1" || break
            sleep 0.1
        done
        if daemon_runs "$1"; then
            kill -9 "$pid"
        fi
    fi
    rm -f "$folder/$1.pid"
}

stop_all() {
    local file
    for file in "$folder"/slurmd.*.pid; do
        [[ -e $file ]] || continue
        file=${file##*/}
        stop_daemon "${file%.pid}"
    done
    stop_daemon slurmctld
    stop_daemon munged
}

# wait_for WHAT COMMAND...: until it succeeds, for 20 seconds.
wait_for() {
    local wait
    for ((wait = 0; wait < 200; wait++)); do
        if "${@:2}" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    die "$1 did not come up; its log is in $folder"
}

nodes_are_idle() {
    local states
    states=$(sinfo --noheader --Node --format=%T)
    [[ $(grep -c '^idle$' <<<"$states") == "$nodes" ]]
}

install_packages() {
    local program missing=()
    for program in munged slurmctld slurmd sbatch; do
        [[ -n $(type -P "$program") ]] || missing+=("$program")
    done
    ((${#missing[@]} > 0)) || return 0
    [[ -n $(type -P apt-get) ]] ||
        die "no ${missing[*]}, and no apt-get to install them; install Slurm and MUNGE"
    echo "slurm_local.sh: installing slurm-wlm and munge"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        slurm-wlm munge >/dev/null
}

write_configuration() {
    local number
    cat >"$folder/slurm.conf" <<CONFIGURATION
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$port
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
SlurmUser=root
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
StateSaveLocation=$folder/state
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdSpoolDir=$folder/spool.%n
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,batch_sched_delay=1
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
KillWait=30
MinJobAge=300
ReturnToService=2
SlurmctldTimeout=60
SlurmdTimeout=60
CONFIGURATION
    for ((number = 1; number <= nodes; number++)); do
        printf 'NodeName=node%s NodeHostname=%s NodeAddr=127.0.0.1 Port=%s CPUs=%s\n' \
            "$number" "$(hostname -s)" $((port + number)) "$cpus" >>"$folder/slurm.conf"
    done
    printf 'PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP\n' >>"$folder/slurm.conf"
}

start_all() {
    local number
    [[ $(id -u) == 0 ]] || die "needs root: slurmd starts jobs for other users"
    ! daemon_runs slurmctld || die "$folder: runs already; $0 stop $folder"
    install_packages
    mkdir -p "$folder/state"
    chmod 700 "$folder"
    # Two instances of this script on one machine differ in their ports.
    port=$((20000 + $(cksum <<<"$folder" | cut -d ' ' -f 1) % 10000))
    write_configuration
    export SLURM_CONF=$folder/slurm.conf
    rm -rf "$folder"/state/* "$folder"/spool.* # jobs of an earlier start
    [[ -s $folder/munge.key ]] ||
        (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" \
        --pid-file="$folder/munged.pid" --log-file="$folder/munged.log" \
        --seed-file="$folder/munge.seed"
    slurmctld -f "$SLURM_CONF"
    for ((number = 1; number <= nodes; number++)); do
        mkdir -p "$folder/spool.node$number"
        slurmd -f "$SLURM_CONF" -N "node$number"
    done
    wait_for slurmctld scontrol ping
    wait_for "a node" nodes_are_idle
    sinfo
    printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
}

case $action in
    start) start_all ;;
    stop) stop_all ;;
    *) die "unknown action '$action', expected start or stop" ;;
esac
