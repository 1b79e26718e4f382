"""A session that executes a list of transactions on the source, whatever happens to the source meanwhile, and keeps the script."""
import io
import random
import threading
import time

import psycopg2

from . import dml

# What may become of a statement: constraints, deadlocks, lock timeouts, values out of range, a server that goes away.
EXPECTED = ("23", "40", "57", "08", "22", "44")
EXPECTED_CODES = ("55P03", "55006", "21000")
SETTINGS = "set lock_timeout = '50ms'; set statement_timeout = '20s'; set client_min_messages = error; " \
           "set datestyle = 'ISO, YMD'; set intervalstyle = postgres; set standard_conforming_strings = on"


class Lost(Exception):
    """The connection."""


class Refused(Exception):
    """A statement."""


class Script:
    """Everything that was executed, by all, in the order in which it ended."""

    def __init__(self):
        self.lines, self.lock, self.start = [], threading.Lock(), time.monotonic()

    def note(self, who, text, outcome="ok"):
        with self.lock:
            self.lines.append((time.monotonic() - self.start, who, text, outcome))

    def text(self):
        with self.lock:
            return "".join(f"-- {at:8.3f} {who} {outcome}\n{text};\n" for at, who, text, outcome in self.lines)


class Writer(threading.Thread):
    def __init__(self, database, number, seed, phase, schema, count, script, may_fail=()):
        super().__init__(daemon=True, name=f"w{number}")
        self.database, self.number, self.schema, self.count, self.script = database, number, schema, count, script
        self.seed, self.phase, self.may_fail = seed, phase, may_fail
        self.problem, self.con, self.prepared, self.done = None, None, [], 0
        self.committed, self.failed_statements, self.statements = 0, 0, 0

    def run(self):
        try:
            for n in range(self.count):
                rng = random.Random(f"{self.seed}/{self.phase}/{self.number}/{n}")
                self.one(rng, n)
                self.done += 1
        except Exception as problem:            # pylint: disable=broad-except
            self.problem = problem
        finally:
            if self.con:
                self.con.close()

    def one(self, rng, n):
        gid = f"{self.database.name} {self.phase}/{self.number}/{n}"
        transaction = dml.transaction(rng, self.schema, gid)
        finish = rng.random() < 0.6
        ending = rng.choice(["commit", "commit", "rollback"])
        early = rng.random() < 0.5              # the journal's row comes first or last
        try:
            self.connect()
            if self.prepared and finish:
                self.finish_prepared(self.prepared.pop(0), ending)
            self.execute(transaction, n, early)
        except Lost:
            self.con = None
        except Refused:
            self.undo()

    def connect(self):
        """A new connection when there is none; the source may be down for a while."""
        end = time.monotonic() + 60
        while not self.con:
            try:
                self.con = self.database.connect()
                with self.con.cursor() as cur:
                    cur.execute(SETTINGS)
            except psycopg2.Error:
                self.con = None
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)

    def execute(self, transaction, n, early):
        journal = f"insert into public.journal (phase, writer, n) values ({self.phase}, {self.number}, {n})"
        self.sql(transaction.begin)
        items = [journal] + transaction.items if early else transaction.items + [journal]
        for item in items:
            self.item(item, 0)
        if transaction.ending == "prepare":
            self.sql(f"prepare transaction '{transaction.gid}'")
            self.prepared.append(transaction.gid)
        else:
            self.sql(transaction.ending)
        self.committed += transaction.ending == "commit"

    def finish_prepared(self, gid, ending):
        self.sql(f"{ending} prepared '{gid}'")

    def item(self, item, depth):
        if isinstance(item, dml.Block):
            self.block(item, depth)
        elif isinstance(item, dml.Copy):
            self.sql(item.sql, item.data)
        else:
            self.sql(item)

    def block(self, block, depth):
        self.sql(f"savepoint s{depth}")
        try:
            for item in block.items:
                self.item(item, depth + 1)
        except Refused:
            self.sql(f"rollback to s{depth}")
            return
        self.sql(f"rollback to s{depth}" if block.rollback else f"release s{depth}")

    def undo(self):
        try:
            self.sql("rollback")
        except Lost:
            self.con = None

    def sql(self, text, data=None):
        self.statements += 1
        try:
            with self.con.cursor() as cur:
                if data is None:
                    cur.execute(text)
                else:
                    cur.copy_expert(text, io.StringIO(data))
            self.script.note(self.name, text if data is None else f"{text}\n{data}\\.")
        except psycopg2.Error as problem:
            self.failed_statements += 1
            self.script.note(self.name, text, f"failed {problem.pgcode} {str(problem).splitlines()[:1]}")
            if self.con.closed or problem.pgcode is None or problem.pgcode.startswith(("57P", "08")):
                self.con.close()
                raise Lost from problem
            if not self.is_expected(problem.pgcode, text):
                raise AssertionError(f"{text[:2000]}: {problem}") from problem
            raise Refused from problem

    def is_expected(self, code, text):
        if code.startswith(EXPECTED) or code in EXPECTED_CODES or code.startswith(self.may_fail or ("none",)):
            return True
        return code == "0A000" and text.startswith("prepare")       # it made a temporary table
