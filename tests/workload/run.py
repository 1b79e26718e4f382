"""One seed: a random schema on both sides, writers on the source, keybridge between them and everybody killed; then both sides
must hold the same."""
import os
import random
import sys
import tempfile
import threading
import time
from contextlib import closing

import psycopg2

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "it"))
sys.path.insert(0, os.path.dirname(HERE))

import kb  # noqa: E402
from lab import pgversions  # noqa: E402
from lab.pgserver import PgServer  # noqa: E402

from . import compare, ddl, values  # noqa: E402
from .chaos import Chaos  # noqa: E402
from .schema import Schema  # noqa: E402
from .writer import Script, Writer  # noqa: E402

SETTINGS = {"wal_level": "logical", "fsync": "off", "max_wal_senders": 40, "max_replication_slots": 40, "max_connections": 100,
            "max_prepared_transactions": 40, "logical_decoding_work_mem": "64kB", "deadlock_timeout": "15ms",
            "wal_sender_timeout": "20s", "log_min_messages": "warning", "log_min_error_statement": "panic",
            "log_line_prefix": "%m [%p] %d ", "autovacuum_naptime": "5s", "min_wal_size": "256MB", "max_wal_size": "2GB",
            "timezone": "America/St_Johns"}
# What people set on databases; none of it may change a value or stop a stream.
DATABASE_SETTINGS = ["datestyle = 'SQL, DMY'", "datestyle = 'German'", "intervalstyle = 'sql_standard'", "intervalstyle = 'iso_8601'",
                     "timezone = 'Asia/Kathmandu'", "bytea_output = 'escape'", "extra_float_digits = 0", "standard_conforming_strings = off",
                     "search_path = 's p.ace', 'nowhere'", "statement_timeout = '2s'", "lock_timeout = '10ms'", "quote_all_identifiers = on",
                     "default_transaction_isolation = 'serializable'", "idle_in_transaction_session_timeout = '100ms'",
                     "array_nulls = off", "transform_null_equals = on", "row_security = off", "check_function_bodies = off",
                     "default_transaction_deferrable = on", "synchronous_commit = off", "session_replication_role = origin",
                     "enable_seqscan = off", "xmloption = document", "client_encoding = 'latin1'", "escape_string_warning = off"]


class Servers:
    """A source and a target for many seeds, and the types that both know."""

    def __init__(self, folder):
        self.folder = folder
        self.source, self.target = self.make("source", kb.SOURCE_MAJOR), self.make("target", kb.TARGET_MAJOR)
        self.major = min(kb.SOURCE_MAJOR, kb.TARGET_MAJOR)
        self.types, self.extensions = None, None

    def make(self, side, major):
        """Of the version that KB_PG_SOURCE or KB_PG_TARGET chooses."""
        settings = {k: v for k, v in SETTINGS.items() if major >= 13 or k != "logical_decoding_work_mem"}
        return PgServer(f"{self.folder}/{side}", bindir=pgversions.bindir(major), password=kb.PASSWORD, settings=settings, first_port=26000, last_port=26999)

    def __enter__(self):
        for server in (self.source, self.target):
            server.__enter__()
        self.types = [t for t in values.BASE if all(knows(s, t) for s in (self.source, self.target))]
        names = set.intersection(*({r[0] for r in s.sql("select name from pg_available_extensions")} for s in (self.source, self.target)))
        self.extensions = {e: t for e, t in values.EXTENSIONS.items() if e in names}
        return self

    def __exit__(self, *_):
        for server in (self.source, self.target):
            server.remove()


def knows(server, type_):
    try:
        server.sql(f"select {type_.literal(random.Random(1))}")
        return True
    except psycopg2.Error:
        return False


def align_oids(a, b):
    """As in a copy, the next objects get the same OIDs on both sides: nothing gives back those that were taken."""
    for _ in range(3):
        one, other = (int(s.psql("begin; select lo_create(0); rollback;").split()[1]) for s in (a, b))
        behind, gap = (a, other - one) if one < other else (b, one - other)
        if gap == 0 or gap > 400_000:
            return
        behind.psql(f"begin; select count(lo_create(0)) from generate_series(1, {gap}); rollback")


