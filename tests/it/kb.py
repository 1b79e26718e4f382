"""What tests on real servers share: running keybridge, a pair of databases, comparing them, loads.

    def test_x(pair):                                   # fresh databases on the session's two servers
        pair.both("create table t (a int primary key)")
        pair.prepare()                                  # publication and slot
        pair.source.sql("insert into t values (1)")
        done = pair.replicate(until=pair.lsn())         # runs keybridge to its end
        assert done.code == 0, done
        pair.same()
"""
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from lab import pgversions  # noqa: E402
from lab.pgserver import BINDIR, PgServer  # noqa: E402,F401

SOURCE_MAJOR, TARGET_MAJOR = (int(os.environ.get(f"KB_PG_{side}", "15")) for side in ("SOURCE", "TARGET"))
BIN = os.path.abspath(os.environ.get("KB_BIN", os.path.join(ROOT, "build/release/bin/keybridge")))
WRAP = shlex.split(os.environ.get("KB_WRAP", ""))       # valgrind …
PASSWORD = "s3cret/word@1"                      # has what breaks careless connection strings; must never be printed
OWN_SCHEMA = "keybridge"                        # progress lives there, on the target only


class Failed(AssertionError):
    pass


def wait_until(condition, timeout=30, what=None, every=0.05):
    """The condition's first true value; fails when it doesn't come in time."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"waited {timeout} s for: {what or condition}")
        time.sleep(every)


def has_hooks(binary=None):
    """Whether this build has named crash points (every build but release)."""
    with open(binary or BIN, "rb") as f:
        return b"KB_CRASH_AT" in f.read()


# --- running keybridge ----------------------------------------------------------------------------------------------

class Done:
    """How a run ended."""

    def __init__(self, args, code, out, err, seconds):
        self.args, self.code, self.out, self.err, self.seconds = args, code, out, err, seconds

    def json(self):
        return json.loads(self.out)

    def error(self):
        """The line in which main reports why it failed."""
        lines = [x for x in self.err.splitlines() if re.match(r"keybridge( [a-z]+)?: ", x)]
        return lines[-1] if lines else ""

    def hint(self):
        lines = [x for x in self.err.splitlines() if x.startswith("  hint: ")]
        return lines[-1][8:] if lines else ""

    def __repr__(self):
        return f"<keybridge {self.args[0] if self.args else ''} ended with {self.code} after {self.seconds:.1f} s\n" \
               f"--- stdout\n{self.out[-4000:]}\n--- stderr\n{self.err[-8000:]}>"


class Running:
    """A keybridge that runs in the background. Output goes to files, so that a full pipe never stops it."""

    def __init__(self, args, folder, env):
        self.args = [str(a) for a in args]
        name = f"{folder}/{self.args[0] if self.args else 'run'}-{uuid.uuid4().hex[:8]}"
        self.out_path, self.err_path = name + ".out", name + ".err"
        self.started = time.monotonic()
        with open(self.out_path, "wb") as out, open(self.err_path, "wb") as err:
            self.process = subprocess.Popen([*WRAP, BIN, *self.args], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            cwd=folder, env=env)
        self.pid = self.process.pid

    def alive(self):
        return self.process.poll() is None

    def out(self):
        with open(self.out_path, errors="replace") as f:
            return f.read()

    def err(self):
        with open(self.err_path, errors="replace") as f:
            return f.read()

    def kill9(self):
        """As a power cut would; does nothing when it has ended."""
        if self.alive():
            self.process.kill()
        self.process.wait(30)
        return self

    def stop(self, timeout=60):
        """SIGTERM, and how it ended."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout=60):
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
            raise Failed(f"keybridge {self.args[0]} still ran after {timeout} s\n--- stderr\n{self.err()[-8000:]}") from None
        return Done(self.args, self.process.returncode, self.out(), self.err(), time.monotonic() - self.started)

    def rss_peak(self):
        """Bytes of resident memory at its highest so far."""
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmHWM:\s+(\d+)", f.read()).group(1)) * 1024

    def cmdline(self):
        with open(f"/proc/{self.pid}/cmdline", "rb") as f:
            return f.read()


