#!/usr/bin/python3
"""Runs the tests in phases, counts what passed and failed in all of them, and ends with one line that says so.

    tests/run.py check                          # everything, as CI does
    tests/run.py unit it --mode asan            # some phases with one build
    tests/run.py matrix                         # other versions of PostgreSQL as source and target
    tests/run.py deep                           # all of it with the long tests: about an hour
    tests/run.py fuzz --seconds 60

Every phase writes build/check/<phase>.log; of a phase that fails the end is printed. Exit code 0 only when nothing failed,
something ran, and no process that a test started is left.
"""
import argparse
import ctypes
import glob
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import xml.etree.ElementTree as ElementTree

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = os.path.join(ROOT, "build", "check")
PYTEST = ["/usr/bin/python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-x" if os.environ.get("KB_FAIL_FAST") else "-ra",
          "--timeout", "600"]
JOBS = str(min(os.cpu_count() or 2, 8))
PR_SET_CHILD_SUBREAPER = 36
# Source and target. 11 to 13 speak protocol 1 only; 15 with 15 is what check runs.
PAIRS = [(14, 14), (14, 18), (15, 17), (16, 15), (17, 18), (18, 18), (18, 15), (11, 15), (12, 16), (13, 18), (15, 11)]
QUICK = ("-m", "not slow")
# tests/it in parts that take about as long; "" is what no other names.
IT = {"rows": ("rows", "lanes", "dead_letter", "twophase", "streaming", "slots"), "stream": ("relay", "replicate", "ddl", "apply"), "": ()}
SMOKE = "test_one_row or test_streamed_with or test_types_with or test_random_transactions"
for _name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES"):     # ours is not the caller's build
    os.environ.pop(_name, None)


class Pool(list):
    """Phases that two workers take in turn, so the longest should come first."""

    def __init__(self, phases):
        super().__init__(phases)
        self.lock = threading.Lock()

    def taken(self):
        while True:
            with self.lock:
                if not self:
                    return
                phase = self.pop(0)
            yield phase


class Totals:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.broken = set()
        self.lock = threading.Lock()

    def run(self, track):
        for name, phase in track:
            mode = name.rpartition("-")[2]
            if mode in self.broken and not name.startswith("build"):
                self.add(name + " (no build)", 0, 1, 0, 0)
                continue
            start = time.monotonic()
            try:
                counts = phase(name)
            except Exception:  # a thread's traceback alone would let the run pass
                traceback.print_exc()
                counts = (0, 1, 0)
            if counts[1] and name.startswith("build-"):
                self.broken.add({"gcc": "release"}.get(mode, mode))
            self.add(name, *counts, time.monotonic() - start)

    def add(self, phase, passed, failed, skipped, seconds):
        with self.lock:
            self.passed += passed
            self.failed += failed
            self.skipped += skipped
        word = "ok  " if not failed else "FAIL"
        more = f", {skipped} skipped" if skipped else ""
        print(f"{word} {phase:<22} {passed:5d} passed, {failed} failed{more}  {seconds:6.1f} s", flush=True)


def log_path(phase):
    os.makedirs(LOGS, exist_ok=True)
    return os.path.join(LOGS, phase + ".log")


def run(phase, command, env=None, timeout=1500, append=False):
    """The command's exit code; output goes to the phase's log. What outlives the time limit is ended with its children."""
    with open(log_path(phase), "ab" if append else "wb") as log:
        log.write(("$ " + shlex.join(command) + "\n").encode())
        log.flush()
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                                   env={**os.environ, **(env or {})}, start_new_session=True)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            log.write(f"\n{phase}: still ran after {timeout} s\n".encode())
            return 124


def tail(phase, lines=60):
    with open(log_path(phase), errors="replace") as log:
        noise = re.compile(r"^  (CC|AR|LINK) |^\\$ ")
        for line in [x for x in log.read().splitlines() if not noise.match(x)][-lines:]:
            print("     | " + line)
    sys.stdout.flush()


# --- phases: each returns (passed, failed, skipped) ------------------------------------------------------------------

def step(phase, command, **more):
    code = run(phase, command, **more)
    if code:
        tail(phase)
    return (0, 1, 0) if code else (1, 0, 0)


