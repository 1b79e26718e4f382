"""DDL while the stream runs: told by the source, applied in its place, or a clear stop."""
import pytest

from kb import wait_until

pytestmark = pytest.mark.matrix


@pytest.fixture
def told(pair):
    """A pair whose source tells its DDL: a first run has made it."""
    pair.prepare()
    done = pair.replicate()
    assert done.code == 0, done
    return pair


def go(pair, *statements, more=(), code=0, same=True, autocommit=True):
    con = pair.source.connect()
    con.autocommit = autocommit
    cur = con.cursor()
    for statement in statements:
        cur.execute(statement)
    if not autocommit:
        con.commit()
    con.close()
    done = pair.replicate(*more)
    assert done.code == code, done
    if code == 0 and same:
        pair.same()
        same_schema(pair)
    return done


SCHEMA = """
select format('%s.%s %s %s %s %s %s %s %s', n.nspname, c.relname, c.relkind, c.relpersistence, c.relreplident, a.attnum, a.attname,
  format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid)), pg_get_userbyid(c.relowner) o, a.attnotnull::text x
 from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
 left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum where not a.attisdropped
 and n.nspname not in ('pg_catalog', 'information_schema', 'keybridge', 'pg_toast') and n.nspname not like 'pg\\_%%'
union all select 'index ' || pg_get_indexdef(indexrelid), indisvalid::text, '' from pg_index i join pg_class c on c.oid = i.indexrelid
 join pg_namespace n on n.oid = c.relnamespace where n.nspname not in ('pg_catalog', 'pg_toast', 'keybridge')
union all select 'constraint ' || conname || ' ' || pg_get_constraintdef(c.oid), '', '' from pg_constraint c join pg_namespace n on
 n.oid = c.connamespace where n.nspname not in ('pg_catalog', 'keybridge', 'information_schema')
union all select 'function ' || p.oid::regprocedure || md5(prosrc), pg_get_userbyid(proowner), '' from pg_proc p join pg_namespace n on
 n.oid = p.pronamespace where n.nspname not in ('pg_catalog', 'keybridge', 'information_schema')
union all select 'enum ' || enumtypid::regtype || ' ' || enumlabel, '', '' from pg_enum
union all select 'acl ' || c.oid::regclass || coalesce(relacl::text, ''), '', '' from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where n.nspname = 'public'
union all select 'comment ' || description, '', '' from pg_description where objoid > 16383 and description not like 'keybridge%%'
order by 1, 2, 3"""


def same_schema(pair):
    a, b = (set(side.sql(SCHEMA.replace("%%", "%"))) for side in (pair.source, pair.target))
    assert a == b, f"only on source: {sorted(a - b)[:5]}, only on target: {sorted(b - a)[:5]}"


def test_column_added_in_its_place(told):
    go(told, "create table t (a int primary key)", "insert into t values (1)", "alter table t add b text default 'x'",
       "insert into t values (2, 'y')", "alter table t rename b to c", "insert into t values (3, 'z')",
       "alter table t drop c", "insert into t values (4)", "update t set a = a + 10")


def test_trap_031_ddl_beside_open_transactions(told):
    """Another session alters the table's publication, or the table itself, between the rows of an open transaction."""
    if told.source.one("select count(*) from pg_publication where not puballtables"):
        raise AssertionError
    go(told, "create table t (a int primary key)", "create table u (a int primary key)")
    told.source.sql(f"drop publication {told.publication}; create publication {told.publication} for table u")
    held = told.source.connect(autocommit=False)
    cur = held.cursor()
    cur.execute("insert into t values (1)")
    told.source.sql(f"alter publication {told.publication} add table t")
    cur.execute("insert into t values (2); insert into u values (1)")
    held.commit()
    held.close()
    assert told.replicate().code == 0
    assert told.target.sql("select a from t order by 1") == [(2,)]      # as the publication was at each row
    told.same(["public.u"])


