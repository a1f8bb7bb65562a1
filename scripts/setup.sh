#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that MCR needs and that are missing; does nothing when all
# are there.
#
#   scripts/setup.sh build    to compile: clang and headers for the eBPF program, a C linker
#   scripts/setup.sh demo     to run demo and benchmarks as well: namespaces, tc, tables
#   scripts/setup.sh test     to run the tests too: programs of others that send, receive, watch and judge
#   scripts/setup.sh lint     to check shell scripts as well
#   scripts/setup.sh audit    cargo-deny
set -euo pipefail

purpose=${1:?usage: setup.sh build|demo|test|lint|audit}
packages=(clang gcc libbpf-dev linux-libc-dev make)
demo=(curl ethtool iproute2 jq procps socat tcpdump util-linux)

if ! command -v cargo >/dev/null; then
    echo "setup: Rust is missing: install it with rustup, then run this again" >&2
    exit 1
fi
case $purpose in
build) ;;
demo) packages+=("${demo[@]}") ;;
test)
    packages+=("${demo[@]}" ffmpeg iperf mgen nftables prometheus python3-prometheus-client smcroute
        tcpreplay tmux)
    ;;
lint) packages+=(shellcheck) ;;
audit)
    command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
    exit 0
    ;;
*)
    echo "setup: unknown purpose $purpose" >&2
    exit 2
    ;;
esac

missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
        missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "setup: no apt-get here; install the equivalents of: ${missing[*]}" >&2
    exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "setup: run as root, or install by hand: apt-get install ${missing[*]}" >&2
    exit 1
fi
echo "setup: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
# smcroute would start its daemon, here and at every boot, and make this host a multicast router: the
# tests start one of their own, in a namespace. Of prometheus they need promtool alone. A policy that
# the host has is left as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
for service in prometheus smcroute; do
    if [[ " ${missing[*]} " = *" $service "* && -e /etc/init.d/$service ]]; then
        update-rc.d "$service" disable >/dev/null
    fi
done
