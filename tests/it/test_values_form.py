"""In which form values travel: binary where that is faithful, text where it isn't, decided and changed by the stream itself."""
import re

import pytest

from test_values import alike, burn_oids, chosen, same_version, type_oids, why

pytestmark = pytest.mark.matrix

def carried(pair, statements, form, because=None, **more):
    """Runs the statements on the source, streams them, and looks at form and result."""
    pair.source.sql(statements)
    done = pair.replicate("--ddl=stop", **more)
    assert done.code == 0, done
    assert chosen(done) == form, done
    if because:
        assert re.search(because, why(done)), why(done)
    pair.same()
    return done


def test_binary_where_all_types_are_alike(source_server, target_server, make_pair):
    """Own enums, composites, arrays, ranges and domains in binary between copies; text once the oids differ."""
    own = "create type m as enum ('a', 'b'); create type c as (x int, y m[]); create type r as range (subtype = float8);" \
          "create domain d as c; create table t (id int primary key, m m, ms m[], c c, cs c[], r r, d d);"
    write = "insert into t values (1, 'a', '{a,b}', row(1, '{b}'), array[row(2, null)::c], '[1,2]', row(3, '{}'));"
    pair = alike(make_pair, source_server, target_server, own)
    pair.prepare()
    carried(pair, write, "binary")
    # the target anew, as from a dump: same names, other oids
    pair.target.sql("drop table t; drop domain d; drop type r, c, m")
    burn_oids(pair.target, 100)
    pair.target.sql(own + write)
    assert type_oids(pair.source) != type_oids(pair.target)
    carried(pair, "update t set id = 3", "text", "another oid on the target")


@pytest.mark.parametrize("column, other, value, because", [
    ("regclass", "regclass", "'pg_class'", "oid of the source"),
    ("regtype[]", "regtype[]", "'{integer,text}'", "oid of the source"),
    ("holder", "holder", "'(pg_class)'", "oid"),
    ("aclitem[]", "aclitem[]", "'{=r/postgres}'", "no binary form"),
    ("int2vector", "int2vector", "''", "empty"),
    ("int4", "int8", "7", "integer on the source and bigint on the target"),
    ("varchar(10)", "text", "'a  '", "character varying on the source and text on the target"),
    ("int8", "numeric", "9223372036854775807", "bigint on the source and numeric on the target"),
])
def test_text_where_one_column_needs_it(pair, column, other, value, because):
    """One column decides for the whole stream, and the log says which and why."""
    for side, kind in ((pair.source, column), (pair.target, other)):
        side.sql(f"create type holder as (x regclass); create table t (id int primary key, v {kind})")
    pair.prepare()
    pair.source.sql(f"insert into t select g, {value}::{column} from generate_series(1, 200) g; update t set v = v, id = -id")
    done = pair.replicate()
    assert done.code == 0 and chosen(done) == "text", done
    assert re.search(because, why(done)), why(done)
    assert pair.source.sql("select id, v::text from t order by 1") == pair.target.sql("select id, v::text from t order by 1")


def test_names_of_objects_mean_the_same_object(pair):
    """regclass and its like: on the target the name counts, whatever number it has there."""
    burn_oids(pair.target, 1000)
    pair.both("create table other (id int primary key); create schema s; create table s.other (id int primary key);"
              "create function f(int) returns int language sql as 'select 1';"
              "create table t (id int primary key, v regclass, p regprocedure, ty regtype, n regnamespace)")
    pair.prepare()
    pair.source.sql("insert into t values (1, 'other', 'f(int)', 's.other', 's'), (2, 's.other', 'now()', 'int[]', 'public')")
    assert pair.source.one("select 'other'::regclass::oid") != pair.target.one("select 'other'::regclass::oid")
    assert pair.replicate("--ddl=stop").code == 0
    look = "select id, v::text, p::text, ty::text, n::text from t order by 1"
    assert pair.source.sql(look) == pair.target.sql(look)
    # one that the target doesn't have is refused, not bent
    pair.source.sql("insert into t (id, v) values (3, 't'::regclass); create table only_here (a int)")
    assert pair.replicate("--ddl=stop").code == 0
    pair.source.sql("insert into t (id, v) values (4, 'only_here')")
    done = pair.replicate("--ddl=stop", code=7)
    assert "only_here" in done.error() and "public.t" in done.error(), done


def test_trap_071_types_made_while_the_stream_runs(source_server, target_server, make_pair):
    """A binary stream meets an array of a type with another oid on the target: it goes on as text by itself."""
    pair = alike(make_pair, source_server, target_server, "create table t (id int primary key)")
    pair.prepare()
    burn_oids(pair.target, 500)
    run = pair.start("--ddl=stop")
    pair.source.sql("insert into t values (1)")
    pair.caught_up()
    made = "create type m as enum ('a', 'b'); create table u (id int primary key, m m, ms m[])"
    pair.both(made)
    pair.source.sql("insert into u select g, 'a', '{b,NULL}' from generate_series(1, 300) g; update u set ms[3] = 'a' where id < 9")
    pair.caught_up()
    done = run.stop()
    assert chosen(done) == "text" and "binary form given up" in done.err, done
    assert "format=binary" in done.err, "it began in binary"
    pair.same()