def test_trap_032_columns_change_between_rows(told):
    """In one transaction and across: values don't shift."""
    go(told, "create table t (id int primary key, a text, b text)", "insert into t values (1, 'a1', 'b1')",
       "alter table t add c text", "insert into t values (2, 'a2', 'b2', 'c2')", "alter table t drop a",
       "insert into t values (3, 'b3', 'c3')", "alter table t rename b to a", "insert into t values (4, 'a4', 'c4')",
       "update t set a = a || '!'")
    assert told.target.sql("select * from t order by 1") == [(1, "b1!", None), (2, "b2!", "c2"), (3, "b3!", "c3"),
                                                             (4, "a4!", "c4")]
    go(told, "insert into t values (5, 'a5', 'c5')", "alter table t add d text", "insert into t values (6, 'a6', 'c6', 'd6')",
       "alter table t drop c", "insert into t values (7, 'a7', 'd7')", "alter table t rename d to c",
       "update t set c = 'x' where id = 7", "alter table t add b text default 'b'", "insert into t values (8, 'a8', 'c8', 'b8')",
       "alter table t alter b type varchar(5)", "insert into t values (9, 'a9', 'c9', 'b9')", autocommit=False)


def test_trap_034_enum_value(told):
    go(told, "create type mood as enum ('sad', 'ok')", "create table t (id int primary key, m mood, ms mood[])",
       "insert into t values (1, 'ok', '{ok,sad}')", "alter type mood add value 'happy'",
       "insert into t values (2, 'happy', '{happy}')", "alter type mood rename value 'sad' to 'blue'",
       "insert into t values (3, 'blue', null)")


def test_trap_034_type_and_rows_in_one_transaction(told):
    """Binary arrays name the oid of their elements, which isn't the target's: the stream changes over to text."""
    go(told, "create type mood as enum ('sad', 'ok')", "create type pair as (m mood, n int)",
       "create table t (id int primary key, ms mood[], p pair)", "insert into t values (1, '{ok,sad}', '(ok,5)')",
       autocommit=False)


def test_trap_035_replica_identity(told):
    go(told, "create table t (a int not null, b int not null, c text)", "create unique index i on t (b)",
       "alter table t replica identity using index i", "insert into t values (1, 1, 'x'), (2, 2, 'y')",
       "update t set c = 'z' where a = 1", "alter table t replica identity full", "update t set b = 7 where a = 2",
       "drop index i", "insert into t values (5, 7, 'its b is no key any more')", "update t set c = 'full' where a = 2", "alter table t add primary key (a)",
       "alter table t replica identity default", "update t set c = 'pk'", "delete from t where a = 1")


def test_trap_036_new_partition(told):
    go(told, "create table m (d int, v text, primary key (d)) partition by range (d)",
       "create table m1 partition of m for values from (0) to (10)", "insert into m values (1, 'a')",
       "create table m2 partition of m for values from (10) to (20)", "insert into m values (11, 'b')",
       "update m set d = 12 where d = 1", "create table m3 (d int not null primary key, v text)",
       "insert into m3 values (25, 'c')", "alter table m attach partition m3 for values from (20) to (30)",
       "insert into m values (26, 'd')", "alter table m detach partition m1", "insert into m1 values (5, 'e')",
       "drop table m2", "delete from m where d = 25")


def test_trap_037_new_table_with_rows(told):
    go(told, "create table n (id serial primary key, v text)", "insert into n (v) select 'x' || g from generate_series(1, 100) g",
       "create table o (like n including all)", "insert into o select * from n", "truncate n",
       "insert into n values (7, 'seven')", autocommit=False)
    go(told, "create schema s create table st (a int primary key) create view sv as select * from st",
       "insert into s.st values (1)", "alter schema s rename to z", "insert into z.st values (2)",
       "alter table z.st set schema public", "insert into st values (3)", "drop schema z cascade")


def test_trap_038_ddl_inside_functions(told):
    go(told, """do $x$ begin create table d1 (a int primary key); execute 'create table d2 (a int primary key); create table d3 (b text)';
        for i in 1..3 loop execute format('create table loop_%s (a int primary key, b text default %L)', i, 'it''s "q"' || chr(10) || 'SQL statement "'); end loop;
        insert into d1 values (1); end $x$""",
       "create function f() returns void language plpgsql as 'begin alter table d1 add b text; insert into d1 values (2, ''x''); end'",
       "create procedure p() language plpgsql as 'begin perform f(); commit; alter table d1 add c text; insert into d1 values (3, ''y'', ''z''); end'",
       "call p()", "create table a1 (x int primary key); create table a2 (x int primary key); insert into a1 values (1); drop table a2; create table a2 (y int)")


