"""An application under load: it writes through a CNAME all the time, reconnects by itself and keeps books.

The books make "lost" and "doubled" provable: every acknowledged transaction has a number that must be found exactly once
in the end. One whose COMMIT got no answer is in doubt and may be there or not.
"""
import os
import random
import re
import subprocess
import threading
import time

import dns.message
import dns.query
import dns.rdatatype
import psycopg2

LEDGER = """
create table ledger (id bigserial primary key, writer int not null, n bigint not null, account int not null,
                     amount numeric(12,2) not null, at timestamptz not null default clock_timestamp(), note text);
create table account (id int primary key, balance numeric(14,2) not null default 0, changes bigint not null default 0);
insert into account select g from generate_series(1, 200) g;
"""


def resolve(name, dns_address):
    """The address that the name leads to now, asked afresh: an application that honours a short TTL."""
    host, port = dns_address
    answer = dns.query.udp(dns.message.make_query(name, "A"), host, port=port, timeout=5)
    for rrset in answer.answer:
        if rrset.rdtype == dns.rdatatype.A:
            return rrset[0].address
    for rrset in answer.answer:                          # the lab's instances have plain addresses as names
        if rrset.rdtype == dns.rdatatype.CNAME and re.fullmatch(r"[0-9.]+\.?", str(rrset[0].target)):
            return str(rrset[0].target).rstrip(".")
    raise OSError(f"{name} leads nowhere")


class Ledger:
    """Threads that each move money in small transactions and remember which were acknowledged."""

    def __init__(self, where, writers=3, pause=0.002):
        self.where, self.pause = where, pause
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.acked = {w: [] for w in range(writers)}
        self.doubt = {w: [] for w in range(writers)}
        self.errors, self.sides, self.pauses, self.last = [], {}, [], None
        self.threads = [threading.Thread(target=self._run, args=(w,), daemon=True) for w in self.acked]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.ended.set()
        for thread in self.threads:
            thread.join(30)
        return self

    def count(self):
        return sum(map(len, self.acked.values()))

    def longest_pause(self, since=0.0, until=float("inf")):
        """The longest time in which no transaction was acknowledged to anybody, of those that touch the span."""
        return max((p for p, began, ended in self.pauses if ended >= since and began <= until), default=0.0)

    def _connect(self):
        address, port, database, user, password = self.where()
        con = psycopg2.connect(hostaddr=address, host=address, port=port, dbname=database, user=user, password=password,
                               connect_timeout=3, application_name="ledger")
        return con, address

    def _acknowledged(self, writer, n, address):
        now = time.time()
        with self.lock:
            if self.last is not None and now - self.last > 0.1:
                self.pauses.append((now - self.last, self.last, now))      # nobody got anything acknowledged meanwhile
            self.last = now
            self.acked[writer].append(n)
            self.sides[address] = self.sides.get(address, 0) + 1

    def _failed(self, problem):
        text = str(problem).strip().split("\n")[0]
        text = re.sub(r"port \d+|\d+\.\d+\.\d+\.\d+", "…", text)
        with self.lock:
            self.errors.append((time.time(), text))

    def _run(self, writer):
        con, address, n = None, None, 0
        dice = random.Random(writer)
        while not self.ended.is_set():
            n += 1
            committing = False
            try:
                if con is None or con.closed:
                    con, address = self._connect()
                with con.cursor() as cur:
                    amount = dice.randint(-5000, 5000) / 100
                    account = dice.randint(1, 200)
                    cur.execute("insert into ledger (writer, n, account, amount, note) values (%s, %s, %s, %s, %s)",
                                (writer, n, account, amount, "n" * dice.randint(0, 60)))
                    cur.execute("update account set balance = balance + %s, changes = changes + 1 where id = %s",
                                (amount, account))
                committing = True
                con.commit()
                self._acknowledged(writer, n, address)
            except (psycopg2.Error, OSError) as problem:
                self._failed(problem)
                if committing:
                    self.doubt[writer].append(n)
                if con is not None:
                    con.close()
                con = None
                time.sleep(0.02)
            if self.pause:
                time.sleep(self.pause)
        if con is not None and not con.closed:
            con.close()

    def audit(self, con):
        """(lost, doubled, wrong): what of the acknowledged isn't there, is there twice, and what nobody wrote."""
        with con.cursor() as cur:
            cur.execute("select writer, n, count(*) from ledger group by 1, 2")
            there = {(w, n): c for w, n, c in cur.fetchall()}
            cur.execute("select count(*) from (select account, sum(amount) s, count(*) c from ledger group by 1) l full join "
                        "account a on a.id = l.account where coalesce(s, 0) <> a.balance or coalesce(c, 0) <> a.changes")
            torn = cur.fetchone()[0]
        acked = {(w, n) for w, done in self.acked.items() for n in done}
        doubt = {(w, n) for w, done in self.doubt.items() for n in done}
        lost = sorted(acked - set(there))
        doubled = sorted(k for k, c in there.items() if c > 1)
        return lost, doubled, len(set(there) - acked - doubt) + torn


