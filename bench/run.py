#!/usr/bin/python3
"""How fast keybridge is, beside PostgreSQL's own subscription, on two servers of its own.

    make bench                                             # full size: about ten minutes
    make bench ARGS='--repeat 3 --wait 60 --json' > x.json # for machines
    bench/run.py --only tpcb,lag --scale 10
    bench/run.py --only huge                               # memory: ten million rows in one transaction
    bench/plot.py x.json > docs/speed.svg

The measuring is keybridge's own: `keybridge bench drain` and `keybridge bench lag`. Here is only what they need: servers with settings
under which the disk of the load's side doesn't count, and a quiet machine. Decode is bench/decode.c: the decoder alone, from memory.
"others" is what the rest of the machine used during a measurement, as a part of it; with much of it elapsed times are worth little.
"""
import argparse
import datetime
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from lab.pgserver import PgServer, children                            # noqa: E402

BIN = os.path.dirname(os.path.abspath(os.environ.get("KB_BIN", os.path.join(ROOT, "build/release/bin/keybridge"))))
TICK = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count()
QUIET = 0.15                    # of the machine
DRAINS = ["tpcb", "insert", "bulk", "wide", "many"]

# As PostgreSQL comes, but that the source's disk doesn't count: a target of a user's is no tuned one either.
COMMON = {"timezone": "UTC", "max_connections": 50, "log_min_messages": "warning"}
SOURCE = {**COMMON, "wal_level": "logical", "fsync": "off", "max_wal_senders": 20, "max_replication_slots": 60}
# Else a subscription may wait five seconds before it starts.
TARGET = {**COMMON, "max_logical_replication_workers": 4, "wal_retrieve_retry_interval": "10ms"}


def machine_cpu():
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _, _, irq, softirq = [int(x) / TICK for x in f.readline().split()[1:8]]
    return user + nice + system + irq + softirq


def process_cpu(pid):
    """Of the process, and of its children that have ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return sum(int(x) for x in f.read().rpartition(b")")[2].split()[11:15]) / TICK
    except OSError:
        return 0.0


def wait_quiet(most_s):
    """Until the machine has idled for a second, but no longer than that."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        before = machine_cpu()
        time.sleep(1)
        if machine_cpu() - before < QUIET * CPUS:
            return


class Stage:
    def __init__(self, folder):
        self.servers = [PgServer(f"{folder}/{name}", settings=settings, first_port=27000, last_port=27999)
                        for name, settings in (("source", SOURCE), ("target", TARGET))]
        for server in self.servers:
            server.init()
            server.start()

    def close(self):
        for server in self.servers:
            server.remove()

    def used(self):
        return sum(process_cpu(pid) for s in self.servers for pid in [s.pid, *children(s.pid)]) + sum(os.times()[:4])

    def bench(self, *args):
        env = {**os.environ, "KEYBRIDGE_SOURCE": self.servers[0].dsn("postgres"), "KEYBRIDGE_TARGET": self.servers[1].dsn("postgres")}
        began, machine, ours = time.monotonic(), machine_cpu(), self.used()
        done = subprocess.run([f"{BIN}/keybridge", "bench", *args, "--json"], stdout=subprocess.PIPE, text=True, env=env, check=False)
        if done.returncode:
            raise SystemExit(f"bench: keybridge bench {' '.join(args)} ended with {done.returncode}")
        others = (machine_cpu() - machine - (self.used() - ours)) / (time.monotonic() - began) / CPUS
        return json.loads(done.stdout), round(max(0.0, others), 2)


def decode():
    out = subprocess.run([f"{BIN}/decode"], capture_output=True, text=True, check=True).stdout
    rows = []
    for line in out.splitlines()[1:]:
        name, *figures = re.fullmatch(r"(.*?) +([\d.]+) MB/s +([\d.]+) M changes/s +([\d.]+) MB/s +([\d.]+) M changes/s", line).groups()
        rows.append(dict(zip(("stream", "mb_per_s", "changes_per_us", "copied_mb_per_s", "copied_changes_per_us"),
                             [name, *map(float, figures)])))
    return rows