def make(phase, *args):
    return step(phase, ["make", "--no-print-directory", "-j" + JOBS, *args])


SANITIZER = {"ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:halt_on_error=1", "UBSAN_OPTIONS": "print_stacktrace=1",
             "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"}


VALGRIND = "valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite"


def unit(phase, build, wrapper=os.environ.get("RUN", ""), server=None):
    """The C tests of a build, as TAP; a program that ends badly without saying so counts as a failure too.

    With the programs of another PostgreSQL, only the tests that need a server.
    """
    passed = failed = skipped = 0
    wrapper = shlex.split(wrapper)
    programs = sorted(p for p in glob.glob(f"{ROOT}/{build}/bin/test_*") if os.path.isfile(
        f"{ROOT}/tests/unit/{os.path.basename(p)}.c"))
    if server:
        programs = [p for p in programs if with_server(p)]
    with open(log_path(phase), "wb") as log:
        for program in programs:
            try:
                done = subprocess.run([*with_server(program, server), *wrapper, program], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.STDOUT, timeout=600,
                                      env={**os.environ, **SANITIZER, "CMOCKA_MESSAGE_OUTPUT": "TAP"})
                output, code = done.stdout, done.returncode
            except subprocess.TimeoutExpired as late:
                output, code = (late.stdout or b"") + b"\nstill ran after 600 s\n", 124
            log.write(f"$ {program}\n".encode() + output + f"=> {code}\n".encode())
            text = output.decode(errors="replace")
            good = len(re.findall(r"(?m)^ok \d+(?!.*# SKIP)", text))
            bad = len(re.findall(r"(?m)^not ok (?!.*# SKIP)", text))
            skipped_here = len(re.findall(r"(?m)^(?:not )?ok \d+.*# SKIP", text))     # cmocka says "not ok"
            skipped += skipped_here
            if (code or not good + skipped_here) and not bad:
                bad = 1
            if bad:
                print("     | " + f"{os.path.relpath(program, ROOT)} => {code}")
                for line in text.splitlines()[-40:]:
                    print("     |   " + line)
            passed, failed = passed + good, failed + bad
    more = replay(phase, build, wrapper) if not server else (0, 0)
    return passed + more[0], failed + more[1], skipped


