#!/bin/sh
# All checks that need no server. usage: lint.sh path/to/keybridge. Prints what is wrong, fails when something is.
# shellcheck disable=SC2317 # the functions are called through check
set -u
keybridge=$1
bad=0

check() {
    name=$1
    shift
    if output=$("$@" 2>&1); then
        echo "ok   $name"
    else
        echo "FAIL $name"
        printf '%s\n' "$output" | sed 's/^/     /'
        bad=1
    fi
}

fresh() { # file, keybridge config's operand
    "$keybridge" config "$2" | diff -u "$1" - | head -20 | grep . && { echo "hint: make docs"; return 1; }
    return 0
}

format() {
    # shellcheck disable=SC2046 # a list of files
    found=$(clang-format --dry-run $(git ls-files '*.c' '*.h') 2>&1 | sed -n 's/^\([^ :]*\):[0-9:]* warning.*/\1/p' | sort | uniq -c)
    [ -z "$found" ] || { printf '%s\nhint: make format\n' "$found"; return 1; }
}

scripts() {
    # shellcheck disable=SC2046
    shellcheck $(git ls-files '*.sh') .ci/run
}

python() {
    # shellcheck disable=SC2046
    PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 -c 'import sys
for name in sys.argv[1:]:
    compile(open(name, encoding="utf-8").read(), name, "exec")' $(git ls-files '*.py')
}

kinds() { # every kind of error has its row in the manual, with its exit code
    sed -n 's/^ *\[ERR_[A-Z]*\] = //p; s/}, *\[ERR_[A-Z]*\] = /},\n/p' engine/base/err.c |
        grep -oE '\{"[a-z]+", [0-9]+\}' | tr -d '{}",' | sort -u | while read -r kind code; do
            [ "$kind" = none ] || grep -qE "^\| \`?$kind\`? *\| *$code " docs/errors.md ||
                { echo "docs/errors.md has no row for kind $kind with exit code $code"; exit 1; }
        done
}

check "layers" tests/lint/layers.sh
check "banned calls" tests/lint/banned.sh
check "C format" format
check "docs/options.md is fresh" fresh docs/options.md markdown
check "docs/keybridge.ini is fresh" fresh docs/keybridge.ini ini
check "docs/errors.md names every kind" kinds
check "docs/traps.md names every trap and real tests" tests/lint/traps.py
check "shell scripts" scripts
check "Python syntax" python
check "man pages" test -s build/man/keybridge.1 -a -s build/man/keybridge.conf.5
exit $bad