class Pgbench:
    """pgbench in a loop: one that loses its connections ends, the next asks for the address again."""

    def __init__(self, where, bindir, clients=4, rate=300):
        self.where, self.bindir, self.clients, self.rate = where, bindir, clients, rate
        self.ended, self.process, self.transactions, self.runs, self.errors = threading.Event(), None, 0, 0, []
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.ended.set()
        if self.process and self.process.poll() is None:
            self.process.send_signal(14)                     # SIGALRM is what -T sets: it finishes and reports
        self.thread.join(30)
        return self

    def _run(self):
        while not self.ended.is_set():
            try:
                address, port, database, user, password = self.where()
            except OSError as problem:
                self.errors.append(str(problem))
                time.sleep(0.05)
                continue
            env = {**{k: v for k, v in os.environ.items() if not k.startswith("PG")}, "PGPASSWORD": password}
            self.process = subprocess.Popen(
                [f"{self.bindir}/pgbench", "-n", "-c", str(self.clients), "-j", "1", "-T", "3600", "-R", str(self.rate),
                 "-h", address, "-p", str(port), "-U", user, database],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)
            output = self.process.communicate()[0]
            self.runs += 1
            done = re.search(r"transactions actually processed: (\d+)", output)
            self.transactions += int(done.group(1)) if done else 0
            self.errors += [x for x in output.splitlines() if re.search(r"error|aborted", x, re.I)]
            if not self.ended.is_set():
                time.sleep(0.05)

    def audit(self, con):
        """pgbench's own invariant: what happened to accounts, tellers and branches is what the history says."""
        with con.cursor() as cur:
            cur.execute("select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), "
                        "(select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history), "
                        "(select count(*) from pgbench_history)")
            a, t, b, h, count = cur.fetchone()
        return a == t == b == h, count


AWKWARD = """
create type mood as enum ('sad', 'ok', 'happy');
create type pair as (a int, b text);
create domain positive as int check (value > 0);
create table awkward (id int primary key, f4 float4, f8 float8, n numeric, b bytea, t text, c char(7), z timestamptz, d date,
                      tz timetz, i interval, j jsonb, x xml, bits bit varying(20), net inet, u uuid, m mood, p pair, pos positive,
                      a int[], ta text[], r int4range, mr nummultirange, ts tsvector, money money, point point, big text,
                      twice int generated always as (pos * 2) stored);
create table diary (writer int, what text, at timestamptz default clock_timestamp());
alter table diary replica identity full;
"""

_VALUES = {
    "f4": ["'NaN'", "'-Infinity'", "3.4e38", "1e-45", "-0.0"],
    "f8": ["0.1", "'NaN'", "'Infinity'", "5e-324", "-0.0", "1.7976931348623157e308"],
    "n": ["'NaN'", "'Infinity'", "1e-30", "0.00000000000000006938893903907228", "123456789012345678901234567890.1230"],
    "b": [r"'\\x00ff5c27'", "''", "sha256('x')"],
    "t": ["''", "'null'", "E'tab\\t new\\n back\\\\ quote\\''", "'žluťoučký kůň 🐎'", "null"],
    "c": ["'ab'", "''"],
    "z": ["'infinity'", "'-infinity'", "'0044-03-15 12:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'", "clock_timestamp()"],
    "d": ["'infinity'", "'4713-01-01 BC'", "'5874897-12-31'"],
    "tz": ["'24:00:00+15:59'", "'00:00:00.000001-12:34:56'"],
    "i": ["'1 mon -3 days 00:00:00.000001'", "'-178000000 years'"],
    "j": ["""'{"a": [1, null, 1e400], "\u017e": ""}'""", "'null'", "'\"x\"'"],
    "x": ["'<a b=\"1\">ž</a>'", "null"],
    "bits": ["B'101010101'", "B''"],
    "net": ["'::1/64'", "'10.1.2.3/8'"],
    "u": ["gen_random_uuid()"],
    "m": ["'sad'", "'happy'", "null"],
    "p": ["row(1, 'a\"b,(c)')", "row(null, null)"],
    "pos": ["1", "2147483 "],
    "a": ["'[0:1]={1,2}'", "'{}'", "'{{1,2},{3,null}}'"],
    "ta": ["array['null', null, '', 'a\"b', '{}']"],
    "r": ["'empty'", "'[1,10)'", "'(,5]'"],
    "mr": ["'{[1,2),(3,5]}'", "'{}'"],
    "ts": ["'a:1A b:2'"],
    "money": ["'-92233720368547758.08'", "1.5"],
    "point": ["'(1e-300,-0)'"],
    "big": ["repeat(md5(random()::text), 200)", "repeat('x', 9000)", "'small'"],
}