class Kb:
    """Runs keybridge in a folder of its own; ends what is left."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {k: v for k, v in os.environ.items() if not re.match(r"PG[A-Z]|KEYBRIDGE_|AWS_|KB_CRASH|XDG_", k)}
        self.env.update(HOME=folder, TZ="Asia/Kathmandu")       # nothing may depend on it
        self.running = []

    def start(self, *args, env=None):
        run = Running(args, self.folder, {**self.env, **{k: str(v) for k, v in (env or {}).items()}})
        self.running.append(run)
        return run

    def run(self, *args, timeout=60, code=None, env=None):
        """Runs to the end. With code, it must end with that."""
        done = self.start(*args, env=env).wait(timeout)
        if code is not None and done.code != code:
            raise Failed(f"expected exit code {code}: {done}")
        return done

    __call__ = run

    def end(self):
        for run in self.running:
            run.kill9()

    def outputs(self):
        """Everything any run of this test has printed."""
        return "".join(run.out() + run.err() for run in self.running)


# --- one database on a server ---------------------------------------------------------------------------------------

class Database:
    def __init__(self, server, name):
        self.server, self.name = server, name

    def sql(self, text, args=None):
        return self.server.sql(text, args, dbname=self.name)

    def one(self, text, args=None):
        return self.server.one(text, args, dbname=self.name)

    def psql(self, text):
        return self.server.psql(text, dbname=self.name)

    def connect(self, **more):
        return self.server.connect(self.name, **more)

    @property
    def dsn(self):
        """A connection string with the password in it, percent-encoded."""
        return self.server_dsn(PASSWORD)

    def server_dsn(self, password=None):
        from urllib.parse import quote
        secret = ":" + quote(password, safe="") if password else ""
        return f"postgres://{self.server.superuser}{secret}@{self.server.host}:{self.server.port}/{self.name}"

    # pgbench

    def pgbench(self, *args, env=None, check=True):
        done = subprocess.run([f"{BINDIR}/pgbench", *self._where(), *args], capture_output=True, text=True,
                              env=self._env(), cwd="/")
        if check and done.returncode:
            raise Failed(f"pgbench {args}: {done.stderr}")
        return done

    def pgbench_start(self, *args):
        return subprocess.Popen([f"{BINDIR}/pgbench", *self._where(), *args], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env=self._env(), cwd="/")

    def _where(self):
        return ["-h", self.server.host, "-p", str(self.server.port), "-U", self.server.superuser, self.name]

    def _env(self):
        return {"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C.UTF-8"}

    # content

    TABLES = """select format('%%I.%%I', n.nspname, c.relname) collate "C" from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where c.relkind = 'r' and c.relpersistence <> 't' and n.nspname not like 'pg\\_%%'
                and n.nspname not in ('information_schema', %s) order by 1"""
    EXACT = "set timezone = 'UTC'; set extra_float_digits = 3; set bytea_output = hex; set intervalstyle = postgres; " \
            "set datestyle = 'ISO, YMD'; set search_path = pg_catalog; set xmloption = content;"

    def tables(self):
        return [r[0] for r in self.sql(self.TABLES, (OWN_SCHEMA,))]

    def digest(self, table, floats=False):
        """(rows, sum of row hashes): equal multisets have equal digests, whatever the order. floats: see _row."""
        return self.sql(self.EXACT + f"""select count(*), coalesce(sum(('x' || substr(h, 1, 16))::bit(64)::bigint), 0),
            coalesce(sum(('x' || substr(h, 17))::bit(64)::bigint), 0)
            from (select md5({self._row(table, floats)}) h from only {table} kb_row) x""")[0]

    def rows(self, table, floats=False):
        """Every row as text, exact and ordered."""
        row = self._row(table, floats)
        return [r[0] for r in self.sql(self.EXACT + f'select {row} from only {table} kb_row order by {row} collate "C"')]

    def _row(self, table, floats):
        """A row as text. Versions below 12 write floats in their own way: with floats, by their bits."""
        if not floats:
            return "kb_row::text"
        columns = self.sql("""select case atttypid when 'float8'::regtype then format('float8send(kb_row.%%I)', attname)
            when 'float4'::regtype then format('float4send(kb_row.%%I)', attname) else format('kb_row.%%I', attname) end
            from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped order by attnum""", (table,))
        return f"row({', '.join(c for (c,) in columns)})::text"

    def sequences(self):
        names = self.sql('select format($$%I.%I$$, schemaname, sequencename) collate "C" from pg_sequences order by 1')
        return {n: self.sql(f"select last_value, is_called from {n}")[0] for (n,) in names}


def difference(source, target, tables=None):
    """None when both hold the same; else what differs first, in words. Databases, see above."""
    floats = (source.server.major < 12) != (target.server.major < 12)
    mine, theirs = source.tables(), target.tables()
    if tables is None:
        if mine != theirs:
            return f"tables differ: only on source {sorted(set(mine) - set(theirs))}, " \
                   f"only on target {sorted(set(theirs) - set(mine))}"
        tables = mine
    for table in tables:
        if source.digest(table, floats) == target.digest(table, floats):
            continue
        a, b = source.rows(table, floats), target.rows(table, floats)
        for i in range(max(len(a), len(b))):
            left, right = (x[i] if i < len(x) else None for x in (a, b))
            if left != right:
                return f"{table}: {len(a)} rows on the source, {len(b)} on the target; in order, row {i} is\n" \
                       f"  source: {left and left[:500]}\n  target: {right and right[:500]}"
        return f"{table}: digests differ but the rows don't any more: somebody is writing"
    return None


def same(source, target, tables=None):
    found = difference(source, target, tables)
    if found:
        raise Failed(found)


# --- a pair of databases --------------------------------------------------------------------------------------------

class Pair:
    """One database on each server, a Kb, and the names of slot and publication."""

    def __init__(self, source_server, target_server, kb, prefix="t"):
        self.id = f"{prefix}_{uuid.uuid4().hex[:10]}"
        self.kb = kb
        self.slot = self.publication = f"kb_{self.id}"
        self.servers = (source_server, target_server)
        self.loads = []
        for server in self.servers:
            server.sql(f"create database {self.id} template template0")
        self.source, self.target = (Database(s, self.id) for s in self.servers)

    def both(self, text):
        self.source.sql(text)
        self.target.sql(text)

    # slot and publication

    def publish(self, what="for all tables", options=""):
        self.source.sql(f"create publication {self.publication} {what} {options}")

    def make_slot(self):
        """Returns the position from which it starts."""
        return self.source.one("select lsn::text from pg_create_logical_replication_slot(%s, 'pgoutput')", (self.slot,))

    def prepare(self, what="for all tables"):
        self.publish(what)
        return self.make_slot()

    def lsn(self):
        """A position behind everything committed so far."""
        return self.source.one("select pg_current_wal_lsn()::text")

    def confirmed(self):
        return self.source.one("select confirmed_flush_lsn::text from pg_replication_slots where slot_name = %s",
                               (self.slot,))

    def slot_active(self):
        return self.source.one("select active from pg_replication_slots where slot_name = %s", (self.slot,))

    # the stream

    def args(self, *more, until=None):
        """Arguments of `keybridge replicate`; connection strings go by the environment, see env()."""
        args = ["replicate", f"--slot={self.slot}", f"--publication={self.publication}", *more]
        return args + ([f"--until-lsn={until}"] if until else [])

    def env(self):
        return {"KEYBRIDGE_SOURCE": self.source.dsn, "KEYBRIDGE_TARGET": self.target.dsn}

    def replicate(self, *more, until=None, timeout=60, code=None, env=None):
        return self.kb.run(*self.args(*more, until=until or self.lsn()), timeout=timeout, code=code,
                           env={**self.env(), **(env or {})})

    def start(self, *more, until=None, env=None):
        return self.kb.start(*self.args(*more, until=until), env={**self.env(), **(env or {})})

    def command(self, name, *more, timeout=60, code=None, env=None):
        """Another command on the same pair: verify, sequences, …"""
        return self.kb.run(name, *more, timeout=timeout, code=code, env={**self.env(), **(env or {})})

    def caught_up(self, timeout=30, lsn=None):
        """Waits until a running stream has confirmed everything committed so far."""
        lsn = lsn or self.lsn()
        wait_until(lambda: self.source.one("select confirmed_flush_lsn >= %s::pg_lsn from pg_replication_slots "
                                           "where slot_name = %s", (lsn, self.slot)), timeout, f"{lsn} to be confirmed")

    def same(self, tables=None):
        same(self.source, self.target, tables)

    # loads

    def pgbench_tables(self, scale=1):
        """pgbench's tables with its rows, alike on both sides."""
        for side in (self.source, self.target):
            side.pgbench("-i", "-q", "-s", str(scale), "-I", "dtgvp")

    def load(self, *args, clients=2, seconds=3600):
        """A pgbench that writes to the source until stopped: with pair.load() as load: …"""
        load = Load(self.source.pgbench_start("-n", "-c", str(clients), "-j", "1", "-T", str(seconds), *args))
        self.loads.append(load)
        return load

    def drop(self):
        for load in self.loads:
            load.stop(check=False)
        self.kb.end()
        for server in self.servers:
            for (slot,) in server.sql("select slot_name from pg_replication_slots where database = %s", (self.id,)):
                drop_slot(server, slot)
            drop_database(server, self.id)


