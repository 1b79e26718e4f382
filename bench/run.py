#!/usr/bin/python3
"""How fast keybridge is, beside PostgreSQL's own subscription, on servers of its own.

    make bench                                  # about five minutes
    bench/run.py --full --repeat 5              # backlogs of full size
    bench/run.py --only tpcb,lag --json         # for machines, on stdout

Drain: slots are made, a load is written, then each contender works off the same backlog into a fresh copy of the target,
by turns, --repeat times; medians. Native counts from ALTER SUBSCRIPTION … ENABLE until the last transaction can be seen
on the target; keybridge from the start of its process until that has ended, with everything flushed on the target. Content
is compared after every drain. "Reading" is keybridge's reading half alone, into nothing: the least that a drain can take here.

Lag: at a fixed rate, from the answer to a commit on the source until the target shows it (bench/lag.c).
Decode: the decoder alone, from memory (bench/decode.c).

CPU is that of whole servers, all processes, from the kernel's books. "Others" is what the rest of the machine
used meanwhile: figures with much of it are marked with ! and worth little.
"""
import argparse
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests"))
sys.path.insert(0, os.path.join(ROOT, "bench"))

from backlogs import BACKLOGS                                          # noqa: E402
from lab.pgserver import PgServer, wait_for                            # noqa: E402

BIN = os.path.dirname(os.path.abspath(os.environ.get("KB_BIN", os.path.join(ROOT, "build/release/bin/keybridge"))))
TICK = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count()
DISTURBED = 0.15                # of the machine, used by others
PATIENCE_S = 900

COMMON = {"shared_buffers": "512MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off",
          "timezone": "UTC", "max_connections": 50, "log_min_messages": "warning", "max_parallel_workers_per_gather": 0}
# The load's own disk is no part of what is measured.
SOURCE = {**COMMON, "wal_level": "logical", "fsync": "off", "max_wal_senders": 20, "max_replication_slots": 60}
# Else a subscription may wait five seconds before it starts.
TARGET = {**COMMON, "max_logical_replication_workers": 4, "wal_retrieve_retry_interval": "10ms"}


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- CPU time --------------------------------------------------------------------------------------------------------

def _times(pid):
    """utime, stime, cutime, cstime in seconds; zeros when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return [int(x) / TICK for x in f.read().rpartition(b")")[2].split()[11:15]]
    except OSError:
        return [0.0] * 4


def _children(pid):
    """Zombies too: until they are waited for, their time is only in their own books."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
        return f.read().split()


def server_cpu(server):
    """Seconds of all processes of the server, those that have ended included."""
    while True:
        before, pids = _times(server.pid), _children(server.pid)
        live = sum(sum(_times(pid)[:2]) for pid in pids)
        # Otherwise one came or ended meanwhile and would count twice or not at all.
        if _children(server.pid) == pids and _times(server.pid)[2:] == before[2:]:
            return sum(before) + live


def machine_cpu():
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _, _, irq, softirq = [int(x) / TICK for x in f.readline().split()[1:8]]
    return user + nice + system + irq + softirq