class Awkward(threading.Thread):
    """One writer of awkward values: inserts, updates of some columns (so that big ones stay as they were), key changes,
    deletes. Knows what every row must look like, as the server printed it when it was acknowledged."""

    ROW = "md5(awkward::text)"

    def __init__(self, where):
        super().__init__(daemon=True)
        self.where, self.ended, self.rows, self.doubt, self.errors, self.done = where, threading.Event(), {}, set(), [], 0
        self.diary, self.diary_doubt = 0, 0

    def stop(self):
        self.ended.set()
        self.join(30)
        return self

    def _step(self, cur, dice, n):
        cur.execute("set local extra_float_digits = 3")
        kind = dice.random()
        known = sorted(set(self.rows) - self.doubt)
        cur.execute("insert into diary (writer, what) values (%s, %s)", (1, f"step {n}"))
        if kind < 0.5 or len(known) < 20:
            columns = dice.sample(sorted(_VALUES), dice.randint(3, len(_VALUES)))
            values = ", ".join(dice.choice(_VALUES[c]) for c in columns)
            cur.execute(f"insert into awkward (id, {', '.join(columns)}) values ({n}, {values}) returning id, {self.ROW}")
            return {}, dict(cur.fetchall())
        row = dice.choice(known)
        if kind < 0.85:
            columns = dice.sample(sorted(set(_VALUES) - {"big"}), dice.randint(1, 4))
            values = ", ".join(f"{c} = {dice.choice(_VALUES[c])}" for c in columns)
            cur.execute(f"update awkward set {values} where id = {row} returning id, {self.ROW}")
            return {}, dict(cur.fetchall())
        if kind < 0.95:
            cur.execute(f"update awkward set id = {n} where id = {row} returning id, {self.ROW}")
            return {row: None}, dict(cur.fetchall())
        cur.execute(f"delete from awkward where id = {row}")
        return {row: None}, {}

    def run(self):
        con, n, dice = None, 0, random.Random(7)
        while not self.ended.is_set():
            n += 1
            gone, there, committing = {}, {}, False
            try:
                if con is None or con.closed:
                    address, port, database, user, password = self.where()
                    con = psycopg2.connect(hostaddr=address, host=address, port=port, dbname=database, user=user,
                                           password=password, connect_timeout=3, application_name="awkward")
                with con.cursor() as cur:
                    gone, there = self._step(cur, dice, n)
                committing = True
                con.commit()
                for row in gone:
                    self.rows.pop(row, None)
                self.rows.update(there)
                self.done += 1
                self.diary += 1
            except (psycopg2.Error, OSError) as problem:
                self.errors.append(str(problem).strip().split("\n", maxsplit=1)[0])
                if committing:
                    self.doubt |= set(gone) | set(there)
                    self.diary_doubt += 1
                if con is not None:
                    con.close()
                con = None
                time.sleep(0.02)
            time.sleep(0.005)

    def audit(self, con):
        """Rows that aren't there, are there too much or look otherwise than when they were acknowledged."""
        with con.cursor() as cur:
            cur.execute("set extra_float_digits = 3")
            cur.execute(f"select id, {self.ROW} from awkward")
            there = {k: v for k, v in cur.fetchall() if k not in self.doubt}
            cur.execute("select count(*) from diary")
            diary = cur.fetchone()[0]
        mine = {k: v for k, v in self.rows.items() if k not in self.doubt}
        wrong = [k for k in set(mine) | set(there) if mine.get(k) != there.get(k)]
        if not self.diary <= diary <= self.diary + self.diary_doubt:
            wrong.append(f"diary has {diary} lines, {self.diary} were acknowledged")
        return wrong