class Load:
    def __init__(self, process):
        self.process = process
        self.output = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop(check=False)

    def stop(self, check=True):
        """Ends it cleanly; returns pgbench's report."""
        if self.output is None:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGALRM)    # what -T sets: it finishes and reports
            self.output = self.process.communicate(timeout=30)[0]
            if check and re.search(r"(?i)error|aborted", self.output):
                raise Failed(self.output)
        return self.output


def drop_slot(server, slot):
    """Drops a slot that may still be in use by a connection that is just going away."""
    def drop():
        server.sql("select pg_terminate_backend(active_pid) from pg_replication_slots "
                   "where slot_name = %s and active_pid is not null", (slot,))
        try:
            server.sql("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s",
                       (slot,))
        except Exception:                       # pylint: disable=broad-except
            return False                        # taken again meanwhile
        return True
    wait_until(drop, 15, f"slot {slot} to be dropped")


def drop_database(server, name):
    """Drops a database that may still have connections; versions below 13 can't do both at once."""
    if server.major >= 13:
        server.sql(f"drop database if exists {name} with (force)")
        return

    def drop():
        server.sql("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))
        try:
            server.sql(f"drop database if exists {name}")
        except Exception:                       # pylint: disable=broad-except
            return False                        # they take a moment to go
        return True
    wait_until(drop, 15, f"database {name} to be dropped")


class Writer(threading.Thread):
    """Calls fn(connection, n) for n = 1, 2, … on the source until stopped; keeps what was acknowledged."""

    def __init__(self, database, fn):
        super().__init__(daemon=True)
        self.database, self.fn, self.count, self.ended, self.problem = database, fn, 0, threading.Event(), None

    def run(self):
        try:
            con = self.database.connect()
            while not self.ended.is_set():
                self.fn(con, self.count + 1)
                self.count += 1
            con.close()
        except Exception as problem:            # pylint: disable=broad-except
            self.problem = problem

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join(30)


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