def test_type_altered_while_the_stream_runs(source_server, target_server, make_pair):
    """What reaches the target in a form that its type doesn't take is seen, in binary and in text, and never bent."""
    own = "create type c as (x int, y text); create type m as enum ('a'); create table t (id int primary key, c c, cs c[], m m)"
    pair = alike(make_pair, source_server, target_server, own)
    pair.prepare()
    carried(pair, "insert into t values (1, '(1,a)', '{\"(2,b)\"}', 'a')", "binary")
    run = pair.start("--ddl=stop")
    pair.source.sql("insert into t values (2, '(1,a)', '{}', 'a')")
    pair.caught_up()
    pair.source.sql("alter type c add attribute z int; insert into t values (3, '(1,a,2)', '{}', 'a')")
    done = run.wait(30)
    assert done.code == 7 and "type public.c is (x integer, y text, z integer) on the source and (x integer, y text)" in done.error(), done
    assert pair.target.one("select count(*) from t") == 2
    pair.target.sql("alter type c add attribute z int")
    carried(pair, "insert into t values (4, '(1,a,2)', '{\"(,,3)\"}', 'a')", "binary")
    pair.source.sql("alter type m add value 'b'")
    pair.source.sql("insert into t values (5, null, null, 'b')")
    done = pair.replicate("--ddl=stop", code=7)
    assert "enum public.m" in done.error() and "public.t" in done.error(), done
    pair.target.sql("alter type m add value 'b'")
    carried(pair, "insert into t values (6, null, null, 'b')", "binary")


def test_source_finds_no_binary_form_while_the_stream_runs(pair):
    """aclitem[] has a send function that fails: the source says so when the first value comes."""
    pair.both("create table t (id int primary key)")
    pair.prepare()
    run = pair.start("--ddl=stop")
    pair.source.sql("insert into t values (1)")
    pair.caught_up()
    pair.both("create table u (id int primary key, a aclitem[])")
    pair.source.sql("insert into u values (1, '{=r/postgres}'), (2, null); insert into t values (2)")
    pair.caught_up()
    done = run.stop()
    assert chosen(done) == "text" and "no binary output function" in done.err, done
    pair.same()


@pytest.mark.parametrize("mine, theirs", [
    ("numeric", "numeric(10,2)"), ("numeric(10,4)", "numeric(10,2)"), ("timestamp", "timestamp(3)"), ("timestamptz(6)", "timestamptz(0)"),
    ("float8", "float4"), ("float4", "float8"), ("timestamptz", "date"), ("timestamptz", "timestamp"), ("text", "varchar(3)"),
    ("varchar(9)", "varchar(3)"), ("json", "jsonb"), ("text", "int"), ("numeric", "float8"), ("interval", "interval day"),
    ("numeric(9,1)[]", "numeric(9,0)[]"), ("exact", "exact"), ("holder", "holder"),
])
def test_column_that_would_bend_values_is_refused(pair, mine, theirs):
    """Rounded, cut or normalised by the target's type: refused before the first value, never noticed afterwards."""
    pair.source.sql("create domain exact as numeric(20, 6); create type holder as (x numeric(9, 6))")
    pair.target.sql("create domain exact as numeric(20, 2); create type holder as (x numeric(9, 2))")
    pair.source.sql(f"create table t (id int primary key, v {mine})")
    pair.target.sql(f"create table t (id int primary key, v {theirs})")
    pair.prepare()
    pair.source.sql("insert into t values (1, null)")
    done = pair.replicate(code=7)
    assert "on the source and" in done.error() and "on the target" in done.error() and done.hint(), done
    assert pair.target.one("select count(*) from t") == 0


@pytest.mark.parametrize("mine, theirs, value", [
    ("int2", "int8", "-32768"), ("int8", "int4", "2147483647"), ("int8", "numeric(20,0)", "-5"), ("varchar(5)", "varchar(9)", "'a  '"),
    ("numeric(5,2)", "numeric(9,2)", "1.50"), ("float8", "text", "0.1::float8 + 0.2::float8"), ("timestamp(3)", "timestamp", "now()"),
    ("jsonb", "json", "'{\"a\":1}'"), ("cidr", "inet", "'10.0.0.0/8'"), ("numeric", "dom", "1.50"), ("dom", "numeric", "1.50"),
    ("text", "lab", "'x'"), ("lab", "text", "'x'"), ("dom", "dom", "1.50"),
])
def test_column_that_keeps_all_values(pair, mine, theirs, value):
    """Another type on the target that holds every value, or refuses it, is no reason to stop."""
    pair.both(f"create domain dom as numeric; create type lab as enum ('x')")
    pair.source.sql(f"create table t (id int primary key, v {mine})")
    pair.target.sql(f"create table t (id int primary key, v {theirs})")
    pair.prepare()
    pair.source.sql(f"insert into t select g, {value} from generate_series(1, 150) g; update t set id = -id where id < 30")
    assert pair.replicate(code=0)
    assert pair.source.sql("select id, v::text from t order by 1") == pair.target.sql("select id, v::text from t order by 1")
    pair.source.sql("update t set v = v; delete from t where id > 100; update t set id = id + 1000 where id = 50")
    assert pair.replicate(code=0)
    assert pair.source.sql("select id, v::text from t order by 1") == pair.target.sql("select id, v::text from t order by 1")


def test_column_altered_while_the_stream_runs(pair):
    """The source's column gets a type whose values the target's would round: stopped at the first row, resumed after the fix."""
    pair.both("create table t (id int primary key, v int)")
    pair.prepare()
    run = pair.start("--ddl=stop")
    pair.source.sql("insert into t values (1, 1)")
    pair.caught_up()
    pair.source.sql("alter table t alter v type float8; insert into t values (2, 1.5)")
    done = run.wait(30)
    assert done.code == 7 and "column v of public.t is double precision on the source and integer on the target" in done.error(), done
    pair.target.sql("alter table t alter v type float8")
    pair.replicate("--ddl=stop", code=0)
    pair.same()
