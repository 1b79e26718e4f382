"""keybridge verify on real servers: every planted difference is found and named, and nothing else is."""
import os
import signal
import struct
import time

import pytest

from kb import PASSWORD, Database, wait_until
from lab.pgserver import PgServer, free_port


def verify(pair, *more, code=0, json=True, timeout=120, **kw):
    done = pair.command("verify", *(["--json"] if json else []), *more, code=code, timeout=timeout, **kw)
    return done.json()["databases"][0] if json else done


def table_of(result, name, schema="public"):
    return next(t for t in result["tables"] if (t["schema"], t["table"]) == (schema, name))


def rows_of(result, name="t"):
    return sorted((r["kind"], r["key"], r.get("columns")) for r in table_of(result, name)["rows"])


# Every kind of column that PostgreSQL brings, with the values that comparisons trip over.
AWKWARD = """
create type mood as enum ('sad', 'ok', 'it''s "fine"');
create type pt as (x float8, y text, z numeric);
create domain pos as numeric check (value is null or value >= 0);
create domain pos2 as pos;
create domain mood_d as mood;
create type fr as range (subtype = float8);
create table awkward (
 id bigint primary key, b boolean, i2 smallint, i4 int, i8 bigint, f4 real, f8 double precision, n numeric, n2 numeric(12,4),
 m money, c char(7), vc varchar(20), tx text, nm name, ch "char", by bytea, d date, tm time, tmz timetz, ts timestamp, tsz timestamptz,
 iv interval, u uuid, j json, jb jsonb, xm xml, ip inet, ci cidr, ma macaddr, ma8 macaddr8, bi bit(5), vb bit varying, pnt point, ln line,
 ls lseg, bx box, pa path, po polygon, cr circle, tsv tsvector, tsq tsquery, o oid, rc regclass, rp regprocedure, lsn pg_lsn, xi xid,
 td tid, i4r int4range, nr numrange, tsr tstzrange, mr int8multirange, ai int[], at text[], an numeric[], e mood, ea mood[], cp pt, cpa pt[],
 dp pos, dp2 pos2, dm mood_d, dpa pos[], fr fr, jp jsonpath, iav int2vector, ov oidvector, txs txid_snapshot,
 g int generated always as (i4 * 2) stored, "sel""ect" text, "t" int, "x" int);
insert into awkward (id, b, i2, i4, i8, f4, f8, n, n2, m, c, vc, tx, nm, ch, by, d, tm, tmz, ts, tsz, iv, u, j, jb, xm, ip, ci, ma, ma8, bi, vb, pnt,
 ln, ls, bx, pa, po, cr, tsv, tsq, o, rc, rp, lsn, xi, td, i4r, nr, tsr, mr, ai, at, an, e, ea, cp, cpa, dp, dp2, dm, dpa, fr, jp, iav, ov, txs,
 "sel""ect", "t", "x")
select k, k % 2 = 0, -32768, 1000 + k, 9223372036854775807, '-0', 'NaN', '1.00', 1.5, '-92233720368547758.08', 'ab', 'v ', e'tab\\t\\n\\\\ "q" ''s''  ',
 'nm', 'z', '\\x00ff5c', '4713-01-01 BC', '24:00', '12:00:00.000001+15:59', 'infinity', '-infinity', '1 mon -1 day 00:00:00.000001',
 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"a":1,"a":"\\u0000"}', '{"n": 1.000, "z": [null, "é"]}', '<a b="1">é</a>', '::1/64', '10.0.0.0/8',
 '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '10101', '', '(1,-0)', '{1,2,3}', '[(0,0),(1,1)]', '((1,1),(0,0))', '[(0,0),(1,1)]',
 '((0,0),(1,1),(2,0))', '<(0,0),5>', '''a'':1A b:2', 'a & !b', 4294967295, 'pg_class', 'lower(text)', 'FFFFFFFF/FFFFFFFF', '4294967295',
 '(1,1)', '[1,)', 'empty', '(,2024-01-01 00:00+00]', '{[1,2),[5,8)}', '[0:1]={1,NULL}', '{NULL,"NULL","",","}', '{1.0,1.00,NaN,Infinity}',
 'it''s "fine"', '{sad,NULL}', row(-0.0::float8, null, 1.10)::pt, array[row(1, 'a"b', null)::pt, null], 1.10, 2.20, 'ok', '{1.0,2.00}',
 '[-0.0,1e-300)', '$.a[*] ? (@ > 1)', '1 2', '3 4', '10:20:10,14', 'q', k, -k
 from generate_series(1, 40) k;
insert into awkward (id) values (1001);                                  -- all NULL
insert into awkward (id, cp, at, tx, by, jb) values (1002, row(null, null, null), '{}', '', '', 'null');
insert into awkward (id, tx, by) select 2000 + k, repeat(md5(k::text), 3000), decode(repeat(md5(k::text), 5000), 'hex') from generate_series(1, 5) k;
create table no_columns ();
insert into no_columns select from generate_series(1, 3);
create table empty_keyed (a int primary key, b text);
create table empty_keyless (a int);
create table parent (a int, b text);
create table child (c int) inherits (parent);
insert into parent values (1, 'p'), (1, 'p');
insert into child values (2, 'c', 3);
create table parts (id int, v text, primary key (id)) partition by range (id);
create table parts_1 partition of parts for values from (0) to (100);
create table parts_2 partition of parts default;
insert into parts select k, 'v' || k from generate_series(1, 200) k;
create unlogged table scratch_pad (a int);
create schema "Odd ""schema";
create table "Odd ""schema"."Odd.table'" ("Odd ""col" int primary key, "b,c" text);
insert into "Odd ""schema"."Odd.table'" values (1, 'x');
"""


