#include "engine/stream/sqltext.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const struct {
    const char *text;
    const char *statements; /* joined by | ; NULL: can't be cut */
    bool escapes;
} splits[] = {
    {"", "", false},
    {" ; ;; -- no\n /* ; /* ; */ */", "", false},
    {"select 1; select 2 ;", "select 1|select 2", false},
    {"select ';', \"a;\"\"b\", $$;$$, $x$;$$;$x$, E'\\';' ; b",
     "select ';', \"a;\"\"b\", $$;$$, $x$;$$;$x$, E'\\';'|b", false},
    {"select '\\'; select 2", "select '\\'|select 2", false},
    {"select '\\'; select 2'", "select '\\'; select 2'", true},
    {"select U&'\\;', u&\"x;\"; b", "select U&'\\;', u&\"x;\"|b", false},
    {"create rule r as on insert to t do also (select 1; select 2); b",
     "create rule r as on insert to t do also (select 1; select 2)|b", false},
    {"create function f() returns int begin atomic select case when true then 1 end; select 2; end; b",
     "create function f() returns int begin atomic select case when true then 1 end; select 2; end|b",
     false},
    {"create or replace procedure p() begin atomic insert into t values (1); end; commit",
     "create or replace procedure p() begin atomic insert into t values (1); end|commit", false},
    {"begin; create table t (a int); end", "begin|create table t (a int)|end", false},
    {"select $1; select a$b; select $a", "select $1|select a$b|select $a", false},
    {"select 1::int[]; x", "select 1::int[]|x", false},
    {"select 'open", NULL, false},
    {"select $a$ x $b$", NULL, false},
    {"/* open /* */", NULL, false},
    {"select (1", NULL, false},
};

static void statements_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(splits); i++) {
        Arena arena ON_EXIT(arena_fini);
        AUTO_BUF got;
        SqlList list;
        bool ok;

        arena_init(&arena, KIB(4));
        buf_init(&got, 4096);
        ok = sql_split(span_str(splits[i].text), splits[i].escapes, &arena, &list);
        if (ok != (splits[i].statements != NULL))
            fail_msg("%s: %d", splits[i].text, ok);
        for (size_t at = 0; ok && at < list.count; at++) {
            if (at)
                buf_putc(&got, '|');
            buf_put_span(&got, list.at[at]);
        }
        if (ok)
            assert_string_equal(buf_str(&got), splits[i].statements);
    }
}

static const struct {
    const char *statement;
    const char *tag;
    bool fits;
} tags[] = {
    {"create table t (a int)", "CREATE TABLE", true},
    {"CREATE /* x */ UNLOGGED Table t (a int)", "CREATE TABLE", true},
    {"create table t as select 1", "CREATE TABLE", false},
    {"create table t (a, b) as select 1, 2", "CREATE TABLE AS", true},
    {"create table t (a int generated always as (1) stored)", "CREATE TABLE AS", false},
    {"select 1 as a into t", "SELECT INTO", true},
    {"with x as (select 1) select * into t from x", "SELECT INTO", true},
    {"select (select 1 into t)", "SELECT INTO", false},
    {"create unique index concurrently on t (a)", "CREATE INDEX", true},
    {"create or replace function f() returns int", "CREATE FUNCTION", true},
    {"create foreign table t (a int)", "CREATE TABLE", false},
    {"create materialized view v as select 1", "CREATE VIEW", false},
    {"create \"table\" t", "CREATE TABLE", false},
    {"grant select on t to x", "GRANT", true},
    {"grant x to y", "GRANT", false},
    {"revoke all on database d from x", "REVOKE", false},
    {"comment on table t is 'on role'", "COMMENT", true},
    {"comment on role x is 'y'", "COMMENT", false},
    {"alter default privileges grant select on tables to x", "ALTER DEFAULT PRIVILEGES", true},
    {"explain analyze create table t as select 1", "CREATE TABLE AS", false},
    {"drop table t", "DROP TABLE", true},
    {"drop", "DROP TABLE", false},
};

static void statements_are_known_by_tag(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(tags); i++)
        if (sql_fits(span_str(tags[i].statement), false, tags[i].tag) != tags[i].fits)
            fail_msg("%s: %s", tags[i].statement, tags[i].tag);
}

static const struct {
    const char *statement;
    const char *empty; /* NULL: not understood */
    bool temporary;
} empties[] = {
    {"create table t as select 1", "create table t as select 1\nwith no data", false},
    {"create table t as select 1 with data", "create table t as select 1 \nwith no data", false},
    {"create table t as select 1 with no data", "create table t as select 1 \nwith no data", false},
    {"create temp table t as select 1", "create temp table t as select 1\nwith no data", true},
    {"create table if not exists pg_temp.t as select 1",
     "create table if not exists pg_temp.t as select 1\nwith no data", true},
    {"select a into \"X\".t from u where into_b",
     "create table \"X\".t as select a  from u where into_b\nwith no data", false},
    {"select a into unlogged table t from u",
     "create unlogged table t as select a  from u\nwith no data", false},
    {"select a into local temporary t", "create table t as select a \nwith no data", true},
    {"select a into", NULL, false},
    {"select a", NULL, false},
};

static void tables_are_made_without_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(empties); i++) {
        AUTO_BUF out;
        bool temporary;
        bool ok;

        buf_init(&out, 4096);
        ok = sql_put_empty(span_str(empties[i].statement), false, &out, &temporary);
        if (ok != (empties[i].empty != NULL))
            fail_msg("%s: %d", empties[i].statement, ok);
        if (!ok)
            continue;
        assert_string_equal(buf_str(&out), empties[i].empty);
        assert_int_equal(temporary, empties[i].temporary);
    }
}

static void texts_are_changed(void **state)
{
    AUTO_BUF out;

    (void)state;
    buf_init(&out, 4096);
    sql_put_plain(span_str("drop index concurrently if exists i"), false, &out);
    assert_string_equal(buf_str(&out), "drop index  if exists i");
    buf_clear(&out);
    sql_put_masked(span_str("alter user x -- 'c'\n password 'pw' $$pw$$, E'p\\'w'"), false, &out);
    assert_string_equal(buf_str(&out), "alter user x password '***' '***', '***'");
    buf_clear(&out);
    sql_put_calls(
        span_str("alter table t alter v type text using Random() || \"F\"(v) || current_date"),
        false, &out);
    assert_string_equal(buf_str(&out), "[\"random\",\"F\",\"current_date\"]");
    assert_true(sql_has_words(span_str("alter table t set  logged"), false, "set logged"));
    assert_false(
        sql_has_words(span_str("alter table t set (a = 'set logged')"), false, "set logged"));
    assert_int_equal(sql_control(span_str("rollback to s"), false), SQL_TAKES_BACK);
    assert_int_equal(sql_control(span_str("end"), false), SQL_ENDS);
    assert_int_equal(sql_control(span_str("prepare transaction 'x'"), false), SQL_ENDS);
    assert_int_equal(sql_control(span_str("prepare x as select 1"), false), SQL_NO_CONTROL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statements_are_cut),
        cmocka_unit_test(statements_are_known_by_tag),
        cmocka_unit_test(tables_are_made_without_rows),
        cmocka_unit_test(texts_are_changed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
