"""Random transactions over every kind of table, with every way in which rows can depend on each other.

KB_SEEDS sets how many seeds are tried (3 by default), KB_SEED the first one (1). A failure names its seed.
"""
import os
import random

import psycopg2
import pytest

from kb import SOURCE_MAJOR, TARGET_MAJOR

pytestmark = pytest.mark.matrix

SEEDS = range(int(os.environ.get("KB_SEED", "1")), int(os.environ.get("KB_SEED", "1")) + int(os.environ.get("KB_SEEDS", "3")))

TABLES = """
create table plain (id int primary key, v text, n numeric, big text);
alter table plain alter big set storage external;
create table uniq (id int primary key, u int unique, w text unique, v int);
create table two (a int, b text, v text, primary key (b, a));
create table keyless (a int, b text, c float8); alter table keyless replica identity full;
create table fullpk (id int primary key, v text, j json); alter table fullpk replica identity full;
create table always (id int generated always as identity primary key, v int, d int{generated});
create table part (id int, v text, primary key (id)) partition by range (id);
create table part_a partition of part for values from (0) to (50); create table part_b partition of part for values from (50) to (1000);
create table defer (id int primary key, pos int unique deferrable initially deferred);
create table excl (id int primary key, r int4range, exclude using gist (r with &&));
create table textkey (k text primary key, v text); alter table textkey alter k set storage external;
create table numkey (k numeric primary key, v text);
create table other (id int primary key, code text not null, v text); create unique index other_code on other (code);
alter table other replica identity using index other_code;
create table expr (id int primary key, name text); create unique index on expr (lower(name)); create unique index on expr (id) where name > 'm';
create table inserts (a int, b text); alter table inserts replica identity nothing;
create table parent (id int primary key, v text); create table child (id int primary key, p int references parent on delete cascade on update cascade);
"""


TABLES = TABLES.replace("{generated}", " generated always as (v * 2) stored" if min(SOURCE_MAJOR, TARGET_MAJOR) >= 12 else "")


