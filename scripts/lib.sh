# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034 # what looks unused is for those who source it
# What the commands in this folder share: steps with their time, clean-up, Debian packages, the build.
#
# To be sourced, under `set -euo pipefail`, from a script that then works in the root of the checkout. Long output goes
# to a file in build/logs; the terminal gets one line a step, and the end of the file when the step fails.

# The lists name Debian and Ubuntu packages.
PACKAGES_BUILD=(gcc libc6-dev make cmake pkg-config
    libhiredis-dev libpq-dev libcjson-dev libuv1-dev libssl-dev libinih-dev libsqlite3-dev
    libmicrohttpd-dev libsystemd-dev libcurl4-openssl-dev uthash-dev)
PACKAGES_SERVERS=(redis-server postgresql)
PACKAGES_TEST=("${PACKAGES_SERVERS[@]}" redis-sentinel pgbouncer libcmocka-dev python3 python3-pytest python3-redis
    python3-psycopg python3-yaml python3-jsonschema iproute2 openssl libfaketime mandoc groff-base prometheus logrotate spin
    chromium chromium-driver python3-selenium)
PACKAGES_BENCH=("${PACKAGES_SERVERS[@]}" python3 python3-psycopg python3-redis python3-hiredis python3-asyncpg
    python3-matplotlib)
PACKAGES_DEPLOY=(git debootstrap iproute2 systemd-container lintian podman buildah runc docker-compose openssl python3
    python3-pytest)
PACKAGES_SCREENSHOTS=(python3 chromium chromium-driver python3-selenium fonts-inter fontconfig)
PACKAGES_LINT=(clang-format clang-tidy cppcheck shellcheck pyflakes3)

LOG_FOLDER=build/logs
# Servers that come with a package are enabled for the next boot; what we installed for ourselves must not be.
SYSTEM_SERVICES=(redis-server redis-sentinel postgresql pgbouncer prometheus)

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD='' DIM='' RED='' GREEN='' YELLOW='' PLAIN=''
fi

say() {
    printf '%s\n' "$*"
}

title() {
    printf '\n%s%s%s\n' "$BOLD" "$*" "$PLAIN"
}

# die MESSAGE [WHAT TO DO...]: one line each, exit 1.
die() {
    local line
    printf '%s%s: %s%s\n' "$RED" "${0##*/}" "$1" "$PLAIN" >&2
    shift
    for line in "$@"; do
        printf '  %s\n' "$line" >&2
    done
    exit 1
}

# at_exit COMMAND: run when the script ends, in whatever way; the last one given runs first.
EXIT_COMMANDS=()
at_exit() {
    EXIT_COMMANDS=("$1" "${EXIT_COMMANDS[@]}")
}

run_exit_commands() {
    local status=$? command
    trap '' INT TERM HUP # a second Ctrl-C must not cut the clean-up short
    for command in "${EXIT_COMMANDS[@]}"; do
        eval "$command" || true
    done
    exit "$status"
}
trap run_exit_commands EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# step WHAT COMMAND...: runs it with its output in a file; shows WHAT, then the time it took. Ends the script when it
# fails, with the end of the output and with STEP_HINT, where the caller has set one: what a person can do about it.
step() {
    local what=$1 log started=$EPOCHREALTIME
    shift
    mkdir -p "$LOG_FOLDER"
    log=$LOG_FOLDER/$(tr -cs '[:alnum:]' - <<<"$what" | sed 's/-*$//').log
    printf '  %s ... ' "$what"
    if "$@" >"$log" 2>&1 </dev/null; then
        printf '%s%s%s\n' "$DIM" "$(seconds_since "$started")" "$PLAIN"
        return
    fi
    printf '%sfailed%s after %s\n\n' "$RED" "$PLAIN" "$(seconds_since "$started")"
    tail -n 30 "$log" | sed 's/^/    | /' >&2
    say >&2
    die "'$what' failed: the lines above are the end of $log" "${STEP_HINT:-Fix what it names, then run it again.}"
}

seconds_since() {
    local now=$EPOCHREALTIME elapsed
    elapsed=$(((${now/[.,]/} - ${1/[.,]/}) / 100000))
    printf '%d.%d s' $((elapsed / 10)) $((elapsed % 10))
}

