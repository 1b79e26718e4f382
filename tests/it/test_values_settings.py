"""Settings of roles and databases on both sides, every one that bends values or ends sessions: they change nothing here."""
import pytest

from kb import PASSWORD, Database, wait_until
from test_values import alike, chosen

pytestmark = pytest.mark.matrix

# What an operator, an extension or a framework may have set with ALTER ROLE or ALTER DATABASE; {schema} has look-alikes.
HOSTILE = {
    "datestyle": "'SQL, DMY'", "intervalstyle": "'sql_standard'", "timezone": "'Asia/Kathmandu'", "bytea_output": "'escape'",
    "extra_float_digits": "0", "lc_monetary": "'C.UTF-8'", "lc_numeric": "'C.UTF-8'", "lc_time": "'C.UTF-8'",
    "search_path": "lookalike, pg_catalog, public", "standard_conforming_strings": "off", "escape_string_warning": "on",
    "backslash_quote": "off", "statement_timeout": "'400ms'", "lock_timeout": "'10ms'",
    "idle_in_transaction_session_timeout": "'200ms'", "idle_session_timeout": "'200ms'", "transaction_timeout": "'300ms'",
    "default_transaction_read_only": "on", "default_transaction_isolation": "'serializable'", "default_transaction_deferrable": "on",
    "row_security": "on", "array_nulls": "off", "xmloption": "'document'", "xmlbinary": "'hex'", "synchronous_commit": "off",
    "quote_all_identifiers": "on", "transform_null_equals": "on", "work_mem": "'64kB'", "maintenance_work_mem": "'1MB'",
    "temp_buffers": "'800kB'", "logical_decoding_work_mem": "'64kB'", "client_encoding": "'LATIN1'", "client_min_messages": "'error'",
    "enable_indexscan": "off", "enable_nestloop": "off", "enable_tidscan": "off", "enable_indexonlyscan": "off",
    "force_parallel_mode": "on", "debug_parallel_query": "on", "default_text_search_config": "'pg_catalog.german'",
    "check_function_bodies": "off", "exit_on_error": "on", "geqo": "off", "from_collapse_limit": "1", "gin_fuzzy_search_limit": "1",
    "plan_cache_mode": "force_custom_plan", "cursor_tuple_fraction": "0.0001", "vacuum_cost_delay": "10", "lo_compat_privileges": "on",
}

# = that is always false, text that is something else, functions and casts by the names that a stream's statements use.
LOOKALIKES = """
create schema lookalike;
create function lookalike.no(anyelement, anyelement) returns bool language sql immutable as 'select false';
create operator lookalike.= (leftarg = anyelement, rightarg = anyelement, function = lookalike.no);
create function lookalike.no(int, int) returns bool language sql immutable as 'select false';
create operator lookalike.= (leftarg = int, rightarg = int, function = lookalike.no);
create function lookalike.no(text, text) returns bool language sql immutable as 'select false';
create operator lookalike.= (leftarg = text, rightarg = text, function = lookalike.no);
create type lookalike.text as enum ('lookalike');
create type lookalike.int4 as enum ('lookalike');
create type lookalike.bool as enum ('lookalike');
create type lookalike.oid as enum ('lookalike');
create function lookalike.unnest(anyarray) returns setof anyelement language sql as 'select $1[1] where false';
create function lookalike.count(anyelement) returns int8 language sql as 'select 0::int8';
create function lookalike.format(pg_catalog.text, anyelement) returns pg_catalog.text language sql as $$select 'x'::pg_catalog.text$$;
create function lookalike.md5(pg_catalog.text) returns pg_catalog.text language sql as $$select 'x'::pg_catalog.text$$;
create function lookalike.pg_current_wal_lsn() returns pg_lsn language sql as $$select '0/0'::pg_lsn$$;
create function lookalike.current_setting(pg_catalog.text) returns pg_catalog.text language sql as $$select ''::pg_catalog.text$$;
create table lookalike.pg_class (a pg_catalog.int4);
create table lookalike.pg_attribute (a pg_catalog.int4);
create table lookalike.pg_type (a pg_catalog.int4);
create table lookalike.pg_publication_tables (a pg_catalog.int4);
"""

TABLES = """
create domain public.cash as numeric(12, 3);
create table public.t (id int primary key, f4 float4, f8 float8, n numeric, m money, d date, ts timestamp, tz timestamptz, iv interval,
 ti time, tt timetz, b bytea, s text, x xml, a text[], fa float8[], h bit(9), j jsonb, r tstzrange, c public.cash, p point);
create table public.f (f4 float4, f8 float8, tz timestamptz, iv interval, b bytea, s text, a text[], m money);
alter table public.f replica identity full;
create table public.k (b bytea, f float8, tz timestamptz, iv interval, m money, n int, primary key (b, f, tz, iv, m));
"""

ROW = """g, 0.1::float4 * g, 0.1::float8 + 0.2::float8 * g, 1.00 / g, (1234.56 + g)::pg_catalog.text::money, date '0044-03-15 BC' + g,
 timestamp '2024-03-04 05:06:07.000001' + g * interval '1 second', timestamptz '12345-04-03 02:01:00.000001+00' - g * interval '1 hour',
 interval '1 year 2 mons -3 days 04:05:06.000007' * g, time '24:00:00', timetz '01:02:03+05:45', '\\x5c27000aff'::bytea || int4send(g),
 E'back\\\\slash ''quote'' "é" \\t\\n' || g, xml '<a/>text<b/>', array['NULL', null, g::pg_catalog.text], array[0.1 + 0.2, 'NaN'],
 B'101010101', jsonb '{"a": 1.00}', tstzrange('-infinity', '0044-03-15 00:00:00+00 BC', '[]'), 1.5, point(0.1 + 0.2, 1e-300)"""