def with_server(program, bindir=None):
    """Some C tests talk to a real server: with_pg.sh makes one for them."""
    with open(f"{ROOT}/tests/unit/{os.path.basename(program)}.c", encoding="utf-8") as source:
        if "KB_TEST_TARGET" not in source.read():
            return []
    for port in range(22100, 22200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return ["env", f"KB_TEST_PORT={port}", *([f"KB_TEST_PGBIN={bindir}"] if bindir else []), f"{ROOT}/tests/unit/with_pg.sh"]
    return []


def replay(phase, build, wrapper):
    """The fuzzers' seeds and what earlier fuzzing has found, through the same functions in this build."""
    passed = failed = 0
    for source in sorted(glob.glob(f"{ROOT}/tests/fuzz/fuzz_*.c")):
        name = os.path.basename(source)[:-2]
        files = [f for f in glob.glob(f"{ROOT}/tests/fuzz/seeds/{name[5:]}/*") +
                 glob.glob(f"{ROOT}/build/fuzz/{name}/crash-*") if os.path.isfile(f)]
        program = f"{ROOT}/{build}/bin/{name}"
        if not files or not os.path.isfile(program):
            continue
        code = run(phase, [*wrapper, program, *files], env=SANITIZER, timeout=600, append=True)
        if code:
            print(f"     | replaying the seeds of {name} => {code}")
            tail(phase, 30)
        passed, failed = passed + (not code), failed + bool(code)
    return passed, failed


def pytest(phase, folders, binary="build/release", more=(), timeout=1500, **settings):
    """Tests in Python with one build. more: arguments of pytest; settings: variables of the environment."""
    folders = [f for f in folders if ".py" in f or glob.glob(f"{ROOT}/{f}/test_*.py")]
    if not folders:
        return 0, 0, 0
    report = os.path.join(LOGS, phase + ".xml")
    if os.path.exists(report):
        os.unlink(report)
    env = {**SANITIZER, "PYTHONDONTWRITEBYTECODE": "1", "KB_BUILD": f"{ROOT}/{binary}",
           "KB_BIN": f"{ROOT}/{binary}/bin/keybridge", **{k: str(v) for k, v in settings.items()}}
    code = run(phase, [*PYTEST, f"--junitxml={report}", *more, *folders], env=env, timeout=timeout)
    try:
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        counts = [{k: int(s.get(k, 0)) for k in ("tests", "errors", "failures", "skipped")} for s in suites]
    except (OSError, ElementTree.ParseError):
        counts = []
    total = {k: sum(c[k] for c in counts) for k in ("tests", "errors", "failures", "skipped")}
    bad = total["errors"] + total["failures"]
    if code and not bad:
        bad = 1
    if bad:
        tail(phase)
    return max(0, total["tests"] - total["errors"] - total["failures"] - total["skipped"]), bad, total["skipped"]


def fuzz(phase, seconds, at_once=2):
    """Some fuzzers at a time. Findings stay in build/fuzz/<name>/, what was learnt in build/fuzz/<name>/corpus."""
    passed = failed = 0
    waiting = sorted(p for p in glob.glob(f"{ROOT}/build/fuzz/bin/fuzz_*") if os.path.isfile(
        f"{ROOT}/tests/fuzz/{os.path.basename(p)}.c"))
    open(log_path(phase), "wb").close()
    running = []
    while waiting or running:
        while waiting and len(running) < at_once:
            program = waiting.pop(0)
            name = os.path.basename(program)
            home = f"{ROOT}/build/fuzz/{name}"
            os.makedirs(f"{home}/corpus", exist_ok=True)
            seeds = [s for s in (f"{ROOT}/tests/fuzz/seeds/{name[5:]}",) if os.path.isdir(s)]
            words = [f"-dict={d}" for d in (f"{ROOT}/tests/fuzz/{name}.dict",) if os.path.isfile(d)]
            log = open(f"{home}/log", "wb")
            command = [program, f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048",
                       f"-artifact_prefix={home}/", "-print_final_stats=1", *words, f"{home}/corpus", *seeds]
            running.append((name, home, log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log,
                                                              stderr=subprocess.STDOUT, env={**os.environ, **SANITIZER})))
        for entry in running:
            name, home, log, process = entry
            if process.poll() is None:
                continue
            running.remove(entry)
            log.close()
            with open(f"{home}/log", errors="replace") as f:
                text = f.read()
            runs = re.search(r"stat::number_of_executed_units: (\d+)", text)
            with open(log_path(phase), "a") as f:
                f.write(f"{name}: exit {process.returncode}, {runs.group(1) if runs else '?'} runs\n")
            if process.returncode:
                failed += 1
                print(f"     | {name} found something; its input is in {os.path.relpath(home, ROOT)}")
                for line in text.splitlines()[-30:]:
                    print("     |   " + line)
            else:
                passed += 1
            break
        time.sleep(0.2)
    return passed, failed, 0


def builds(mode):
    return f"build/{mode}"


def build(phase, mode, *more):
    return make(phase, f"MODE={mode}", *more, "tests")


# --- versions of PostgreSQL --------------------------------------------------------------------------------------------

def fetch_versions(phase):
    return step(phase, [f"{ROOT}/tests/lab/pgversions.py", "fetch"])


def pair(source, target, more=("-m", "matrix and not slow")):
    return (f"matrix-{source}to{target}-debug",
            lambda p: pytest(p, ["tests/it", "tests/crash", "tests/workload"], builds("debug"), more, KB_PG_SOURCE=source,
                             KB_PG_TARGET=target, KB_SEEDS=2))


def unit_on(major):
    """The C tests that need a server, with one of another version."""
    def phase(name):
        where = subprocess.run([f"{ROOT}/tests/lab/pgversions.py", "path", str(major)], check=True, capture_output=True, text=True)
        return unit(name, builds("debug"), server=where.stdout.strip())
    return f"unit-on{major}-debug", phase


def smoke(phase):
    """One pair of other versions in every check, where they can be had."""
    done = subprocess.run([f"{ROOT}/tests/lab/pgversions.py", "fetch", "14", "18"], capture_output=True, text=True)
    if done.returncode:
        print(f"     | {phase}: skipped: {done.stderr.strip()}")
        return 0, 0, 1
    return pytest(phase, ["tests/it/test_replicate.py", "tests/it/test_apply.py"], more=["-k", SMOKE], KB_PG_SOURCE=14, KB_PG_TARGET=18)


