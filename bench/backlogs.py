"""The five backlogs of `make bench`: tables, their first rows, and the load that makes the backlog.

What setup() does is the same on every server that it is run on, so that source and target begin alike. load() runs on the
source only, between the making of the slots and the first drain. Sizes are those of a full run; the scale shrinks the load,
never the tables.
"""
import os
import subprocess

from lab.pgserver import BINDIR, ServerError


class Backlog:
    name = ""
    what = ""
    full = 0                # transactions
    must = 1.0              # of native's time, at most

    def count(self, scale):
        return max(1, round(self.full * scale))

    def setup(self, server, database):
        server.sql(self.schema, dbname=database)
        server.sql("vacuum analyze", dbname=database)

    def load(self, server, database, scale):
        server.sql(f"call load({self.count(scale)})", dbname=database)


def procedure(body, declare=""):
    """load(n): the body n times, each its own transaction; i counts them, r is a random number that repeats in every run."""
    return f"""
create procedure load(n int) language plpgsql as $$
declare r int; {declare}
begin
    perform setseed(0.5);
    for i in 1 .. n loop
        r := (random() * 1000000)::int;
        {body}
        commit;
    end loop;
end $$;
"""


class Tpcb(Backlog):
    name, full, must = "tpcb", 120_000, 0.5
    what = "pgbench's transactions: three updates and an insert, scale 5"
    clients = 4

    def _pgbench(self, server, database, *args):
        done = subprocess.run([f"{BINDIR}/pgbench", "-h", server.host, "-p", str(server.port), "-U", server.superuser, *args,
                               database], capture_output=True, text=True, check=False,
                              env={**os.environ, "PGOPTIONS": "-c synchronous_commit=off"})
        if done.returncode:
            raise ServerError(f"pgbench: {done.stderr}")

    def setup(self, server, database):
        self._pgbench(server, database, "-i", "-q", "-s", "5", "-I", "dtGvp")

    def count(self, scale):
        return super().count(scale) // self.clients * self.clients

    def load(self, server, database, scale):
        self._pgbench(server, database, "-n", "-M", "prepared", "-c", str(self.clients), "-j", "1",
                      "-t", str(self.count(scale) // self.clients))


TEN_COLUMNS = "id bigint primary key, a int, b int, c bigint, d text, e text, f numeric, g timestamptz, h bool, j float8"
TEN_VALUES = ("{i}, {r}, {i} % 1000, {i}::bigint * 7, 'customer ' || {i}, md5({i}::text), ({r} % 10000) / 100.0, "
              "timestamptz '2026-01-01 UTC' + {i} * interval '1 second', {i} % 2 = 0, sqrt({i})")


class Insert(Backlog):
    name, full, must = "insert", 320_000, 0.7
    what = "one row of ten columns a transaction"
    schema = f"create table rows ({TEN_COLUMNS});" + procedure(
        f"insert into rows values ({TEN_VALUES.format(i='i', r='r')});")


class Bulk(Backlog):
    name, full, must = "bulk", 20, 0.7
    what = "100,000 rows of ten columns a transaction"
    rows = 100_000
    schema = f"create table rows ({TEN_COLUMNS});" + procedure(f"""
        insert into rows select {TEN_VALUES.format(i='s', r='(s * 7919 % 1000003)')}
            from generate_series(({rows} * (i - 1) + 1)::bigint, {rows}::bigint * i) s;""")


class Wide(Backlog):
    name, full, must = "wide", 60_000, 0.6
    what = "two updates a transaction; 20 columns, 4 further indexes, 4 kB outside the row"
    rows = 10_000
    fields = [f"t{n}" for n in range(1, 9)]
    numbers = [f"n{n}" for n in range(1, 11)]
    schema = (f"create table rows (id int primary key, {', '.join(f + ' text' for f in fields)}, "
              f"{', '.join(n + ' int' for n in numbers)}, document text);"
              "alter table rows alter document set storage external;"
              f"insert into rows select i, {', '.join(f'md5((i * {n + 2})::text)' for n in range(len(fields)))}, "
              f"{', '.join(f'i * {n + 3} % 1000' for n in range(len(numbers)))}, repeat(md5(i::text), 128) "
              f"from generate_series(1, {rows}) i;"
              "create index on rows (n1); create index on rows (n2); create index on rows (t1); create index on rows (n3, n4);"
              + procedure(f"""
        update rows set n1 = r % 1000, t2 = md5(r::text), n5 = i where id = r % {rows} + 1;
        if i % 50 = 0 then
            update rows set n2 = i % 1000, document = repeat(md5(i::text), 128) where id = (r / 7) % {rows} + 1;
        else
            update rows set n2 = i % 1000, t3 = md5(i::text) where id = (r / 7) % {rows} + 1;
        end if;"""))


def many_tables(count, rows):
    return "".join(f"create table t{n} (id int primary key, code text not null unique, value int, note text);"
                   f"insert into t{n} select i, 'code ' || i, i, md5(i::text) from generate_series(1, {rows}) i;"
                   for n in range(count))


class Many(Backlog):
    name, full, must = "many", 96_000, 0.6
    what = "50 tables with a further unique key; an update and an insert by turns"
    schema = many_tables(50, 1000) + procedure("""
        name := 't' || r % 50;
        if i % 2 = 0 then
            execute 'insert into ' || name || ' values ($1, $2, $3, $4)' using 1000 + i, 'code ' || 1000 + i, r, md5(r::text);
        else
            execute 'update ' || name || ' set value = $1, note = $2 where id = $3' using r, md5(r::text), r / 7 % 1000 + 1;
        end if;""", "name text;")


BACKLOGS = [Tpcb(), Insert(), Bulk(), Wide(), Many()]