def hostile(database, owner):
    """Sets everything that this server knows on the role and on the database."""
    known = {r[0] for r in database.sql("select name from pg_catalog.pg_settings where context in ('user', 'superuser')")}
    target = f"role {owner}" if owner else f"database {database.name}"
    database.sql("".join(f"alter {target} set {name} = {value};" for name, value in HOSTILE.items() if name in known) +
                 "select 1")


class Seen(Database):
    """A database as the test itself sees it: as another role, whose settings override the database's."""

    def connect(self, **more):
        return super().connect(options="-c search_path=public,pg_catalog -c default_transaction_read_only=off -c client_encoding=UTF8 "
                                       "-c statement_timeout=0 -c idle_session_timeout=0 -c standard_conforming_strings=on "
                                       "-c array_nulls=on -c xmloption=content -c lock_timeout=0 -c transform_null_equals=off "
                                       "-c idle_in_transaction_session_timeout=0 -c extra_float_digits=1 "
                                       "-c default_transaction_isolation=read\\ committed -c quote_all_identifiers=off "
                                       "-c datestyle=ISO,YMD -c intervalstyle=postgres -c exit_on_error=off" +
                               (" -c transaction_timeout=0" if self.transaction_timeout else ""), **more)

    def sql(self, text, args=None):
        con = self.connect()
        con.autocommit = True
        try:
            with con.cursor() as cur:
                cur.execute(text, args)
                return cur.fetchall() if cur.description else None
        finally:
            con.close()

    def one(self, text, args=None):
        rows = self.sql(text, args)
        return rows[0][0] if rows else None


@pytest.mark.parametrize("form", ["binary", "text"])
def test_trap_030_064_066_settings_change_nothing(source_server, target_server, make_pair, form):
    """Everything hostile on role and database of both sides: same values, same keys found, nothing ended; verify agrees."""
    named = "create table public.named (id int primary key, v regclass);" if form == "text" else ""
    pair = alike(make_pair, source_server, target_server, TABLES + LOOKALIKES + named)
    pair.prepare()
    role = f"hostile_{pair.id}"
    for side, database in (("source", pair.source), ("target", pair.target)):
        database.sql(f"create role {role} superuser login replication password '{PASSWORD}'")
        hostile(database, role)
        hostile(database, None)
        seen = Seen(database.server, database.name)
        seen.transaction_timeout = database.server.one("show server_version_num") >= "170000"
        setattr(pair, side, seen)
    env = {f"KEYBRIDGE_{k}": d.dsn.replace(f"postgres://{d.server.superuser}:", f"postgres://{role}:")
           for k, d in (("SOURCE", pair.source), ("TARGET", pair.target))}
    try:
        pair.source.sql(f"insert into t select {ROW} from generate_series(1, 300) g")
        pair.source.sql("insert into f select f4, f8, tz, iv, b, s, a, m from t where id < 40; "
                        "insert into k select b, f8, tz, iv, m, id from t")
        if form == "text":
            pair.source.sql("insert into named select g, 'public.t' from generate_series(1, 9) g")
        run = pair.start(env=env)
        pair.caught_up(60)
        # quiet for longer than any of the timeouts, then writes of every kind, with a lock that is waited for
        assert not wait_until_ended(run, 1.0)
        held = pair.target.connect(autocommit=False)
        held.cursor().execute("lock table t in exclusive mode")
        pair.source.sql("update t set id = id + 1000, f8 = f8 * 3, tz = tz + interval '1 day', s = s || 'x' where id % 2 = 0;"
                        "update k set n = n + 1; update k set b = b || '\\x00' where n < 50; delete from k where n between 60 and 160;"
                        "update f set iv = iv * 2 where f8 > 1; delete from f where f4 > 3; delete from t where id < 30")
        assert not wait_until_ended(run, 0.7)
        held.rollback()
        held.close()
        pair.caught_up(60)
        pair.source.sql("begin; update t set a = array['null', null], m = m * -1 where id in (31, 33); update f set s = null where f4 < 1; "
                        "select pg_sleep(0.5); commit")
        done = None
        pair.caught_up(60)
        done = run.stop()
        assert done.code == 0 or "stopped" in done.err, done
        assert "reconnects=0" in done.out or "stream interrupted" not in done.err, done
        assert chosen(done) == form, done
        pair.same()
        for more in ((), ("--show-values",)):
            assert pair.command("verify", "--json", *more, env=env, code=0).json()["databases"][0]["equal"]
        pair.target.sql("update t set f8 = f8 + 1e-15 where id = 35")
        pair.command("verify", env=env, code=1)
        pair.command("sequences", "check", env=env, code=0)
    finally:
        for database in (pair.source, pair.target):
            database.server.sql(f"alter database {database.name} reset all")
            database.server.sql(f"reassign owned by {role} to {database.server.superuser}; drop owned by {role}; drop role {role}",
                                dbname=database.name)


def wait_until_ended(run, seconds):
    """Whether it has ended before so much time has gone: for what must not happen."""
    try:
        wait_until(lambda: not run.alive(), seconds)
    except AssertionError:
        return False
    return True