# --- which phases there are --------------------------------------------------------------------------------------------

def deep(seconds):
    """Everything, for two cores and about an hour. What takes longest comes first."""
    it, crash, workload = ["tests/it"], ["tests/crash"], ["tests/workload"]
    return [
        *[(f"build-{mode}", lambda p, mode=mode: build(p, mode, "WERROR=1")) for mode in ("release", "asan", "tsan")],
        ("build-clang", lambda p: build(p, "debug", "CC=clang", "WERROR=1", "B=build/clang")),
        ("build-debug", lambda p: build(p, "debug")),
        ("build-fuzz", lambda p: make(p, "MODE=fuzz", "WERROR=1", "fuzzers")),
        ("lint", lambda p: make(p, "lint")),
        ("fetch-postgresql", fetch_versions),
        Pool([
            ("workload-release", lambda p: pytest(p, workload, timeout=3600, KB_SEEDS=200, KB_JOBS=1)),
            ("it-tsan", lambda p: pytest(p, it, builds("tsan"), timeout=3600)),
            ("fuzz", lambda p: fuzz(p, seconds, 1)),
            ("it-asan", lambda p: pytest(p, it, builds("asan"), timeout=3600, KB_SEEDS=20)),
            ("move-asan", lambda p: pytest(p, [f for f in other_folders() if f not in workload], builds("asan"), timeout=3600,
                                           KB_SNAPSHOTS=10)),
            ("unit-valgrind-debug", lambda p: unit(p, builds("debug"), VALGRIND)),
            ("memory-release", lambda p: pytest(p, ["tests/it/test_replicate.py::test_big_transaction",
                                                    "tests/it/test_replicate.py::test_ten_million_rows"], timeout=3600, KB_DEEP=1)),
            ("crash-tsan", lambda p: pytest(p, crash, builds("tsan"), timeout=3600)),
            ("crash-asan", lambda p: pytest(p, crash, builds("asan"), timeout=3600, KB_KILLS=20)),
            *[pair(*which) for which in PAIRS],
            *map(unit_on, (11, 14, 18)),
            ("stream-valgrind-debug", lambda p: pytest(p, ["tests/it/test_replicate.py"], builds("debug"), ["-k", SMOKE],
                                                       KB_WRAP=VALGRIND)),
            ("lab", lambda p: pytest(p, ["tests/lab"])),
            *[(f"unit-{mode}", lambda p, mode=mode: unit(p, builds(mode))) for mode in ("tsan", "asan", "release")],
        ]),
    ]


def it_files(part):
    named = {f"tests/it/test_{name}.py" for names in IT.values() for name in names}
    if part:
        return [f"tests/it/test_{name}.py" for name in IT[part]]
    return sorted({os.path.relpath(p, ROOT) for p in glob.glob(f"{ROOT}/tests/it/test_*.py")} - named)


def other_folders():
    """Folders with tests in Python that have no phase of their own."""
    found = {os.path.dirname(os.path.relpath(p, ROOT)) for p in glob.glob(f"{ROOT}/tests/*/test_*.py")}
    return sorted(found - {"tests/lab", "tests/it", "tests/crash"})


