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
        self.errors, self.sides, self.longest, self.last = [], {}, 0.0, None
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

    def _connect(self):
        address, port, database, user, password = self.where()
        con = psycopg2.connect(hostaddr=address, host=address, port=port, dbname=database, user=user, password=password,
                               connect_timeout=3, application_name="ledger")
        return con, address

    def _acknowledged(self, writer, n, address):
        now = time.monotonic()
        with self.lock:
            if self.last is not None and now - self.last > self.longest:
                self.longest = now - self.last
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