class Work:
    def __init__(self, seed):
        self.r = random.Random(seed)

    def id(self, most=80):
        return self.r.randrange(most)

    def text(self):
        return self.r.choice(["", "a", "b'\\\"", "null", "é" * self.r.randrange(1, 9), "x" * self.r.choice([10, 3000]), None])

    def big(self):
        return "".join(self.r.choice("abcdef") for _ in range(self.r.choice([5, 2500, 9000])))

    def statement(self):
        """One statement and its parameters. Many fail, as an application's do: the savepoint is rolled back then."""
        r, i, k = self.r, self.id(), self.id()
        low, high = sorted((self.id(), self.id()))
        return r.choice([
            ("insert into plain values (%s, %s, %s, %s)", (i, self.text(), r.choice([None, "1.50", "1.5", "NaN"]), self.big())),
            ("insert into plain select g, 'many', g, null from generate_series(%s, %s) g on conflict do nothing", (low, high)),
            ("update plain set v = %s where id = %s", (self.text(), i)),
            ("update plain set v = v || 'u', n = n + 1 where id between %s and %s", (low, high)),
            ("update plain set big = %s where id = %s", (self.big(), i)),
            ("update plain set id = %s where id = %s", (k, i)),
            ("update plain set id = id + 100 where id between %s and %s", (low, high)),
            ("update plain set id = id - 100 where id > 99 and id %% 3 = 0", ()),
            ("delete from plain where id = %s", (i,)),
            ("delete from plain where id between %s and %s", (low, low + 5)),
            ("insert into uniq values (%s, %s, %s, 0)", (i, k, str(self.id()))),
            ("update uniq set u = %s where id = %s", (r.choice([None, k]), i)),
            ("update uniq set u = null where id = %s", (i,)),
            ("update uniq set w = %s, v = v + 1 where id = %s", (str(k), i)),
            ("update uniq set v = v + 1 where id between %s and %s", (low, high)),
            ("delete from uniq where id = %s or u = %s", (i, k)),
            ("with gone as (delete from uniq where id = %s returning *) insert into uniq select %s, u, w, v from gone", (i, k)),
            ("insert into two values (%s, %s, %s)", (i % 9, str(k % 9), self.text())),
            ("update two set a = %s, v = 'k' where b = %s", (i % 9, str(k % 9))),
            ("update two set v = %s where a = %s", (self.text(), i % 9)),
            ("delete from two where b = %s", (str(k % 9),)),
            ("insert into keyless select %s, %s, %s from generate_series(1, %s)", (i % 5, r.choice([None, "a"]), r.choice(["-0", "0", None]), r.choice([1, 2, 30]))),
            ("update keyless set b = %s where a = %s", (r.choice([None, "a", "b"]), i % 5)),
            ("delete from keyless where ctid = any (select ctid from keyless where a = %s limit 2)", (i % 5,)),
            ("insert into fullpk values (%s, %s, '{\"a\": 1}')", (i, self.text())),
            ("update fullpk set id = %s, v = 'f' where id = %s", (r.choice([i, k]), i)),
            ("delete from fullpk where id = %s", (i,)),
            ("insert into always (v) values (%s), (%s)", (i, k)),
            ("update always set v = v + 1 where id %% 7 = %s", (i % 7,)),
            ("update always set id = default where id = (select min(id) from always)", ()),
            ("delete from always where v = %s", (i,)),
            ("insert into part values (%s, %s)", (i, self.text())),
            ("update part set id = %s where id = %s", (k, i)),
            ("update part set v = %s where id = %s", (self.text(), i)),
            ("delete from part where id between %s and %s", (low, low + 3)),
            ("insert into defer values (%s, %s)", (i, i)),
            ("update defer set pos = pos + 1", ()),
            ("update defer d set pos = (select pos from defer where id = %s) where id = %s", (k, i)),
            ("delete from defer where id = %s", (i,)),
            ("insert into excl values (%s, int4range(%s, %s))", (i, k * 3, k * 3 + r.choice([1, 4]))),
            ("update excl set r = int4range(%s, %s) where id = %s", (k * 3, k * 3 + 2, i)),
            ("delete from excl where id = %s", (i,)),
            ("insert into textkey values (repeat(%s, %s), 't')", (chr(97 + i % 20), r.choice([3, 2100]))),
            ("update textkey set v = %s where k like %s", (self.text(), chr(97 + i % 20) + "%")),
            ("delete from textkey where k like %s", (chr(97 + i % 20) + "%",)),
            ("insert into numkey values (%s, 'n')", (r.choice(["1.0", "1.00", "2", "2.000", str(i)]),)),
            ("update numkey set k = k * 1.0, v = 'scaled' where k < 3", ()),
            ("delete from numkey where k = %s", (i % 3,)),
            ("insert into other values (%s, %s, 'o')", (i, str(i))),
            ("update other set code = %s, v = %s where id = %s", (r.choice([str(i), str(k)]), self.text(), i)),
            ("update other set id = %s where code = %s", (k, str(i))),
            ("delete from other where code = %s", (str(i),)),
            ("insert into expr values (%s, %s)", (i, r.choice(["A", "a", "z", "Z"]) + str(k))),
            ("update expr set name = %s where id = %s", (r.choice(["A", "a", "z"]) + str(k), i)),
            ("delete from expr where id = %s", (i,)),
            ("insert into inserts select g, 'x' from generate_series(1, %s) g", (r.choice([1, 7, 150]),)),
            ("insert into parent values (%s, 'p')", (i % 30,)),
            ("insert into child values (%s, %s)", (i, k % 30)),
            ("update parent set id = %s where id = %s", (k % 30, i % 30)),
            ("delete from parent where id = %s", (i % 30,)),
            ("truncate parent cascade", ()) if r.random() < 0.05 else ("delete from child where id = %s", (i,)),
            ("truncate plain, uniq", ()) if r.random() < 0.03 else ("update uniq set v = 0", ()),
            ("truncate always restart identity", ()) if r.random() < 0.03 else ("select 1", ()),
        ])

    def transaction(self, connection):
        """Commits most of the time; savepoints around every statement, some rolled back on purpose."""
        with connection.cursor() as c:
            c.execute("begin")
            for _ in range(self.r.choice([1, 1, 2, 5, 20])):
                c.execute("savepoint s")
                try:
                    c.execute(*self.statement())
                    if self.r.random() < 0.05:
                        c.execute("rollback to s")
                except (psycopg2.IntegrityError, psycopg2.DataError, psycopg2.ProgrammingError, psycopg2.OperationalError,
                        psycopg2.NotSupportedError):
                    c.execute("rollback to s")
            try:
                c.execute("rollback" if self.r.random() < 0.05 else "commit")
            except psycopg2.IntegrityError:                     # a deferred constraint
                c.execute("rollback")


def start(pair, seed):
    pair.both(TABLES)
    pair.publish(options="with (publish_via_partition_root = true)" if seed % 2 and SOURCE_MAJOR >= 13 else "")
    pair.make_slot()
    connection = pair.source.connect()
    connection.autocommit = True
    return Work(seed), connection


@pytest.mark.parametrize("seed", SEEDS)
def test_random_transactions(pair, seed):
    """One backlog in batches of different sizes, then more while it runs and is killed."""
    work, connection = start(pair, seed)
    more = ["--lanes=3", f"--apply-batch-changes={work.r.choice([1, 100, 2000, 50000])}"]
    for _ in range(150):
        work.transaction(connection)
    pair.replicate(*more, code=0, timeout=120)
    pair.same()
    run = pair.start(*more)
    for n in range(120):
        work.transaction(connection)
        if n % 50 == 25:
            run.kill9()
            run = pair.start(*more)
    run.kill9()
    pair.replicate(*more, code=0, timeout=120)
    pair.same()


def test_set_wise_is_not_given_up(pair):
    """Changes that can be written set-wise are: no batch of an ordinary load goes through the exact replay."""
    pair.both("create table t (id int primary key, u int unique, v text)")
    pair.prepare()
    pair.source.sql("insert into t select g, g, 'a' from generate_series(1, 3000) g")
    pair.source.sql("update t set v = 'b' where id % 2 = 0")
    pair.source.sql("delete from t where id % 5 = 0")
    done = pair.replicate("--log-level=debug", code=0)
    pair.same()
    assert "replayed" not in done.err, done
