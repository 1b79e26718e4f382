#!/bin/sh
# Lists functions that have a header's visibility and are used by one object only: they should be static.
# usage: singleuse.sh libkeybridge.a main.o [test objects…]. Advisory.
set -eu

symbols=$(mktemp)
trap 'rm -f "$symbols"' EXIT
nm -A "$@" 2>/dev/null > "$symbols"
awk '$(NF-1) == "T" { print $NF }' "$symbols" | sort -u | while read -r name; do
    grep -q " U $name\$" "$symbols" || echo "$name"
done | grep -vx 'main' || true