class Run:
    def __init__(self, servers, seed, steps=None, folder=None, quiet=False, calm=False):
        self.servers, self.seed, self.calm = servers, seed, calm
        self.rng = random.Random(f"workload/{seed}")
        self.folder = folder or tempfile.mkdtemp(prefix=f"workload-{seed}-", dir=servers.folder)
        self.kb = kb.Kb(self.folder)
        self.script = Script()
        self.steps, self.quiet = steps, quiet
        self.ddl = self.rng.choice(["apply", "apply", "stop"])
        self.pair = self.running = None
        self.writers, self.chaos_notes = [], []
        self.lock = threading.RLock()

    def say(self, text):
        self.script.note("run", "-- " + text.replace("\n", "\n-- "))
        if not self.quiet:
            print(f"{time.monotonic() - self.script.start:7.2f} {text}", flush=True)

    # the stream

    def options(self):
        rng = self.rng
        return [f"--lanes={rng.choice([1, 2, 3, 4])}", f"--apply-batch-changes={rng.choice([1, 7, 300, 50000, 50000])}",
                f"--apply-batch-bytes={rng.choice(['64KiB', '16MiB', '16MiB'])}", f"--spool-memory={rng.choice(['64KiB', '32MiB'])}",
                f"--relay-after={rng.choice(['0', '20ms', '200ms', '60s'])}", f"--ddl={self.ddl}", f"--state-dir={self.folder}/state", "--log-level=debug"]

    def start(self):
        with self.lock:
            options = self.options()
            self.say("keybridge " + " ".join(options[:5]))
            self.running = self.pair.start(*options)

    def check_alive(self):
        with self.lock:
            if self.running and not self.running.alive():
                raise kb.Failed(f"keybridge ended by itself: {self.running.wait()}")

    def stop(self, kill):
        with self.lock:
            run, self.running = self.running, None
            if kill:
                run.kill9()
                return
            done = run.stop()
            if done.code not in (130, -15):         # -15: before it could listen
                raise kb.Failed(f"asked to stop: {done}")

    # steps

    def prepare(self):
        rng = self.rng
        for server in (self.servers.source, self.servers.target):
            server.sql("checkpoint")
        self.before = self.leftovers()
        self.pair = kb.Pair(self.servers.source, self.servers.target, self.kb, prefix=f"w{self.seed}")
        if rng.random() < 0.7:
            align_oids(self.servers.source, self.servers.target)
        self.schema = Schema(rng, self.servers.types, self.servers.extensions, rng.randrange(1, 7), self.servers.major)
        self.schema.add("create table public.journal (phase integer, writer integer, n integer, at timestamptz default clock_timestamp())")
        for statement in self.schema.statements:
            self.script.note("both", statement)
            self.pair.both(statement)
        self.fill()
        for side in (self.pair.source, self.pair.target):
            for setting in rng.sample(DATABASE_SETTINGS, rng.choice([0, 0, 1, 3, 6])):
                if side is self.pair.source and setting.startswith(("default_transaction", "statement_timeout", "client_enc", "idle")):
                    continue
                self.say(f"{'source' if side is self.pair.source else 'target'}: {setting}")
                side.sql(f"alter database {self.pair.id} set {setting}")
        options = "with (publish_via_partition_root = true)" if rng.random() < 0.4 and kb.SOURCE_MAJOR >= 13 else ""
        self.pair.publish(options=options)
        self.make_slot()

    def make_slot(self):
        """From 15 on the source may send PREPARE and COMMIT PREPARED apart."""
        if kb.SOURCE_MAJOR < 15 or self.rng.random() < 0.5:
            self.pair.make_slot()
            return
        self.say("the slot sends what is prepared")
        self.pair.source.sql("select pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", (self.pair.slot,))

    def fill(self):
        """Rows that both sides have from the start."""
        from . import dml
        rng = self.rng
        with closing(self.pair.source.connect()) as a, closing(self.pair.target.connect()) as b:
            for t in self.schema.tables:
                for _ in range(rng.choice([0, 1, 3])):
                    statement = dml.insert_many(rng, t, 60)
                    outcomes = []
                    for con in (a, b):
                        with con.cursor() as cur:
                            cur.execute("set datestyle = 'ISO, YMD'; set session_replication_role = replica; set timezone = 'UTC'")
                            try:
                                cur.execute(statement)
                                outcomes.append(None)
                            except psycopg2.Error as problem:
                                outcomes.append(problem.pgcode)
                    self.script.note("both", statement, str(outcomes[0] or "ok"))
                    if outcomes[0] != outcomes[1]:
                        raise AssertionError(f"the sides are filled differently: {statement}: {outcomes}")

    def write(self, phase):
        rng = self.rng
        count = self.steps or rng.choice([10, 20, 40])
        self.writers = [Writer(self.pair.source, n, self.seed, phase, self.schema, count, self.script)
                        for n in range(rng.choice([1, 2, 3, 4]))]
        chaos = None if self.calm else Chaos(self, random.Random(f"chaos/{self.seed}/{phase}"))
        for writer in self.writers:
            writer.start()
        if chaos:
            chaos.run()
        for writer in self.writers:
            writer.join(180)
            if writer.is_alive():
                raise AssertionError(f"{writer.name} doesn't end")
            if writer.problem:
                raise writer.problem
        self.check_alive()
        if rng.random() < 0.7:
            self.finish_prepared(rng)
        totals = [sum(getattr(w, a) for w in self.writers) for a in ("committed", "statements", "failed_statements")]
        self.say(f"phase {phase}: {len(self.writers)} writers, {totals[0]} transactions committed, {totals[1]} statements, {totals[2]} failed")

    def prepared(self):
        return [r[0] for r in self.pair.source.sql("select gid from pg_prepared_xacts where database = current_database() order by gid")]

    def finish_prepared(self, rng):
        """Whether there was anything to finish."""
        found = False
        for gid in self.prepared():
            self.pair.source.sql(f"{rng.choice(['commit', 'rollback'])} prepared '{gid}'")
            found = True
        return found

    def alter(self, phase):
        """The schema changes: on the source, and the stream brings it to the target; without that on both sides, with nothing on
        its way."""
        rng = random.Random(f"ddl/{self.seed}/{phase}")
        self.finish_prepared(rng)               # they hold locks
        if self.ddl == "stop":
            self.pair.caught_up(90, self.flushed())
        else:
            self.listens()
        for number in range(rng.randrange(1, 5)):
            change = ddl.change(rng, self.schema, 10 * phase + number)
            for statement in change.statements:
                self.say(statement)
                for side in (self.pair.source, self.pair.target) if self.ddl == "stop" else (self.pair.source,):
                    side.sql(f"set lock_timeout = '20s'; set statement_timeout = 0; {statement}")
            change.done()
        self.check_alive()

    def listens(self):
        """Until the source tells of its DDL: from then on it is in the stream."""
        kb.wait_until(lambda: self.running and self.running.alive() and self.pair.source.one(
            "select count(*) > 0 from pg_event_trigger where evtname like '%%keybridge%%'"), 30, "the event triggers")

    def flushed(self):
        """A position behind everything committed so far: a commit that waits for its flush flushes what is before it."""
        self.pair.source.sql("set synchronous_commit = on; insert into public.journal (phase, writer) values (-1, -1)")
        return self.pair.lsn()

    def drain(self):
        """Up to everything committed so far."""
        rng = self.rng
        lsn = self.flushed()
        if self.running and rng.random() < 0.3 and not self.prepared():      # what is prepared may hold the position back
            self.pair.caught_up(90, lsn)
            self.check_alive()
        if self.running:
            self.stop(rng.random() < 0.5)
        done = self.pair.replicate(*self.options(), until=lsn, code=0, timeout=120)
        self.say(f"drained: {done.out.strip()}")

    def equal(self):
        with closing(self.pair.source.connect()) as a, closing(self.pair.target.connect()) as b:
            found = compare.differences(a, b)
        if found:
            raise kb.Failed("the sides differ:\n" + "\n".join(found))
        double = self.pair.target.sql("select phase, writer, n, count(*) from public.journal where n is not null group by 1, 2, 3 having count(*) > 1")
        if double:
            raise kb.Failed(f"transactions that are there twice: {double}")
        self.verify()

    def verify(self, writing=False):
        """Equal, unless no stream ran at that moment to hold the target where the source was read."""
        verify = self.kb.start("verify", f"--slot={self.pair.slot}", "--json", env=self.pair.env())
        while verify.alive() and any(w.is_alive() for w in self.writers):
            time.sleep(0.02)
        if verify.alive():
            self.finish_prepared(self.rng)      # nobody else does, and a snapshot of the source waits for it
        done = verify.wait(120)
        if done.code == 0:
            return
        result = done.json()
        if done.code == 1 and writing and result["databases"][0]["how"] == "as is":
            self.say("verified as is")
            return
        different = [t for d in result.get("databases", []) for t in d["tables"] + d["drift"] if t.get("verdict") != "equal"]
        raise kb.Failed(f"verify ended with {done.code}: {different or done.out}\n{done.err}")

    def leftovers(self):
        """What is on the source's server beside the databases."""
        return self.servers.source.sql("select 'slot', slot_name::text from pg_replication_slots union all select 'role', rolname from pg_roles "
                                       "union all select 'database', datname from pg_database order by 1, 2")

    def objects(self):
        """What keybridge could have made in the source's database."""
        return self.pair.source.sql("select 'schema', nspname::text from pg_namespace where nspname ilike '%%keybridge%%' "
                                    "union all select 'event trigger', evtname from pg_event_trigger "
                                    "union all select 'relation', relname from pg_class where relname ilike '%%keybridge%%'")

    def everything(self):
        self.say(f"seed {self.seed}")
        self.prepare()
        self.start()
        for phase in range(self.rng.choice([1, 1, 2, 3])):
            if phase and self.rng.random() < 0.8:
                self.alter(phase)
            self.write(phase)
        self.drain()
        if self.finish_prepared(self.rng):      # behind the first end position
            self.drain()
        self.equal()
        if self.ddl == "stop" and self.objects():
            raise kb.Failed(f"left on the source: {self.objects()}")
        self.say("both sides are equal")

    def end(self):
        self.kb.end()
        for server in (self.servers.source, self.servers.target):
            if not server.is_up():
                server.stop("immediate")
                server.start()
        if self.pair:
            self.finish_prepared(random.Random(1))
            self.pair.drop()
            if self.leftovers() != self.before:
                raise kb.Failed(f"left on the source's server: {self.leftovers()} and not {self.before}")
