#!/usr/bin/python3
"""Makes the pgoutput captures beside it: what real PostgreSQL servers send for small workloads. Protocols 1 and 2 are from
version 15; prepared transactions are with protocol 3 from 15 and with protocol 4 from 16 and 18, text and binary.

    make_pgoutput.py [FOLDER]

Each .bin file is a run of messages, every one with its length in front as a big-endian 32-bit integer. They are
committed; run this again only when the workload changes, and adapt test_pgoutput_captures.c, which says by hand what
must come out of them.
"""
import os
import select
import struct
import sys
import tempfile
import time

import psycopg2
import psycopg2.extras

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../lab"))
import pgversions  # noqa: E402
from pgserver import PgServer  # noqa: E402

SCHEMA = """
create type mood as enum ('sad', 'ok', 'happy');
create table plain (id int primary key, v text, m mood, n numeric(10,2), b bytea);
create table toasted (id int primary key, big text, small text);
alter table toasted alter big set storage external;
create table whole (id int, big text, small text);
alter table whole alter big set storage external, replica identity full;
create table indexed (c text, a int not null, b text not null);
create unique index indexed_key on indexed (a, b);
alter table indexed replica identity using index indexed_key;
create table keyed_by_text (k text primary key, v int);
alter table keyed_by_text alter k set storage external;
create table changing (id int primary key, a int, b text);
create table bulk (id int primary key, v text);
create publication p for all tables;
select pg_replication_origin_create('elsewhere');
"""

BIG = "repeat('0123456789', 300)"          # beyond what stays in the row

SMALL = [
    ["insert into plain values (1, 'one', 'happy', 1.50, '\\x00ff'), (2, null, null, null, null), (3, '', 'sad', -0.01, '')",
     "update plain set v = 'eins' where id = 1",
     "update plain set id = 10 where id = 1",
     "delete from plain where id = 2"],
    [f"insert into toasted values (1, {BIG}, 's')",
     "update toasted set small = 't' where id = 1",
     "update toasted set id = 2 where id = 1",
     "delete from toasted"],
    [f"insert into whole values (1, {BIG}, null)",
     "update whole set small = 'now' where id = 1",
     "update whole set big = null",
     "delete from whole"],
    ["insert into indexed values ('x', 1, 'one')",
     "update indexed set c = null",
     "update indexed set a = 2",
     "delete from indexed"],
    ["insert into keyed_by_text values (repeat('k', 2600), 1)",
     "update keyed_by_text set v = 2"],
    ["insert into changing values (1, 10, 'ten')"],
    ["alter table changing add d int default 7",
     "insert into changing values (2, 20, 'twenty', 70)"],
    ["alter table changing drop a",
     "alter table changing rename d to a",
     "insert into changing values (3, 'thirty', 80)"],
    ["truncate plain, toasted restart identity cascade", "truncate whole"],
    ["select pg_logical_emit_message(true, 'inside', 'a transaction')", "insert into plain values (4)"],
    ["select pg_logical_emit_message(false, 'outside', E'\\x2002')"],
    ["select pg_replication_origin_session_setup('elsewhere')",
     "select pg_replication_origin_xact_setup('0/ABCDEF', '2020-02-02 02:02:02+00')",
     "insert into plain values (5)",
     None,                                  # commit
     "select pg_replication_origin_session_reset()"],
]

STREAMED = [
    ["insert into bulk select i, repeat('v', 9) from generate_series(1, 600) i",
     "savepoint kept", "update bulk set v = 'kept' where id <= 3", "release kept",
     "savepoint lost", "insert into bulk select i, repeat('w', 9) from generate_series(1001, 1600) i",
     "rollback to lost",
     "select pg_logical_emit_message(true, 'streamed', 'x')",
     "delete from bulk where id > 3"],
    ["insert into bulk select i, repeat('a', 9) from generate_series(2001, 2600) i", "rollback"],
    ["truncate bulk"],
]

