#!/bin/sh
# Installs the Debian packages that building, checking and the demo need, when one is missing. Says nothing otherwise.
# `deps.sh deep` adds what only check-matrix and check-deep need.
set -eu

packages="build-essential pkg-config git ca-certificates
    libpq-dev libmariadb-dev libcurl4-openssl-dev libssl-dev libzstd-dev libsqlite3-dev libexpat1-dev libjansson-dev
    uthash-dev libxxhash-dev libdeflate-dev libsmartcols-dev uuid-dev libmicrohttpd-dev
    libcmocka-dev clang libclang-rt-14-dev llvm clang-format clang-tidy valgrind shellcheck scdoc
    postgresql postgresql-contrib postgresql-15-cron openssl libnss-wrapper
    python3 python3-botocore python3-boto3 python3-psycopg2 python3-dnspython python3-pytest python3-pytest-timeout"

# npm brings the other versions of PostgreSQL; one that didn't come from Debian does as well
if [ "${1:-}" = deep ] && ! command -v npm >/dev/null; then packages="$packages npm"; fi

if ! command -v dpkg-query >/dev/null; then
    echo "keybridge: this isn't Debian; docs/build.md lists what is needed" >&2
    exit 0
fi

missing=
for package in $packages; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "keybridge: missing packages, and neither root nor sudo to install them:$missing" >&2
        echo "  hint: apt-get install$missing" >&2
        exit 1
    fi
    as_root=sudo
fi

echo "installing:$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# A lock held by another apt for a moment is no failure, nor is a mirror that needs a second try.
options="-y -q --no-install-recommends -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3"
# shellcheck disable=SC2086 # the lists are meant to be split
if ! { $as_root apt-get update -q -o Acquire::Retries=3 &&
       $as_root env DEBIAN_FRONTEND=noninteractive apt-get install $options $missing; } >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    echo "keybridge: installing the packages above failed" >&2
    exit 1
fi