def test_no_false_alarm_on_any_type(pair):
    """Two databases with the same content and other OIDs, other physical order, other TOAST state."""
    pair.source.sql("create table shift_the_oids (a int); drop table shift_the_oids; create type shifted as enum ('a')")
    pair.source.sql("drop type shifted")
    pair.both(AWKWARD)
    pair.target.sql("update awkward set i4 = i4; update parent set a = a")
    pair.target.sql("vacuum full awkward")
    r = verify(pair)
    assert r["equal"] and not r["drift"], r
    assert r["how"] == "as is"
    assert table_of(r, "awkward")["source_rows"] == table_of(r, "awkward")["target_rows"] == 47
    assert table_of(r, "parent")["source_rows"] == 2, "rows of a child are the child's"
    assert table_of(r, "no_columns")["source_rows"] == 3
    assert table_of(r, "parts_1")["source_rows"] == 99
    assert table_of(r, "empty_keyed")["source_hash"] == "0" * 32
    assert table_of(r, "scratch_pad")["verdict"] == "unlogged"
    assert not any(t["table"] == "parts" for t in r["tables"]), "the leaves are compared"
    for t in r["tables"]:
        assert t["source_hash"] == t["target_hash"] and t["verdict"] in ("equal", "unlogged")


def changed(columns, key="id=7"):
    return [("changed", key, columns)]


# name: (SQL on the target alone, what must be reported of table t)
PLANTED = {
    "missing": ("delete from t where id = 7", [("missing", "id=7", None)]),
    "extra": ("insert into t values (777)", [("extra", "id=777", None)]),
    "one bit of a float": ("update t set f = float8 '7.7000000000000002' where id = 7", changed("f")),
    "one bit of bytes": ("update t set by = set_bit(by, 5, 1 - get_bit(by, 5)) where id = 7", changed("by")),
    "minus zero": ("update t set f = '-0' where id = 8", changed("f", "id=8")),
    "scale": ("update t set n = 7.10 where id = 7", changed("n")),
    "trailing blank": ("update t set tx = tx || ' ' where id = 7", changed("tx")),
    "null for empty": ("update t set tx = null where id = 9", changed("tx", "id=9")),
    "the word NULL": ("update t set tx = 'NULL' where id = 10", changed("tx", "id=10")),
    "microseconds cut": ("update t set ts = date_trunc('milliseconds', ts) where id = 7", changed("ts")),
    "infinity as null": ("update t set ts = null where id = 11", changed("ts", "id=11")),
    "bc as ad": ("update t set d = '4712-01-01' where id = 7", changed("d")),
    "case": ("update t set tx = upper(tx) where id = 7", changed("tx")),
    "json blanks": ("update t set j = '{\"a\": \"\\u0000\"}' where id = 7", changed("j")),
    "one day for 24 hours": ("update t set iv = '1 day' where id = 7", changed("iv")),
    "composite of nulls for null": ("update t set cp = row(null, null) where id = 7", changed("cp")),
    "bounds of an array": ("update t set ai = '[0:1]={1,2}' where id = 7", changed("ai")),
    "two columns": ("update t set a = 1, b = 2 where id = 7", changed("a, b")),
    "columns swapped": ("update t set a = b, b = a where id = 7", changed("a, b")),
    "key changed": ("update t set id = 7000 where id = 7", [("extra", "id=7000", None), ("missing", "id=7", None)]),
    "value to its neighbour": ("update t set a = 15 - a where id in (7, 8)", [("changed", "id=7", "a"), ("changed", "id=8", "a")]),
    # trap 161: what cancels under XOR and under plain sums
    "same shift in four rows": ("update t set a = a + 1000 where id in (1, 2, 3, 4)", [("changed", f"id={k}", "a") for k in (1, 2, 3, 4)]),
    "equal sums": ("update t set a = a + case id when 1 then 5 else -5 end where id in (1, 2)", [("changed", "id=1", "a"), ("changed", "id=2", "a")]),
}
TABLE_T = """
create type two as (x int, y int);
create table t (id int primary key, a int, b int, f float8, n numeric, tx text, by bytea, ts timestamp, d date, j json, iv interval, cp two, ai int[]);
insert into t select k, k, 100 - k, case k when 8 then 0 else k * 1.1::float8 end, case k when 7 then 7.1 else k end,
 case k when 9 then '' when 10 then null else 'text' || k end, decode(md5(k::text), 'hex'),
 case k when 11 then 'infinity' else timestamp '2024-02-29 12:00:00.123456' end, '4712-01-01 BC', '{"a":"\\u0000"}', '24:00:00', null, '{1,2}'
 from generate_series(1, 500) k;
"""