def wait_quiet(most_s):
    """Until the machine has idled for a second, but no longer than that."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        before = machine_cpu()
        time.sleep(1)
        if machine_cpu() - before < DISTURBED * CPUS:
            return


class Meter:
    """What is used between its making and stop()."""

    def __init__(self, source, target):
        self.servers = (source, target)
        self.before = self._read()

    def _read(self):
        return (time.monotonic(), machine_cpu(), time.process_time(), *map(server_cpu, self.servers))

    def stop(self, own=0.0):
        seconds, machine, bench, source, target = (b - a for a, b in zip(self.before, self._read()))
        others = max(0.0, machine - bench - source - target - own) / (seconds * CPUS)
        return {"seconds": seconds, "source_cpu": source, "target_cpu": target, "others": others}


# --- the two servers -------------------------------------------------------------------------------------------------

class Stage:
    """Source and target, and the databases of the backlog at hand: one on the source, a template on the target."""

    def __init__(self, folder):
        self.folder = folder
        self.source, self.target = (PgServer(f"{folder}/{name}", settings=settings, first_port=27000, last_port=27999)
                                    for name, settings in (("source", SOURCE), ("target", TARGET)))
        for server in (self.source, self.target):
            server.init()
            server.start()
        self.name = self.database = None

    def close(self):
        for server in (self.source, self.target):
            server.remove()

    def open(self, name, setup):
        self.name = name
        for server in (self.source, self.target):
            server.sql(f"create database {name}")
            server.sql("create table bench_end (id int primary key)", dbname=name)
            setup(server, name)
        self.source.sql("create publication bench for all tables", dbname=name)

    def drop(self):
        for (slot,) in self.source.sql("select slot_name from pg_replication_slots where database = %s", (self.name,)):
            self.drop_slot(slot)
        for server in (self.source, self.target):
            server.sql(f"drop database {self.name} with (force)")

    def slot(self, name):
        self.source.sql("select pg_create_logical_replication_slot(%s, 'pgoutput')", (name,), dbname=self.name)

    def drop_slot(self, name):
        wait_for(f"slot {name} to be free", lambda: not self.source.one(
            "select active from pg_replication_slots where slot_name = %s", (name,)), 30)
        self.source.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (name,))

    def fresh_target(self):
        """A copy of the target's tables as they were before the load, in memory as any other."""
        self.database = f"{self.name}_copy"
        self.target.sql(f"drop database if exists {self.database} with (force)")
        self.target.sql(f"create database {self.database} template {self.name} strategy file_copy")
        self.target.sql("checkpoint")

    def finish_load(self):
        """Position behind everything, all of it flushed."""
        self.source.sql("insert into bench_end values (1)", dbname=self.name)
        self.source.sql("checkpoint")
        return self.source.one("select pg_current_wal_flush_lsn()::text")

    def dsns(self):
        return self.source.dsn(self.name), self.target.dsn(self.database)


def content(server, database):
    """{table: (rows, hash of all rows)}"""
    tables = [t for (t,) in server.sql("select oid::regclass::text from pg_class where relkind = 'r' and "
                                       "relnamespace = 'public'::regnamespace order by 1", dbname=database)]
    query = " union all ".join(f"select '{t}', count(*), sum(hashtextextended(t::text, 0)::numeric)::text from {t} t"
                               for t in tables)
    return {t: (n, h) for t, n, h in server.sql(query, dbname=database)}


# --- contenders ------------------------------------------------------------------------------------------------------

class Native:
    """PostgreSQL's subscription, with the settings that make it fastest."""
    name = "native"

    def __init__(self, stage, slot):
        self.stage = stage
        self.con = stage.target.connect(stage.database)
        self.cur = self.con.cursor()
        self.cur.execute(f"create subscription bench connection '{stage.source.dsn(stage.name)}' publication bench with "
                         f"(create_slot = false, slot_name = '{slot}', copy_data = false, binary = true, streaming = on, "
                         "enabled = false)")

    def start(self):
        self.cur.execute("alter subscription bench enable")

    def drained(self):
        self.cur.execute("select 1 from bench_end")
        return self.cur.fetchone()

    def close(self):
        self.cur.execute("alter subscription bench disable")
        self.cur.execute("alter subscription bench set (slot_name = none)")
        self.cur.execute("drop subscription bench")
        self.con.close()


