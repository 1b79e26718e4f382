#!/usr/bin/python3
"""docs/traps.md: every trap that bears on PostgreSQL has a line, in order, and every test it names exists."""
import os
import re
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NUMBERS = [*range(1, 90), *range(144, 172)]


def exists(test):
    path, _, name = test.partition("::")
    try:
        with open(os.path.join(ROOT, path), encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    return not name or re.search(rf"\b{re.escape(name)}\b", text) is not None


def main():
    wrong, seen = [], []
    with open(os.path.join(ROOT, "docs", "traps.md"), encoding="utf-8") as page:
        for line in page:
            cells = [c.strip() for c in line.strip().strip("|").split(" | ")]
            if not re.fullmatch(r"\d+", cells[0]):
                continue
            seen.append(int(cells[0]))
            if len(cells) != 4 or not all(cells):
                wrong.append(f"trap {cells[0]}: four filled columns are needed")
            for test in re.findall(r"tests/[\w./]+(?:::\w+)?", line):
                if not exists(test):
                    wrong.append(f"trap {cells[0]}: {test} doesn't exist")
    if seen != sorted(set(seen)):
        wrong.append("lines out of order, or one number twice: " + ", ".join(
            str(b) for a, b in zip(seen, seen[1:]) if a >= b))
    missing = sorted(set(NUMBERS) - set(seen))
    if missing:
        wrong.append("no line for " + ", ".join(map(str, missing)))
    print("\n".join(wrong))
    return 1 if wrong else 0


sys.exit(main())