@pytest.fixture
def t_pair(pair):
    pair.both(TABLE_T)
    return pair


def test_planted_differences(t_pair):
    """All of the list one by one, undone in between (traps 161, 164, 168, 169, 171, 173)."""
    target = t_pair.target.connect(autocommit=False)
    wrong = {}
    for name, (sql, expected) in PLANTED.items():
        t_pair.target.sql("create table keep as select * from t")
        t_pair.target.sql("delete from t; insert into t select * from keep; drop table keep")
        t_pair.target.sql(sql)
        r = verify(t_pair, code=1)
        if rows_of(r) != sorted(expected) or r["equal"]:
            wrong[name] = rows_of(r)
        t = table_of(r, "t")
        if (t["missing"], t["extra"], t["changed"]) != tuple(sum(e[0] == k for e in expected) for k in ("missing", "extra", "changed")):
            wrong[name + ", counts"] = t
        t_pair.target.sql("truncate t")
        with t_pair.source.connect() as con, con.cursor() as cur, open(f"{t_pair.kb.folder}/t.copy", "w+b") as f:
            cur.copy_expert("copy t to stdout (format binary)", f)
            f.seek(0)
            with t_pair.target.connect() as back, back.cursor() as into:
                into.copy_expert("copy t from stdin (format binary)", f)
    target.close()
    assert not wrong
    assert verify(t_pair)["equal"], "undoing left something behind, so the list proves nothing"


def test_values_are_masked_unless_asked_for(t_pair):
    t_pair.target.sql("update t set tx = 'classified' where id = 7; insert into t (id, tx) values (900, 'classified')")
    done = verify(t_pair, code=1, json=False)
    assert "classified" not in done.out and "text7" not in done.out and "id=7" in done.out
    done = verify(t_pair, "--show-values", code=1, json=False)
    assert "text7" in done.out and "classified" in done.out


def nan_rows(payloads):
    """COPY BINARY of (int, float8) with the bits of a NaN as given: SQL can't write them."""
    out = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
    for i, bits in payloads:
        out += struct.pack("!hiiiQ", 2, 4, i, 8, bits)
    return out + struct.pack("!h", -1)


def test_nan_payload(pair, tmp_path):
    pair.both("create table t (id int primary key, f float8)")
    for side, bits in ((pair.source, 0x7FF8000000000000), (pair.target, 0x7FF8000000000001)):
        path = tmp_path / "nan"
        path.write_bytes(nan_rows([(1, 0x7FF8000000000000), (2, bits)]))
        with side.connect() as con, con.cursor() as cur, open(path, "rb") as f:
            cur.copy_expert("copy t from stdin (format binary)", f)
    r = verify(pair, "--show-values", code=1)
    assert rows_of(r) == [("changed", "id=2", "f")]
    row = table_of(r, "t")["rows"][0]
    assert "7ff8000000000000" in row["source"] and "7ff8000000000001" in row["target"], "equal text: the bytes have to tell"