def test_trap_038_ddl_inside_an_sql_function_stops(told):
    go(told, "create function f() returns void language sql as 'create table sf (a int primary key)'")
    done = go(told, "create table before (a int primary key)", "select f()", "insert into sf values (1)", code=7)
    assert "CREATE TABLE public.sf" in done.error() and "committed at" in done.error(), done
    assert "--ddl-applied" in done.hint(), done
    assert told.target.one("select to_regclass('before') is not null")
    again = told.replicate()
    assert again.code == 7 and again.error() == done.error()
    told.target.sql("create table sf (a int primary key)")
    at = done.hint().split("--ddl-applied ")[1].split(";")[0].split()[0]
    done = told.replicate(f"--ddl-applied={at}")
    assert done.code == 0, done
    told.same()
    same_schema(told)


def test_several_statements_in_one_string(told):
    go(told, """-- a script; with 'quotes' and $dollars$
        begin; create table one (a int primary key); /* ; create table no (a int); /* nested ; */ */
        create table "two;" (b text default ';' primary key); create table one_more (c text default $$;create table x();$$);
        create function f() returns int language sql begin atomic select 1; select 2; end;
        insert into one values (1); alter table one add z int default 5; alter table one add y int default 6; commit""")
    done = go(told, "begin; create table r1 (a int primary key); savepoint s; create table r2 (a int); rollback to s; "
              "create table r3 (a int); commit", code=7)
    assert "can't be told" in done.error(), done


def test_rows_of_create_table_as(told):
    go(told, "create table c as select g, random() r, clock_timestamp() t from generate_series(1, 50) g",
       "select random() x, 'a' y into c2 from generate_series(1, 3) -- the end",
       "create unlogged table c3 as select 1 a with no data",
       "create table if not exists c as select 1",
       "create materialized view mv as select count(*) from c", "refresh materialized view mv",
       "create temp table tt as select 1 a", "select 2 b into temp tt2", "alter table tt add b int", "drop table tt",
       "create temp view tv as select 1 a")
    assert told.target.one("select * from mv") == 50


def test_defaults_that_the_target_would_compute_otherwise(told):
    go(told, "create table t (id int primary key)", "insert into t select generate_series(1, 20)",
       "alter table t add at timestamptz default now(), add n int default 7", "insert into t (id) values (21)",
       "alter table t add g int generated always as (id * 2) stored", "update t set n = 8 where id = 3",
       "create table empty (id int)", "alter table empty add r float default random(), add s serial")
    done = go(told, "alter table t add r float default random()", code=7)
    assert "public.t" in done.error() and "computed for each" in done.error(), done
    assert told.target.one("select count(*) from pg_attribute where attrelid = 't'::regclass and attname = 'r'") == 0


@pytest.mark.parametrize("ddl, why", [
    ("alter table t alter v type text using v || random()", "random()"),
    ("alter table t add i int generated by default as identity", "computed for each"),
    ("alter table u set logged", "unlogged"),
    ("alter table t enable always trigger tr", "would fire"),
])
def test_what_cannot_be_repeated_stops(told, ddl, why):
    go(told, "create table t (id int primary key, v text)", "insert into t values (1, 'x')",
       "create unlogged table u (a int primary key)",
       "create trigger tr before update on t for each row execute function suppress_redundant_updates_trigger()")
    done = go(told, ddl, code=7)
    assert why in done.error(), done


def test_type_changed_by_a_stable_expression(told):
    go(told, "set timezone = 'America/New_York'", "create table t (id int primary key, v timestamp)",
       "insert into t values (1, '2020-01-01 12:00'), (2, '2020-07-01 12:00')",
       "alter table t alter v type timestamptz", "alter table t alter id type bigint using (id * 3)",
       "alter table t alter id type text using lpad(id::text, 5, '0')", "insert into t values ('x', '2021-01-01')")