class Keybridge:
    """keybridge replicate, and programs that are called alike; .usage is there once it has ended."""
    name = "keybridge"

    def __init__(self, stage, slot, *more):
        source, target = stage.dsns()
        self.log = f"{stage.folder}/{slot}.log"
        self.env = {**os.environ, "KEYBRIDGE_SOURCE": source, "KEYBRIDGE_TARGET": target}
        self.args = [f"{BIN}/keybridge", "replicate", f"--slot={slot}", "--publication=bench",
                     f"--state-dir={stage.folder}/state", *more]
        self.process = self.usage = None

    def start(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(self.args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)

    def wait(self, allowed=(0,)):
        _, status, used = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.usage = {"own_cpu": used.ru_utime + used.ru_stime, "rss_mib": used.ru_maxrss / 1024}
        if self.process.returncode not in allowed:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise SystemExit(f"bench: {' '.join(self.args[:2])} ended with {self.process.returncode}:\n{log.read()[-3000:]}")


def drain_native(stage, slot, _until):
    native = Native(stage, slot)
    meter = Meter(stage.source, stage.target)
    native.start()
    wait_for("the subscription to drain", native.drained, PATIENCE_S, 0.005)
    figures = meter.stop()
    native.close()
    return figures


def drain_keybridge(stage, slot, until):
    kb = Keybridge(stage, slot, f"--until-lsn={until}", *stage.more)
    meter = Meter(stage.source, stage.target)
    kb.start()
    kb.wait()
    return {**meter.stop(kb.usage["own_cpu"]), **kb.usage}


def drain_reading(stage, slot, until):
    reading = Keybridge(stage, slot)
    reading.args = [f"{BIN}/pg_read", *stage.dsns(), slot, "bench", until]
    meter = Meter(stage.source, stage.target)
    reading.start()
    reading.wait()
    return {**meter.stop(reading.usage["own_cpu"]), **reading.usage}


DRAINS = {"native": drain_native, "keybridge": drain_keybridge, "reading": drain_reading}


# --- drain -----------------------------------------------------------------------------------------------------------

def drain_once(stage, name, slot, until, expected):
    stage.fresh_target()
    wait_quiet(stage.wait)
    figures = DRAINS[name](stage, slot, until)
    stage.drop_slot(slot)
    if name != "reading":
        found = content(stage.target, stage.database)
        if found != expected:
            bad = [t for t in expected if expected[t] != found.get(t)]
            raise SystemExit(f"bench: {stage.name}: after {name} these tables differ: {', '.join(bad)}")
    say(f"  {name:9} {figures['seconds']:7.2f} s  source {figures['source_cpu']:6.2f}  target {figures['target_cpu']:6.2f}"
        f"  own {figures.get('own_cpu', 0):5.2f}  others {figures['others']:4.0%}")
    return figures


def medians(runs):
    """Of the runs that nobody disturbed, if there are any."""
    runs = [r for r in runs if r["others"] <= DISTURBED] or runs
    return {key: round(statistics.median(r[key] for r in runs), 4) for key in runs[0]}


def bench_drain(stage, backlog, options):
    contenders = ["native", "keybridge"] + (["reading"] if options.reading else [])
    slots = [(name, f"{name}_{i}") for i in range(options.repeat) for name in contenders]
    say(f"{backlog.name}: {backlog.count(options.scale):,} transactions: {backlog.what}")
    stage.open(backlog.name, backlog.setup)
    try:
        for _, slot in slots:
            stage.slot(slot)
        began = stage.source.one("select pg_current_wal_flush_lsn()::text")
        backlog.load(stage.source, backlog.name, options.scale)
        until = stage.finish_load()
        size = stage.source.one("select pg_wal_lsn_diff(%s, %s)::bigint", (until, began))
        expected = content(stage.source, backlog.name)
        runs = {name: [] for name in contenders}
        for name, slot in slots:
            runs[name].append(drain_once(stage, name, slot, until, expected))
    finally:
        stage.drop()
    result = {"backlog": backlog.name, "what": backlog.what, "transactions": backlog.count(options.scale), "wal_bytes": size,
              "must": backlog.must, **{name: {**medians(r), "runs": r} for name, r in runs.items()}}
    result["ratio"] = round(result["keybridge"]["seconds"] / result["native"]["seconds"], 3)
    return result


# --- lag -------------------------------------------------------------------------------------------------------------

LAG_TABLES = ("create table lag (id bigint primary key, note text); create table accounts (id int primary key, balance bigint);"
              "insert into accounts select i, 0 from generate_series(1, 1000) i")


def lag_once(stage, name, options):
    stage.open(f"lag_{name}", lambda server, database: server.sql(LAG_TABLES, dbname=database))
    stage.fresh_target()
    try:
        stage.slot("lag")
        stream = Native(stage, "lag") if name == "native" else Keybridge(stage, "lag", *stage.more)
        stream.start()
        wait_for("the stream to run", lambda: stage.source.one(
            "select 1 from pg_stat_replication where state = 'streaming'"), 30)
        wait_quiet(stage.wait)
        meter = Meter(stage.source, stage.target)
        done = subprocess.run([f"{BIN}/lag", *stage.dsns(), str(options.rate), str(options.seconds)], capture_output=True,
                              text=True, check=False)
        if done.returncode:
            raise SystemExit(f"bench: lag over {name}: {done.stderr}")
        figures = meter.stop()
        if name == "native":
            stream.close()
        else:
            stream.process.terminate()
            stream.wait(allowed=(130,))
            figures.update(stream.usage)
        stage.drop_slot("lag")
        if content(stage.source, stage.name) != content(stage.target, stage.database):
            raise SystemExit(f"bench: lag: after {name} the content differs")
    finally:
        stage.target.sql(f"drop database if exists {stage.database} with (force)")
        stage.drop()
    latency = json.loads(done.stdout)
    say(f"  {name:9} p50 {latency['p50'] / 1000:.2f} ms  p99 {latency['p99'] / 1000:.2f} ms  max {latency['max'] / 1000:.1f} ms")
    return {**latency, **figures}


def bench_lag(stage, options):
    say(f"lag: {options.rate:,} transactions a second for {options.seconds} s")
    return {name: lag_once(stage, name, options) for name in ("native", "keybridge")}


# --- decode ----------------------------------------------------------------------------------------------------------

def bench_decode():
    say("decode")
    out = subprocess.run([f"{BIN}/decode"], capture_output=True, text=True, check=True).stdout
    rows = []
    for line in out.splitlines()[1:]:
        name, *figures = re.fullmatch(r"(.*?) +([\d.]+) MB/s +([\d.]+) M changes/s +([\d.]+) MB/s +([\d.]+) M changes/s", line).groups()
        rows.append(dict(zip(("stream", "mb_per_s", "changes_per_us", "copied_mb_per_s", "copied_changes_per_us"),
                             [name, *map(float, figures)])))
    return rows


# --- telling ---------------------------------------------------------------------------------------------------------

def table(head, rows):
    """Aligned text; the first column to the left."""
    width = [max(len(str(r[i])) for r in [head, *rows]) for i in range(len(head))]
    return "\n".join("  ".join(str(c).ljust(w) if i == 0 else str(c).rjust(w) for i, (c, w) in enumerate(zip(r, width))).rstrip()
                     for r in [head, *rows])


def drain_text(results):
    head = ["drain", "transactions", "native s", "source", "target", "keybridge s", "source", "target", "own", "MiB", "ratio",
            "must", "reading s", "source", "others"]
    rows = []
    for r in results:
        native, kb, reading = r["native"], r["keybridge"], r.get("reading")
        others = max(native["others"], kb["others"])
        rows.append([r["backlog"], f"{r['transactions']:,}", f"{native['seconds']:.2f}", f"{native['source_cpu']:.2f}",
                     f"{native['target_cpu']:.2f}", f"{kb['seconds']:.2f}", f"{kb['source_cpu']:.2f}", f"{kb['target_cpu']:.2f}",
                     f"{kb['own_cpu']:.2f}", f"{kb['rss_mib']:.0f}", f"{r['ratio']:.2f}", f"{r['must']:.2f}",
                     f"{reading['seconds']:.2f}" if reading else "", f"{reading['source_cpu']:.2f}" if reading else "",
                     f"{others:.0%}" + ("!" if others > DISTURBED else "")])
    return table(head, rows) + "\n(source, target, own: CPU seconds; others: of the machine, used by what isn't measured)"


def lag_text(lag):
    head = ["lag, ms", "rate", "p50", "p90", "p99", "p99.9", "max", "source CPU s", "target", "own", "others"]
    rows = [[name, r["rate"], *(f"{r[p] / 1000:.2f}" for p in ("p50", "p90", "p99", "p999", "max")), f"{r['source_cpu']:.2f}",
             f"{r['target_cpu']:.2f}", f"{r['own_cpu']:.2f}" if "own_cpu" in r else "",
             f"{r['others']:.0%}" + ("!" if r["others"] > DISTURBED else "")] for name, r in lag.items()]
    return table(head, rows)


def decode_text(rows):
    head = ["decode, one core", "MB/s", "M changes/s", "copied MB/s", "M changes/s"]
    return table(head, [[r["stream"], f"{r['mb_per_s']:.0f}", f"{r['changes_per_us']:.2f}", f"{r['copied_mb_per_s']:.0f}",
                         f"{r['copied_changes_per_us']:.2f}"] for r in rows])


def machine(stage):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        model = next((line.split(":", 1)[1].strip() for line in f if line.startswith("model name")), platform.machine())
    return {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "cpus": CPUS, "cpu": model,
            "load": os.getloadavg()[0], "server": stage.source.one("show server_version") if stage else "",
            "keybridge": subprocess.run([f"{BIN}/keybridge", "--version"], capture_output=True, text=True, check=False).stdout.strip()}


def options_of(argv):
    names = [b.name for b in BACKLOGS] + ["lag", "decode"]
    parser = argparse.ArgumentParser(description="Measures keybridge beside PostgreSQL's own subscription.")
    parser.add_argument("--scale", type=float, default=0.4, help="size of the backlogs, 1 being full (0.4)")
    parser.add_argument("--full", action="store_const", const=1.0, dest="scale", help="the same as --scale 1")
    parser.add_argument("--repeat", type=int, default=3, help="drains of each contender (3)")
    parser.add_argument("--only", default=",".join(names), help=f"of {','.join(names)}")
    parser.add_argument("--no-reading", action="store_false", dest="reading", help="leave out reading alone")
    parser.add_argument("--rate", type=int, default=1000, help="transactions a second, for lag (1000)")
    parser.add_argument("--seconds", type=int, default=20, help="how long, for lag (20)")
    parser.add_argument("--wait", type=int, default=0, help="seconds to wait for a quiet machine before each measurement (0)")
    parser.add_argument("--lanes", type=int, help="keybridge's lanes (its default)")
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of tables")
    options = parser.parse_args(argv)
    options.only = options.only.split(",")
    unknown = set(options.only) - set(names)
    if unknown:
        parser.error(f"--only knows {', '.join(names)}, not {', '.join(sorted(unknown))}")
    return options


def measure(options, folder):
    report = {}
    stage = None
    if set(options.only) != {"decode"}:
        say("making servers")
        stage = Stage(folder)
        stage.wait = options.wait
        stage.more = [f"--lanes={options.lanes}"] if options.lanes else []
    report["machine"] = machine(stage)
    try:
        drains = [bench_drain(stage, b, options) for b in BACKLOGS if b.name in options.only]
        if drains:
            report["drain"] = drains
        if "lag" in options.only:
            report["lag"] = bench_lag(stage, options)
    finally:
        if stage:
            stage.close()
    if "decode" in options.only:
        report["decode"] = bench_decode()
    return report


def tell(report):
    m = report["machine"]
    print(f"{m['date']}  {m['keybridge']}  PostgreSQL {m['server']}  {m['cpus']} x {m['cpu']}  load at the start {m['load']:.1f}")
    for part, text in (("drain", drain_text), ("lag", lag_text), ("decode", decode_text)):
        if part in report:
            print("\n" + text(report[part]))


def main(argv):
    options = options_of(argv)
    for program in ("keybridge", "pg_read", "lag", "decode"):
        if not os.access(f"{BIN}/{program}", os.X_OK):
            raise SystemExit(f"bench: {BIN}/{program} is missing: run it as `make bench`")
    folder = tempfile.mkdtemp(prefix="keybridge-bench.")
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