def test_a_physical_copy_compares_by_its_binary_form(fresh_server, kb, scratch):
    """The case keybridge is for: OIDs are the same, so composites count to the bit as well."""
    src = fresh_server("physical")
    src.sql("create database app")
    src.sql(AWKWARD, dbname="app")
    copy = PgServer(src.freeze_copy(f"{scratch}/physical-copy-{os.getpid()}"), bindir=src.bindir, password=PASSWORD,
                    port=free_port(24000, 24999))
    copy.start()
    try:
        def run(kb, code):
            return kb.run("verify", "--json", env={"KEYBRIDGE_SOURCE": Database(src, "app").dsn,
                                                   "KEYBRIDGE_TARGET": Database(copy, "app").dsn}, code=code).json()["databases"][0]
        assert run(kb, 0)["equal"]
        # inside a composite, -0 for 0 and a scale
        copy.sql("update awkward set cp = row(0.0::float8, null, 1.10) where id = 3", dbname="app")
        copy.sql("update awkward set cpa = array[row(1, 'a\"b', null)::pt, row(null, null, null)::pt] where id = 4", dbname="app")
        r = run(kb, 1)
        assert rows_of(r, "awkward") == [("changed", "id=3", "cp"), ("changed", "id=4", "cpa")]
    finally:
        copy.remove()


def test_trap_166_tables_without_a_key_are_multisets(pair):
    pair.both("create table t (a int, b text); insert into t select k % 10, 'x' || k % 3 from generate_series(1, 300) k")
    assert verify(pair)["equal"]
    # as many rows as before: two of one kind less, two of another more, and one that is new for one that went
    pair.target.sql("delete from t where ctid in (select ctid from t where a = 1 and b = 'x1' limit 2)")
    pair.target.sql("insert into t values (2, 'x2'), (2, 'x2')")
    pair.target.sql("update t set b = null where ctid in (select ctid from t where a = 3 and b = 'x0' limit 1)")
    t = table_of(verify(pair, "--show-values", code=1), "t")
    assert t["source_rows"] == t["target_rows"] == 300 and t["keyless"]
    assert (t["missing"], t["extra"], t["changed"]) == (3, 3, 0)
    assert sorted((r["kind"], r.get("copies", 1), r.get("source") or r.get("target")) for r in t["rows"]) == [
        ("extra", 1, "a=3 b=NULL"), ("extra", 2, "a=2 b='x2'"), ("missing", 1, "a=3 b='x0'"), ("missing", 2, "a=1 b='x1'")]