def test_as_who_and_where_it_was_run(told):
    role = f"app_{told.id}"
    for side in (told.source, told.target):
        side.sql(f"create role {role} login")
    try:
        go(told, "create schema app", f"grant all on schema app, public to {role}", f"set role {role}",
           "set search_path = app, public", "create table t (id int primary key)", "insert into t values (1)", "create view v as select * from t",
           "create function f() returns int language sql as 'select id from t'", f"comment on table t is 'its'", f"grant select on t to public",
           "reset role", "create table mine (a int primary key)", f"alter table mine owner to {role}")
        assert told.target.one("select pg_get_userbyid(relowner) from pg_class where oid = 'app.t'::regclass") == role
    finally:
        for side in (told.source, told.target):
            side.sql(f"drop owned by {role}")
            side.sql(f"drop role {role}")


def test_a_role_without_rights_on_our_schema(told):
    """And with operators of its own in front of pg_catalog: nothing of it is called, nothing fails."""
    role = f"evil_{told.id}"
    for side in (told.source, told.target):
        side.sql(f"create role {role}")
    try:
        go(told, f"create schema evil; grant all on schema evil to {role}", f"set role {role}",
           "create function evil.bang(text, text) returns bool language plpgsql as $$begin raise exception 'called'; end$$",
           "create operator evil.= (leftarg = text, rightarg = text, function = evil.bang)",
           "create operator evil.|| (leftarg = text, rightarg = text, function = evil.bang)",
           "set search_path = evil, pg_catalog", "create table evil.t (a int primary key)", "insert into evil.t values (1)",
           "alter table evil.t add b text")
    finally:
        for side in (told.source, told.target):
            side.sql(f"drop owned by {role} cascade")
            side.sql(f"drop role {role}")


def test_trap_040_look_alikes(told):
    go(told, "create schema s1; create schema s2", "create type s1.e as enum ('a', 'b')", "create type s2.e as enum ('b', 'c')",
       "set search_path = s2, s1, public", "create table t (id int primary key, x e, y s1.e)", "insert into t values (1, 'c', 'a')",
       "set search_path = s1, s2", "create table u (id int primary key, x e)", "insert into u values (1, 'a')",
       "alter type e add value 'z'", "insert into u values (2, 'z')")
    assert told.target.one("select format_type(atttypid, null) from pg_attribute where attrelid = 's2.t'::regclass and attname = 'x'") == "s2.e"


def test_indexes_and_the_rest(told):
    go(told, "create table t (id int primary key, v text, w text)", "insert into t select g, g, g from generate_series(1, 100) g",
       "create index concurrently iv on t (v)", "create unique index concurrently if not exists iw on t (w)", "reindex index concurrently iv",
       "drop index concurrently iv", "reindex table t", "cluster t using t_pkey", "vacuum full t", "analyze t",
       "create extension citext", "create table c (id citext primary key)", "insert into c values ('A')",
       "create domain d as int check (value > 0)", "create table dt (id d primary key)", "insert into dt values (5)",
       "create sequence sq start 5", "alter sequence sq increment 3", "create rule r as on insert to dt do also notify x",
       "create policy po on t for select using (true)", "comment on column t.v is 'of t'", "alter default privileges grant select on tables to public",
       "create publication other for table t", "drop publication other",
       "create trigger tr before update on t for each row execute function suppress_redundant_updates_trigger()",
       "alter table t add constraint ck check (id > 0) not valid", "alter table t validate constraint ck",
       "create table fk (id int primary key references t deferrable initially deferred)", "insert into fk values (1)",
       "create statistics st on id, v from t", "drop extension citext cascade")


def test_passwords_are_never_shown(told):
    go(told, "create extension postgres_fdw", "create server sv foreign data wrapper postgres_fdw options (host 'localhost')",
       "create user mapping for public server sv options (user 'u', password 'hush-hush-7')")
    done = go(told, "do $$begin alter user mapping for public server sv options (set password 'hush-hush-8'); end$$", same=False)
    told.target.sql("drop user mapping for public server sv")
    done = go(told, "alter user mapping for public server sv options (set password 'hush-hush-9')", code=7)
    assert "USER MAPPING" in done.error() and "***" in done.hint(), done
    assert "hush-hush" not in told.kb.outputs()


