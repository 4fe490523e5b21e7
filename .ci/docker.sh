#!/bin/bash
# Makes a Docker engine answer on a bare Debian machine. Run as root; safe to run again.
# It also installs debootstrap, from which tests/realtasks builds a base image without a
# registry, an SSH server, through which tests reach an engine, and busybox, whose tools
# are those of many small images.
set -euo pipefail

readonly TIMEOUT_S=60

engine_version() {
    docker version --format '{{.Server.Version}}' 2>/dev/null
}

install_packages() {
    if ! command -v dockerd debootstrap sshd busybox | awk 'END { exit NR != 4 }'; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io debootstrap openssh-server busybox
    fi
}

start_engine() {
    local log pid
    # An engine that was killed leaves its pid file, and the next one refuses to start.
    pgrep --exact --runstates D,I,R,S dockerd >/dev/null || rm -f /var/run/docker.pid
    log=$(mktemp --suffix=.dockerd.log)
    # There is no init system to do it: setsid keeps the engine alive when this shell ends.
    setsid nohup dockerd >"$log" 2>&1 </dev/null &
    pid=$!
    for ((second = 0; second < TIMEOUT_S; second++)); do
        engine_version >/dev/null && return
        kill -0 "$pid" 2>/dev/null || break
        sleep 1
    done
    echo "dockerd did not answer; the end of $log:" >&2
    tail -n 30 "$log" >&2
    return 1
}

install_packages
engine_version >/dev/null || start_engine
echo "Docker engine $(engine_version)"