def test_trap_163_sort_order_differs_between_the_sides(pair):
    """A key of text under another collation on each side, one of them nondeterministic, in chunks of few rows."""
    pair.target.sql("create collation blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    pair.source.sql('create table t (k text collate "C", n int, v text, primary key (k, n))')
    pair.target.sql("create table t (k text collate blind, n int, v text, primary key (k, n))")
    words = "insert into t select w || g, g, 'v' from unnest(array['a', 'É', 'é', 'zz', 'ß', '-', 'B', 'Ω']) w, generate_series(1, 400) g where w <> 'é' or g > 400"
    pair.both(words)
    pair.both("analyze t")
    assert verify(pair, "--verify-chunk-rows=100")["equal"]
    pair.target.sql("update t set k = 'Zz7' where k = 'zz7'; update t set v = 'w' where k = 'ß9'; delete from t where k = '-400'")
    assert set(rows_of(verify(pair, "--verify-chunk-rows=100", code=1))) == {
        ("changed", "k='ß9' n=9", "v"), ("extra", "k='Zz7' n=7", None), ("missing", "k=-400 n=400", None),
        ("missing", "k='zz7' n=7", None)}


def test_trap_164_extra_rows_only_on_the_target(pair):
    pair.both("create table t (id int primary key); create table u (id int primary key)")
    pair.target.sql("insert into t select generate_series(1, 5000)")
    t = table_of(verify(pair, code=1), "t")
    assert (t["source_rows"], t["target_rows"], t["extra"], t["verdict"]) == (0, 5000, 5000, "different")
    assert len(t["rows"]) == 100 and not t["at_least"]


def test_trap_170_counts_are_the_tables(pair):
    """Many chunks, one row differs: rows and hash are of the whole table, and don't depend on chunks or workers."""
    pair.both("create table t (id int primary key, v text); insert into t select k, md5(k::text) from generate_series(1, 30000) k; analyze t")
    pair.target.sql("update t set v = 'x' where id = 15000")
    few = table_of(verify(pair, "--verify-chunk-rows=100", "--verify-workers=4", code=1), "t")
    one = table_of(verify(pair, "--verify-chunk-rows=100000000", "--verify-workers=1", code=1), "t")
    assert few == one
    assert (few["source_rows"], few["target_rows"], few["changed"]) == (30000, 30000, 1)
    assert few["rows"][0]["key"] == "id=15000"


def test_trap_162_a_read_error_is_an_error(fresh_server, make_pair):
    """A page that can't be read in the middle of a table: neither the end of the table nor a difference."""
    src, dst = fresh_server("good"), fresh_server("target-bad")
    pair = make_pair(src, dst)
    pair.both("create table t (id int primary key, v text); insert into t select k, md5(k::text) from generate_series(1, 20000) k;"
              "create table u (id int primary key); insert into u values (1)")
    path = dst.one("select current_setting('data_directory') || '/' || pg_relation_filepath('t')", dbname=pair.id)
    dst.stop()
    with open(path, "r+b") as f:
        f.seek(50 * 8192)
        f.write(b"\xde\xad\xbe\xef" * 2048)
    dst.start()
    done = pair.command("verify", "--json", "--verify-chunk-rows=500", code=5)
    r = done.json()["databases"][0] if done.out.count("\n") == 1 else __import__("json").loads(done.out.splitlines()[0])["databases"][0]
    assert table_of(r, "t")["verdict"] == "unreadable" and not r["equal"]
    assert "invalid page" in table_of(r, "t")["error"]["text"]
    assert table_of(r, "u")["verdict"] == "equal", "the others are compared all the same"
    assert "public.t" in done.error()


def test_a_table_that_may_not_be_read(pair):
    pair.both("create table t (id int primary key); create table u (id int primary key)")
    role = f"limited_{pair.id}"
    pair.source.sql(f"create role {role} login password '{PASSWORD}'; grant select on u to {role}")
    try:
        dsn = pair.source.dsn.replace("postgres:", f"{role}:", 2).replace(f"{role}://", "postgres://", 1)
        done = pair.command("verify", "--json", f"--source={dsn}", code=4)
        assert "permission denied for table t" in done.error()
    finally:
        pair.source.sql(f"drop owned by {role}; drop role {role}")


def test_schema_differences_are_named(pair):
    pair.both("create table t (id int primary key, a int, b text)")
    pair.source.sql("create table only_source (a int); alter table t add c int; create table w (id int primary key, v varchar(10))")
    pair.target.sql("create table only_target (a int); alter table t add d int; create table w (id int primary key, v varchar(20))")
    r = verify(pair, code=1)
    found = {(d["kind"], d["table"], d["column"]) for d in r["drift"]}
    assert found == {("missing table", "only_source", None), ("extra table", "only_target", None), ("missing column", "t", "c"),
                     ("extra column", "t", "d"), ("other column type", "w", "v")}
    assert table_of(r, "t")["verdict"] == "other columns"
    assert table_of(r, "only_source")["verdict"] == "missing" and table_of(r, "only_target")["verdict"] == "extra"
    assert table_of(r, "w")["verdict"] == "equal", "the rows can be compared and are"


def test_quoting_is_no_difference(pair):
    """format_type quotes as the session's setting says."""
    pair.both("create type mood as enum ('sad'); create table t (a int primary key, b mood[])")
    pair.target.sql(f"alter database {pair.id} set quote_all_identifiers = on")
    result = verify(pair)
    assert result["drift"] == [] and result["equal"]


def test_columns_in_another_order_are_the_same_columns(pair):
    pair.source.sql("create table t (id int primary key, a int, b text); insert into t values (1, 2, 'x')")
    pair.target.sql("create table t (b text, gone int, id int primary key, a int); alter table t drop gone; insert into t values ('x', 1, 2)")
    assert verify(pair)["equal"]
    pair.target.sql("update t set b = 'y'")
    assert rows_of(verify(pair, code=1)) == [("changed", "id=1", "b")]


def test_wide_tables(pair):
    names = [f"c{k}" for k in range(1590)]
    pair.both("create table t (id int primary key, " + ", ".join(f"{n} int" for n in names) + ");"
              "insert into t (id, c0, c1589) select k, k, k from generate_series(1, 200) k")
    assert verify(pair)["equal"]
    pair.target.sql("update t set c1589 = -1, c700 = 0 where id = 77")
    r = verify(pair, "--show-values", code=1)
    assert rows_of(r) == [("changed", "id=77", "c700, c1589")]
    assert table_of(r, "t")["rows"][0]["target"] == "c700=0 c1589=-1"


def test_left_out_tables_are_named(pair):
    pair.both("create table t (id int); create materialized view mv as select 1 as a; create extension postgres_fdw;"
              "create server nowhere foreign data wrapper postgres_fdw; create foreign table ft (a int) server nowhere")
    r = verify(pair)
    assert {(x["name"], x["why"]) for x in r["left_out"]} == {("mv", "materialized view"), ("ft", "foreign table")}


def test_only_some_tables(pair):
    pair.both("create table t (id int primary key); create table u (id int primary key); create schema s; create table s.t (id int)")
    pair.target.sql("insert into u values (1)")
    assert [t["table"] for t in verify(pair, "--tables=public.t, s.t")["tables"]] == ["t", "t"]
    done = pair.command("verify", "--tables=public.t,public.nope", code=2)
    assert "public.nope" in done.error() and done.hint()


def test_unreachable_sides(pair):
    for side, code in (("source", 4), ("target", 5)):
        done = pair.command("verify", f"--{side}=postgres://postgres@127.0.0.1:1/x", code=code)
        assert side in done.error()


def test_trap_167_nothing_is_locked_for_long_and_nothing_stays(pair):
    """DDL on a table isn't blocked for as long as the run takes; no session, slot or lock is left."""
    pair.both("create table big (id int primary key, v text); insert into big select k, repeat(md5(k::text), 20) from generate_series(1, 60000) k;"
              "create table quick (id int primary key); analyze big")
    run = pair.kb.start("verify", "--json", "--verify-workers=1", "--verify-chunk-rows=200", env=pair.env())
    waits = []
    with pair.source.connect() as con, con.cursor() as cur:
        cur.execute("set lock_timeout = '5s'")
        while run.alive():
            from_s = time.monotonic()
            cur.execute("lock table big in access exclusive mode; lock table quick in access exclusive mode")
            con.commit()
            waits.append(time.monotonic() - from_s)
            time.sleep(0.02)
    done = run.wait()
    assert done.code == 0, done
    assert len(waits) > 3 and max(waits) < 1, waits
    for side in (pair.source, pair.target):
        wait_until(lambda s=side: s.one("select count(*) from pg_stat_activity where application_name like 'keybridge%%'") == 0, 10)
    assert pair.source.one("select count(*) from pg_replication_slots where slot_name like 'keybridge_verify%%'") == 0


def test_truncate_meanwhile_is_looked_at_again(pair):
    """TRUNCATE isn't covered by snapshots: a table that was emptied after the snapshot reads as empty."""
    pair.both("create table a (id int primary key, v text); insert into a select k, repeat(md5(k::text), 20) from generate_series(1, 60000) k;"
              "create table z (id int primary key, v text); insert into z select k, md5(k::text) from generate_series(1, 60000) k; analyze a, z")
    run = pair.kb.start("verify", "--json", "--verify-workers=1", "--verify-chunk-rows=500", env=pair.env())
    wait_until(lambda: pair.source.one("select count(*) from pg_stat_activity where application_name = 'keybridge verify' and query like '%%\"a\"%%'"), 20)
    pair.both("truncate z")
    done = run.wait()
    assert done.code == 0, done
    z = table_of(done.json()["databases"][0], "z")
    assert (z["source_rows"], z["target_rows"], z["verdict"]) == (0, 0, "equal")
    assert "looking at them again" in done.err


def test_as_is_stays_as_is(pair):
    """A stream that begins before the second look doesn't make what the first has found one position's."""
    pair.both("create table a (id int primary key, v text); insert into a select k, repeat(md5(k::text), 20) from generate_series(1, 60000) k;"
              "create table z (id int primary key, v text); insert into z select k, md5(k::text) from generate_series(1, 60000) k; analyze a, z")
    pair.prepare()
    pair.source.sql("insert into a values (0, 'not yet on the target')")
    run = pair.kb.start("verify", "--json", f"--slot={pair.slot}", "--verify-workers=1", "--verify-chunk-rows=500", env=pair.env())
    wait_until(lambda: pair.source.one("select count(*) from pg_stat_activity where application_name = 'keybridge verify' and query like '%%\"a\"%%'"), 20)
    os.kill(run.pid, signal.SIGSTOP)
    pair.source.sql("truncate z")
    pair.start()
    pair.caught_up()
    os.kill(run.pid, signal.SIGCONT)
    done = run.wait()
    assert "looking at them again" in done.err
    result = done.json()["databases"][0]
    assert (result["how"], table_of(result, "a")["missing"]) == ("as is", 1)


def test_stopping_is_prompt(pair):
    pair.both("create table t (id int primary key, v text); insert into t select k, repeat(md5(k::text), 30) from generate_series(1, 100000) k")
    run = pair.kb.start("verify", "--verify-workers=1", env=pair.env())
    wait_until(lambda: pair.source.one("select count(*) from pg_stat_activity where application_name = 'keybridge verify'"), 20)
    from_s = time.monotonic()
    done = run.stop()
    assert time.monotonic() - from_s < 3
    assert done.code != 0 or "equal" in done.out


def test_all_databases_of_an_instance(fresh_server, kb):
    src, dst = fresh_server("many"), fresh_server("target-many")
    for server in (src, dst):
        server.sql("create database one")
        server.sql("create database two")
        for db in ("one", "two"):
            server.sql("create table t (id int primary key); insert into t values (1)", dbname=db)
    where = [f"--source=host={src.host} port={src.port} user=postgres", f"--target=host={dst.host} port={dst.port} user=postgres"]
    done = kb.run("verify", "--json", *where, env={"PGPASSWORD": PASSWORD}, code=0)
    assert [d["database"] for d in done.json()["databases"]] == ["one", "postgres", "two"]
    dst.sql("delete from t", dbname="two")
    done = kb.run("verify", "--json", *where, env={"PGPASSWORD": PASSWORD}, code=1)
    assert [d["equal"] for d in done.json()["databases"]] == [True, True, False]


def test_row_security_hides_nothing(pair):
    """A role whose policies would show it some of the rows gets an error, not an equal."""
    pair.both("create table t (id int primary key); insert into t values (1), (2); alter table t enable row level security;"
              "create policy half on t using (id = 1)")
    role = f"limited_{pair.id}"
    pair.source.sql(f"create role {role} login password '{PASSWORD}'; grant select on t to {role}")
    try:
        dsn = pair.source.dsn.replace("//postgres:", f"//{role}:")
        done = pair.command("verify", f"--source={dsn}", code=4)
        assert "row-level security" in done.error() or "row security" in done.error()
    finally:
        pair.source.sql(f"drop owned by {role}; drop role {role}")


def test_casts_of_a_types_owner_are_not_run(pair):
    """A cast to text is the type owner's code; verify runs with more rights than he has."""
    pair.both("create type c as (a int); create table trap (x text);"
              "create function evil(c) returns text language plpgsql as $$ begin raise exception 'ran'; end $$;"
              "create cast (c as text) with function evil(c) as implicit;"
              "create table t (id int primary key, v c); insert into t values (1, row(1))")
    pair.target.sql("insert into t values (2, row(2))")
    r = verify(pair, "--show-values", code=1)
    assert rows_of(r) == [("extra", "id=2", None)], r




def test_trap_161_equal_changes_do_not_cancel(pair):
    """The same change in an even number of rows, of which an exclusive-or of checksums sees nothing."""
    pair.both("create table t (a int primary key, b int, c text); insert into t select k, k, 'x' || k from generate_series(1, 1000) k;"
              "create table k (b int); insert into k select 1 from generate_series(1, 6)")
    assert verify(pair)["equal"]
    pair.target.sql("update t set b = b + 7 where a in (3, 5, 700, 701)")
    assert [r[1] for r in rows_of(verify(pair, code=1))] == ["(a)=(3)", "(a)=(5)", "(a)=(700)", "(a)=(701)"] or \
        len(rows_of(verify(pair, code=1))) == 4
    pair.target.sql("update t set b = a; update t set b = b + 1 where a % 2 = 0; update k set b = 2 where ctid in"
                    " (select ctid from k limit 2)")
    result = verify(pair, code=1)
    assert table_of(result, "t")["changed"] == 500 and table_of(result, "k")["verdict"] == "different"