def test_stop_says_what_came(told):
    done = go(told, "create table t (a int primary key)", "insert into t values (1)", more=["--ddl=stop"], code=7)
    assert "CREATE TABLE public.t" in done.error() and "create table t (a int primary key)" in done.hint(), done
    assert told.replicate().code == 0
    told.same()


def test_rolled_back_ddl_does_not_come(told):
    go(told, "create table t (a int primary key)", "begin", "create table no (a int)", "rollback", "begin", "savepoint s",
       "alter table t add b int", "rollback to s", "alter table t add c int", "insert into t values (1, 2)", "commit")


def test_big_transaction_with_ddl(told):
    """Streamed and spooled: the commands have their place in it."""
    told.source.sql(f"alter database {told.id} set logical_decoding_work_mem = '64kB'")
    go(told, "create table t (a int primary key, b text)", "insert into t select g, repeat('x', 100) from generate_series(1, 20000) g",
       "alter table t add c int default 1", "insert into t select g, 'y', 2 from generate_series(20001, 40000) g",
       "create table u as select * from t where a % 2 = 0", "alter table t drop b", "update t set c = 3 where a % 3 = 0", autocommit=False)


def test_source_is_left_clean(told):
    assert told.source.one("select count(*) from pg_event_trigger") == 3
    assert told.target.one("select count(*) from pg_event_trigger") == 0
    done = told.command("cleanup", f"--slot={told.slot}", f"--publication={told.publication}", f"--database={told.id}")
    assert told.source.one("select count(*) from pg_event_trigger") == 0, done
    assert told.source.one("select count(*) from pg_namespace where nspname = 'keybridge'") == 0


def test_no_capture_without_privileges(pair):
    user = f"repl_{pair.id}"
    pair.source.sql(f"create role {user} login replication password 'x'")
    try:
        pair.both("create table t (a int primary key)")
        pair.prepare()
        pair.source.sql("insert into t values (1)")
        dsn = pair.source.dsn.replace("postgres://postgres:", f"postgres://{user}:").replace("s3cret%2Fword%401", "x")
        done = pair.replicate(env={"KEYBRIDGE_SOURCE": dsn})
        assert done.code == 0, done
        assert "DDL of the source isn't seen" in done.err and "permission" in done.err, done
        assert pair.source.one("select count(*) from pg_event_trigger") == 0
    finally:
        pair.source.sql(f"drop role {user}")


def test_trap_033_column_only_on_the_source(pair):
    """Without capture: one clear stop; resumes after the fix."""
    pair.both("create table t (a int primary key)")
    pair.prepare()
    pair.source.sql("insert into t values (1)")
    pair.source.sql("alter table t add b text")
    pair.source.sql("insert into t values (2, 'x')")
    done = pair.replicate("--ddl=stop")
    assert done.code == 7 and "table public.t on the target has no column b, which the source sends" in done.error(), done
    assert "committed at" in done.error() and "add the column" in done.hint(), done
    assert pair.target.sql("select a from t") == [(1,)]
    pair.target.sql("alter table t add b text")
    assert pair.replicate("--ddl=stop").code == 0
    pair.same()


@pytest.mark.hooks
@pytest.mark.parametrize("point", ["before-lane-commit", "before-ack"])
def test_killed_around_ddl(told, point):
    con = told.source.connect()
    con.autocommit = True
    cur = con.cursor()
    for s in ("create table t (a int primary key)", "insert into t values (1)", "alter table t add b int", "insert into t values (2, 2)",
              "create index concurrently i on t (b)", "insert into t values (3, 3)"):
        cur.execute(s)
    con.close()
    for _ in range(6):
        done = told.replicate(env={"KB_CRASH_AT": point})
        if done.code == 0:
            break
    assert told.replicate().code == 0
    told.same()
    same_schema(told)
