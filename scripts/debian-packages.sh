#!/usr/bin/env bash
# Installs the Debian packages the local cluster needs where we are root; elsewhere prints the one command to type.
set -euo pipefail

declare -A program_of=(
    [bubblewrap]=bwrap [iproute2]=ip [nftables]=nft [util-linux]=unshare [openssl]=openssl [procps]=sysctl
)
missing=()
PATH=$PATH:/usr/sbin:/sbin
for package in "${!program_of[@]}"; do
    command -v "${program_of[$package]}" >/dev/null 2>&1 || missing+=("$package")
done
# SGLang imports numa through ctypes only when it is there; Debian's own Python has no venv until this package is in.
python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || missing+=(python3-venv)
[ ${#missing[@]} -eq 0 ] && exit 0

command="apt-get install --yes --no-install-recommends ${missing[*]}"
if [ "$(id -u)" != 0 ]; then
    echo "Missing Debian packages. Type this, then run the same command again:" >&2
    echo "    sudo apt-get update && sudo $command" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Missing programs of the Debian packages: ${missing[*]}. Install them with this system's package manager." >&2
    exit 1
fi
echo "==> Installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # the words of the command are arguments
$command -qq >/dev/null