def plan(names, mode, seconds):
    """(name, function) of every phase in order; lists of them, side by side, are tracks that run at the same time."""
    every = {
        "unit": [(f"build-{mode}", lambda p: build(p, mode)), (f"unit-{mode}", lambda p: unit(p, builds(mode)))],
        "it": [(f"build-{mode}", lambda p: build(p, mode)),
               (f"it-{mode}", lambda p: pytest(p, ["tests/it"], builds(mode)))],
        "lab": [("lab", lambda p: pytest(p, ["tests/lab"]))],
        "crash": [("build-asan", lambda p: build(p, "asan")),
                  ("crash-asan", lambda p: pytest(p, ["tests/crash"], builds("asan")))],
        "move": [("build-debug", lambda p: build(p, "debug")),
                 ("move-debug", lambda p: pytest(p, other_folders(), builds("debug")))],
        "matrix": [("build-debug", lambda p: build(p, "debug")), ("fetch-postgresql", fetch_versions),
                   Pool([*[pair(*which) for which in PAIRS], *map(unit_on, (11, 14, 18))])],
        "deep": deep(seconds),
        "fuzz": [("build-fuzz", lambda p: make(p, "MODE=fuzz", "fuzzers")), ("fuzz", lambda p: fuzz(p, seconds))],
        "check": [
            ("build-gcc", lambda p: build(p, "release", "CC=gcc", "WERROR=1")),
            ("lint", lambda p: make(p, "lint")),
            ("build-clang", lambda p: build(p, "debug", "CC=clang", "WERROR=1", "B=build/clang")),
            ("build-asan", lambda p: build(p, "asan", "CC=gcc", "WERROR=1")),
            ("build-fuzz", lambda p: make(p, "MODE=fuzz", "WERROR=1", "fuzzers")),
            Pool([
                *[(f"it-{part or 'rest'}-asan", lambda p, part=part: pytest(p, it_files(part), builds("asan"), QUICK)) for part in IT],
                ("move-asan", lambda p: pytest(p, other_folders(), builds("asan"), QUICK)),
                ("fuzz", lambda p: fuzz(p, seconds, 1)),
                ("lab", lambda p: pytest(p, ["tests/lab"])),
                ("crash-asan", lambda p: pytest(p, ["tests/crash"], builds("asan"), QUICK)),
                *[(f"unit-{mode}", lambda p, mode=mode: unit(p, builds(mode))) for mode in ("release", "asan")],
                # A sanitizer keeps what was freed, so memory is measured without one.
                ("memory-release", lambda p: pytest(p, ["tests/it/test_replicate.py::test_big_transaction"])),
                ("versions-release", smoke),
            ]),
        ],
    }
    phases = []
    for name in names:
        phases += [p for p in every[name] if isinstance(p, list) or p[0] not in [q[0] for q in phases]]
    return phases


# --- nothing may be left ----------------------------------------------------------------------------------------------

def stat_of(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            rest = f.read().rpartition(b")")[2].split()
        return rest[0].decode(), int(rest[1])
    except OSError:
        return None


def descendants():
    """Live processes below this one. As their subreaper we inherit those whose parents have ended."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = stat_of(name)
            if stat and stat[0] not in "ZX":
                parents[int(name)] = stat[1]
    found, new = [], [os.getpid()]
    while new:
        new = [pid for pid, parent in parents.items() if parent in new]
        found += new
    return found


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end_leftovers():
    """How many processes had to be ended. The watchdogs of killed tests get a moment to do it themselves."""
    deadline = time.monotonic() + 20
    while descendants() and time.monotonic() < deadline:
        reap()
        time.sleep(0.2)
    left = descendants()
    for pid in left:
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                words = [w.decode(errors="replace") for w in f.read().split(b"\0")]
            print(f"     | left over: {pid} {' '.join(words)[:200]}")
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass
    time.sleep(0.1 if left else 0)
    reap()
    return len(left)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("phases", nargs="+", choices=["check", "unit", "it", "lab", "crash", "move", "fuzz", "matrix", "deep"])
    parser.add_argument("--mode", default="release", help="build of unit and it")
    parser.add_argument("--seconds", type=int, default=30, help="of each fuzzer")
    args = parser.parse_args()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    began = time.monotonic()
    totals = Totals()
    phases = plan(args.phases, args.mode, args.seconds)
    while phases:
        if isinstance(phases[0], Pool):
            pool = phases.pop(0)
            tracks = [pool.taken(), pool.taken()]
        else:
            tracks = list(itertools.takewhile(lambda p: isinstance(p, list) and not isinstance(p, Pool), phases)) or [phases[:1]]
            phases = phases[len(tracks):]
        threads = [threading.Thread(target=totals.run, args=(track,)) for track in tracks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    left = end_leftovers()
    if left:
        totals.add("nothing left over", 0, left, 0, 0)
    if not totals.passed:
        totals.failed = max(1, totals.failed)
    print(f"{time.monotonic() - began:.0f} s, {totals.skipped} skipped")
    print(f"{totals.passed} passed, {totals.failed} failed")
    return 1 if totals.failed else 0


if __name__ == "__main__":
    sys.exit(main())