ROWS = "insert into bulk select i, repeat('v', 9) from generate_series({0}, {0} + 599) i"
TWO_PHASE = [
    ["insert into plain values (1, 'one')", "update plain set v = 'eins'", "prepare transaction 'stays'"],
    ["insert into plain values (2, 'two')", "prepare transaction 'g''one'"],
    ["insert into plain values (3, 'three')"],
    ["select pg_logical_emit_message(true, 'no', 'rows')", "prepare transaction 'message'"],
    ["rollback prepared 'g''one'"], ["commit prepared 'stays'"], ["commit prepared 'message'"],
    [ROWS.format(1), "savepoint lost", ROWS.format(1001), "rollback to lost", "prepare transaction 'streamed'"],
    [ROWS.format(2001), "prepare transaction 'streamed, gone'"],
    [ROWS.format(3001), "rollback"],
    ["commit prepared 'streamed'"], ["rollback prepared 'streamed, gone'"],
    ["truncate bulk"],
]


SETTLES = ("commit prepared", "rollback prepared")
ENDS = ("rollback", "prepare transaction", *SETTLES)


def run(con, transactions):
    with con.cursor() as cur:
        for statements in transactions:
            if not statements[0].startswith(SETTLES):
                cur.execute("begin")
            for statement in statements:
                cur.execute(statement or "commit")
            if None not in statements and not statements[-1].startswith(ENDS):
                cur.execute("commit")


def capture(server, slot, path, **options):
    con = psycopg2.connect(server.dsn(), connection_factory=psycopg2.extras.LogicalReplicationConnection)
    cur = con.cursor()
    words = ", ".join(f"\"{name}\" '{value}'" for name, value in options.items())
    cur.start_replication_expert(f'START_REPLICATION SLOT "{slot}" LOGICAL 0/0 ({words})', decode=False)
    end = time.monotonic() + 30
    with open(path, "wb") as out:
        while time.monotonic() < end:
            message = cur.read_message()
            if message is None:
                select.select([con], [], [], 0.2)
                continue
            if message.payload[:1] == b"M" and b"the end\0" in message.payload:
                break
            out.write(struct.pack(">I", len(message.payload)) + message.payload)
        else:
            raise SystemExit(f"{path}: the end didn't come")
    con.close()


SETTINGS = {"wal_level": "logical", "logical_decoding_work_mem": "64kB", "autovacuum": "off", "fsync": "off",
            "max_prepared_transactions": 10}


def one(server, path, work, options, two_phase=False):
    server.sql("truncate plain, toasted, whole, indexed, keyed_by_text, changing, bulk")
    server.sql("alter table changing drop if exists a, drop if exists b, drop if exists d")
    server.sql("alter table changing add a int, add b text")
    server.sql(f"select pg_create_logical_replication_slot('s', 'pgoutput', false, {two_phase})")
    con = server.connect()
    run(con, work)
    con.cursor().execute("select pg_logical_emit_message(false, 'the end', '')")
    con.close()
    capture(server, "s", path, publication_names="p", messages="true", **options)
    server.sql("select pg_drop_replication_slot('s')")


PLAIN = (
    ("v1-text", SMALL, {"proto_version": 1}),
    ("v1-binary", SMALL, {"proto_version": 1, "binary": "true"}),
    ("v2-text", SMALL + STREAMED, {"proto_version": 2, "streaming": "on"}),
    ("v2-binary", STREAMED + SMALL, {"proto_version": 2, "streaming": "on", "binary": "true"}))
PREPARED = (
    (15, "v3-15", {"proto_version": 3, "streaming": "on"}),
    (16, "v4-16", {"proto_version": 4, "streaming": "parallel", "origin": "any"}),
    (18, "v4-18", {"proto_version": 4, "streaming": "parallel", "origin": "any", "binary": "true"}))


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else HERE
    only = sys.argv[2:]                     # names; all by default
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        for major in sorted({15, *(major for major, *_ in PREPARED)}):
            with PgServer(os.path.join(scratch, f"source{major}"), bindir=pgversions.bindir(major), settings=SETTINGS) as server:
                server.sql(SCHEMA)
                for name, work, options in PLAIN if major == 15 else ():
                    if not only or name in only:
                        one(server, os.path.join(folder, f"pgoutput-{name}.bin"), work, options)
                for of, name, options in PREPARED:
                    if of == major and (not only or name in only):
                        one(server, os.path.join(folder, f"pgoutput-{name}.bin"), TWO_PHASE, options, True)


main()