as_root() {
    if ((EUID == 0)); then
        "$@"
    else
        sudo "$@"
    fi
}

# missing_packages PACKAGE...: those that are not installed, one a line.
missing_packages() {
    local installed
    installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    printf '%s\n' "$@" | sort -u | while read -r package; do
        grep -qx "installed $package" <<<"$installed" || say "$package"
    done
}

# ensure_packages PACKAGE...: installs what is missing; without a question, without starting a service, and without a
# call of apt when everything is there.
ensure_packages() {
    local missing
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "  ${YELLOW}This is neither Debian nor Ubuntu: going on as if everything needed was installed, which is${PLAIN}"
        say "  $* (Debian's names)"
        return
    fi
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0

    say "  Debian packages to install: ${missing[*]}"
    ensure_root_rights "${missing[@]}"
    hold_back_services
    step "read the package lists" run_apt update
    STEP_HINT="A package that cannot be found: on Ubuntu 'sudo add-apt-repository universe', else see /etc/apt." \
        step "install ${#missing[@]} packages" run_apt install --no-install-recommends "${missing[@]}"
    release_services "${missing[@]}"
}

ensure_root_rights() {
    ((EUID != 0)) || return 0
    if command -v sudo >/dev/null; then
        sudo -n true 2>/dev/null && return
        # Ask for the password here, where it can be seen, and not within a step.
        [[ -t 0 ]] && sudo -v && return
    fi
    die "packages are missing, and installing them takes root's rights" \
        "Run this as root, or as a user with sudo, or have somebody run:" \
        "apt-get update && apt-get install --no-install-recommends $*"
}

run_apt() {
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -y -q -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@"
}

# Debian starts a server when its package is installed, and makes a database cluster. While these two files are there it
# does neither. They go when the script ends, or sooner.
NO_START=/usr/sbin/policy-rc.d
NO_CLUSTER=/etc/postgresql-common/createcluster.d/promptd.conf
hold_back_services() {
    at_exit remove_service_holds
    if [[ ! -e $NO_START ]]; then
        as_root sh -c "printf '#!/bin/sh\n# promptd: no services while its packages are installed\nexit 101\n' >$NO_START &&
                       chmod 755 $NO_START"
    fi
    as_root mkdir -p "${NO_CLUSTER%/*}"
    as_root sh -c "echo 'create_main_cluster = false' >$NO_CLUSTER"
}

remove_service_holds() {
    if grep -qs '^# promptd:' $NO_START; then
        as_root rm -f $NO_START
    fi
    if [[ -e $NO_CLUSTER ]]; then
        as_root rm -f $NO_CLUSTER
    fi
}

release_services() {
    local service
    remove_service_holds
    for service in "${SYSTEM_SERVICES[@]}"; do
        if [[ " $* " == *" $service "* ]]; then
            as_root update-rc.d "$service" disable >/dev/null 2>&1 || true # with systemd it disables the unit, too
        fi
    done
}

# build_preset PRESET FOLDER [CMAKE ARGUMENT...] [-- TARGET...]: configures FOLDER and builds it, or only these targets.
build_preset() {
    local preset=$1 folder=$2 arguments=()
    shift 2
    while (($#)) && [[ $1 != -- ]]; do
        arguments+=("$1")
        shift
    done
    discard_moved_build "$folder"
    STEP_HINT="A library that is not found is named with its package. A stale build goes with: rm -rf $folder" \
        step "configure ($preset)" cmake --preset "$preset" -B "$folder" "${arguments[@]}"
    STEP_HINT="If the compiler has not said what is wrong: rm -rf $folder, and try again." \
        step "build ($preset)" cmake --build "$folder" --parallel "$(nproc)" ${1:+--target "${@:2}"}
}

# CMake refuses a build folder that was made elsewhere, as after moving or copying the checkout.
discard_moved_build() {
    local home
    home=$(sed -n 's/^CMAKE_HOME_DIRECTORY:INTERNAL=//p' "$1/CMakeCache.txt" 2>/dev/null || true)
    if [[ -n $home && $home != "$PWD" ]]; then
        say "  $1 was made in $home: building it anew"
        rm -rf "$1"
    fi
}
