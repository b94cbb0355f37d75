#!/usr/bin/env bash
# Grid Engine on this machine alone, from Debian's packages, which are unpacked into a folder and not
# installed: a master and one host of two slots, on loopback. For tests and to try `--cmd_backend sge`;
# needs root, and the network for the packages alone.
#
# Usage: tools/gridengine_local.sh start FOLDER [--slots N]
#        tools/gridengine_local.sh stop FOLDER
#   start   fetch the packages where they are missing, write the cell, start both daemons, wait until the
#           queue all.q takes jobs
#   stop    end the daemons that FOLDER's start began (by their process ids), leave their logs
# Then: source FOLDER/settings.sh; qhost

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
slots=2
while (($# > 0)); do
    [[ $1 == --slots ]] || die "unknown option '$1', expected --slots"
    [[ ${2:-} =~ ^[1-9][0-9]?$ ]] || die "$1 ${2:-}: expected a whole number from 1"
    slots=$2
    shift 2
done
packages=$folder/packages
programs=$packages/usr/lib/gridengine
share=$packages/usr/share/gridengine
cell=$folder/default
fixed=/usr/lib/gridengine # where Debian's build looks for its library: a link, until `stop`

# daemon_runs FILE: succeed while the process that the file tells of is one of FOLDER's daemons.
daemon_runs() {
    local pid
    [[ -s $1 ]] || return 1
    pid=$(<"$1")
    [[ $(readlink "/proc/$pid/exe") == "$programs"/sge_* ]]
}

stop_daemon() {
    local pid wait
    if daemon_runs "$1"; then
        pid=$(<"$1")
        kill "$pid"
        for ((wait = 0; wait < 200; wait++)); do
            daemon_runs "$1" || break
            sleep 0.1
        done
        if daemon_runs "$1"; then
            kill -9 "$pid"
        fi
    fi
    rm -f "$1"
}

stop_all() {
    local file
    for file in "$folder"/execd/*/execd.pid; do # the folder has the first name of loopback
        [[ ! -e $file ]] || stop_daemon "$file"
    done
    stop_daemon "$folder/qmaster/qmaster.pid"
    [[ $(readlink "$fixed") != "$programs" ]] || rm "$fixed"
}

# wait_for WHAT COMMAND...: until it succeeds, for 30 seconds.
wait_for() {
    local wait
    for ((wait = 0; wait < 300; wait++)); do
        if "${@:2}" >/dev/null 2>&1; then
            return
        fi
        sleep 0.1
    done
    die "$1 did not come up; logs: $folder/qmaster/messages, $folder/execd/*/messages"
}

fetch_packages() {
    local file
    [[ ! -x $programs/sge_qmaster ]] || return 0
    [[ -n $(type -P apt-get) ]] || die "no apt-get to fetch Grid Engine's packages with"
    echo "gridengine_local.sh: fetching gridengine-master, -exec, -client, -common"
    mkdir -p "$folder/archives"
    (cd "$folder/archives" &&
        apt-get -qq download gridengine-{master,exec,client,common} libjemalloc2 libhwloc15 libtirpc3 libmunge2)
    for file in "$folder"/archives/*.deb; do
        dpkg -x "$file" "$packages"
    done
}

write_settings() {
    cat >"$folder/settings.sh" <<SETTINGS
export SGE_ROOT='$folder' SGE_CELL=default SGE_QMASTER_PORT=$port SGE_EXECD_PORT=$((port + 1))
export PATH='$programs':\$PATH
export LD_LIBRARY_PATH='$programs:$packages/usr/lib/x86_64-linux-gnu:$packages/lib/x86_64-linux-gnu'
SETTINGS
    # shellcheck source=/dev/null
    source "$folder/settings.sh"
}

write_cell() {
    local architecture
    rm -rf "$cell" "$folder/qmaster" "$folder/execd" "${folder:?}/bin" # jobs of an earlier start
    mkdir -p "$cell/common" "$folder/qmaster/job_scripts" "$folder/execd" "$folder/bin"
    ln -sfn "$share/util" "$folder/util"
    architecture=$("$folder/util/arch")
    ln -s "$programs" "$folder/bin/$architecture"
    ln -s "$programs"/* "$folder/bin"
    hostname -s >"$cell/common/act_qmaster"
    # Names of loopback are one host to Grid Engine.
    printf '%s localhost\n' "$(hostname -s)" >"$cell/common/host_aliases"
    cat >"$cell/common/bootstrap" <<BOOTSTRAP
admin_user              none
default_domain          none
ignore_fqdn             true
spooling_method         classic
spooling_lib            libspoolc
spooling_params         $cell/common;$folder/qmaster
binary_path             $folder/bin
qmaster_spool_dir       $folder/qmaster
security_mode           none
listener_threads        2
worker_threads          2
scheduler_threads       1
BOOTSTRAP
    sed -e "s|^execd_spool_dir .*|execd_spool_dir $folder/execd|" -e 's|^min_\([ug]\)id .*|min_\1id 0|' \
        "$share/default-configuration" >"$folder/configuration"
    "$programs/spoolinit" classic libspoolc "$cell/common;$folder/qmaster" init
    "$programs/spooldefaults.bin" configuration "$folder/configuration"
    "$programs/spooldefaults.bin" complexes "$share/util/resources/centry"
    "$programs/spooldefaults.bin" usersets "$share/util/resources/usersets"
    "$programs/spooldefaults.bin" managers root
}

# write_queue: the queue all.q of this host, and the parallel environment that `cpu` asks for.
write_queue() {
    local host
    host=$(hostname -s)
    qconf -as "$host"
    sed "s/^slots .*/slots $slots/" "$share/util/resources/pe/smp" >"$folder/smp"
    qconf -Ap "$folder/smp"
    printf 'group_name @allhosts\nhostlist %s\n' "$host" >"$folder/hosts"
    qconf -Ahgrp "$folder/hosts"
    # The defaults that `qconf -aq` offers to edit, with this host, its slots, and jobs at any load.
    {
        EDITOR="cat" qconf -aq all.q 2>/dev/null || true # it misses environments that it offers
    } | sed -n -e "s|^hostlist .*|hostlist @allhosts|; s|^slots .*|slots $slots|; s|^pe_list .*|pe_list smp|" \
        -e 's|^load_thresholds .*|load_thresholds NONE|; s|^rerun .*|rerun TRUE|; /^[a-z_]* /p' \
        >"$folder/queue"
    qconf -Aq "$folder/queue"
}

queue_is_up() {
    [[ $(qstat -f -q all.q | grep -c "^all.q@.* -NA-") == 0 ]] &&
        qhost | grep -q "^$(hostname -s) .*[0-9]"
}

start_all() {
    [[ $(id -u) == 0 ]] || die "needs root: the daemon starts jobs for other users"
    ! daemon_runs "$folder/qmaster/qmaster.pid" || die "$folder: runs already; $0 stop $folder"
    mkdir -p "$folder"
    fetch_packages
    # Two instances of this script on one machine differ in their ports.
    port=$((20000 + $(cksum <<<"$folder" | cut -d ' ' -f 1) % 10000))
    write_settings
    [[ -e $fixed ]] || ln -s "$programs" "$fixed"
    write_cell
    "$programs/sge_qmaster"
    wait_for sge_qmaster qconf -sconf
    write_queue
    "$programs/sge_execd"
    wait_for sge_execd queue_is_up
    qstat -f
    printf 'source %q\n' "$folder/settings.sh"
}

case $action in
    start) start_all ;;
    stop) stop_all ;;
    *) die "unknown action '$action', expected start or stop" ;;
esac
