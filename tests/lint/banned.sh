#!/bin/sh
# Prints calls that hide overruns, share state between threads or start a shell; fails when there is one.
set -eu

sources=$(git ls-files 'engine/*.[ch]' 'decoders/*.[ch]' 'appliers/*.[ch]' 'aws/*.[ch]' 2>/dev/null)
[ -n "$sources" ] || sources=$(find engine decoders appliers aws -name '*.[ch]')

calls='strcpy|strcat|strncpy|strncat|sprintf|vsprintf|gets|strtok|gmtime|localtime|ctime|asctime|atoi|atol|atoll|atof'
calls="$calls|system|popen|tmpnam|mktemp|alloca|rand|srand|strerror|setenv|putenv|unsetenv|readdir_r|longjmp|setjmp"

# Comments may name them: what stands behind // or inside /* … */ of one line is taken out first.
# shellcheck disable=SC2086 # a list of files
found=$(for file in $sources; do
    [ -f "$file" ] || continue
    sed -e 's|/\*.*\*/||' -e 's|^ *\*.*||' -e 's|//.*||' -e 's|/\*.*||' -e 's/"\([^"\\]\|\\.\)*"/""/g' "$file" |
        grep -nE "(^|[^a-zA-Z0-9_>.])($calls) *\(" | sed "s|^|$file:|" || true
    # A Buf that is freed at the end of the scope must have been initialised before the first way out.
    awk -v file="$file" '
        match($0, /^ *AUTO_BUF [a-z_0-9]+;/) { name = $2; sub(/;/, "", name); open[name] = NR }
        /^}/ { for (n in open) delete open[n] }
        { for (n in open) if (index($0, "buf_init(&" n ",")) delete open[n] }
        /(^|[^a-z_])return[ ;]/ { for (n in open) { print file ":" NR ": returns before buf_init(&" n "), line " open[n]; delete open[n] } }
    ' "$file"
done
# No names of this or that workplace, and no unfinished business without a number.
grep -nE '\b(TODO|FIXME|XXX)\b' $sources | grep -vE '(TODO|FIXME) ?\(?#[0-9]+' || true)

[ -z "$found" ] || { printf '%s\n' "$found"; exit 1; }