def table(head, rows):
    """Aligned text; the first column to the left."""
    rows = [[f"{c:.2f}" if isinstance(c, float) else str(c) for c in r] for r in [head, *rows]]
    width = [max(len(r[i]) for r in rows) for i in range(len(head))]
    return "\n".join("  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, width))).rstrip() for r in rows)


def tell(report):
    print("  ".join(f"{k} {v}" for k, v in report["machine"].items()))
    if "drain" in report:
        print("\n" + table(["drain", "native s", "source", "target", "keybridge s", "source", "target", "own", "MiB", "ratio", "must", "others"],
                           [[r["backlog"], *(r["native"][k] for k in ("seconds", "source_cpu", "target_cpu")),
                             *(r["keybridge"][k] for k in ("seconds", "source_cpu", "target_cpu", "own_cpu")),
                             int(r["keybridge"]["rss_mib"]), r["ratio"], r["must"], f"{r['others']:.0%}"] for r in report["drain"]]))
    if "lag" in report:
        print("\n" + table(["lag, ms", "p50", "p90", "p99", "p99.9", "max", "source", "target", "own"],
                           [[name, *(r[p + "_us"] / 1000 for p in ("p50", "p90", "p99", "p999", "max")), r["used"]["source_cpu"],
                             r["used"]["target_cpu"], r["used"].get("own_cpu", "")] for name, r in report["lag"].items()
                            if isinstance(r, dict)]) + f"\nothers {report['lag']['others']:.0%}")
    if "decode" in report:
        print("\n" + table(["decode, one core", "MB/s", "M changes/s", "copied MB/s", "M changes/s"], [list(r.values()) for r in report["decode"]]))
    print("\n(source, target, own: CPU seconds)")


def options_of(argv):
    names = [*DRAINS, "huge", "lag", "decode"]
    parser = argparse.ArgumentParser(description="Measures keybridge beside PostgreSQL's own subscription.")
    parser.add_argument("--only", default=",".join(n for n in names if n != "huge"), help=f"of {','.join(names)}")
    parser.add_argument("--scale", default="100", help="size of the backlogs, in percent (100)")
    parser.add_argument("--repeat", default="1", help="drains of each contender (1)")
    parser.add_argument("--rate", default="1000", help="transactions a second, for lag (1000)")
    parser.add_argument("--seconds", default="20", help="how long, for lag (20)")
    parser.add_argument("--lanes", help="keybridge's lanes (its default)")
    parser.add_argument("--wait", type=int, default=0, help="seconds to wait for a quiet machine before each measurement (0)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of tables")
    options = parser.parse_args(argv)
    options.only = options.only.split(",")
    unknown = set(options.only) - set(names)
    if unknown:
        parser.error(f"--only knows {', '.join(names)}, not {', '.join(sorted(unknown))}")
    return options


def measure(options, folder):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    report = {"machine": {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "cpus": CPUS, "cpu": model}}
    lanes = [f"--lanes={options.lanes}"] if options.lanes else []
    stage = Stage(folder) if set(options.only) != {"decode"} else None
    try:
        for name in [n for n in [*DRAINS, "huge"] if n in options.only]:
            wait_quiet(options.wait)
            (result,), others = stage.bench("drain", f"--only={name}", f"--scale={options.scale}", f"--repeat={options.repeat}", *lanes)
            report.setdefault("drain", []).append({**result, "others": others})
        if "lag" in options.only:
            wait_quiet(options.wait)
            result, others = stage.bench("lag", f"--rate={options.rate}", f"--seconds={options.seconds}", *lanes)
            report["lag"] = {**result, "others": others}
    finally:
        if stage:
            stage.close()
    if "decode" in options.only:
        report["decode"] = decode()
    return report


def main(argv):
    options = options_of(argv)
    folder = tempfile.mkdtemp(prefix="keybridge-servers.")
    os.chmod(folder, 0o755)
    try:
        report = measure(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        json.dump(report, sys.stdout, indent=1)
        print()
    else:
        tell(report)


if __name__ == "__main__":
    main(sys.argv[1:])
