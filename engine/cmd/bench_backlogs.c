/* The five backlogs: tables, their first rows, and the load that makes the backlog. What the setup
 * does is the same wherever it runs, so that both sides begin alike. */
#include "engine/cmd/bench_impl.h"

/* load(n): the body n times, each its own transaction; i counts them, r repeats in every run. */
#define LOAD(declare, body)                                   \
    "create procedure load(n int) language plpgsql as $load$" \
    " declare r int; " declare " begin perform setseed(0.5);" \
    " for i in 1 .. n loop r := (random() * 1000000)::int; " body " commit; end loop; end $load$;"

#define TEN_COLUMNS                                                                                \
    "create table rows (id bigint primary key, a int, b int, c bigint, d text, e text, f numeric," \
    " g timestamptz, h bool, j float8);"
#define TEN_VALUES(i, r)                                                                      \
    i ", " r ", " i " % 1000, " i "::bigint * 7, 'customer ' || " i ", md5(" i "::text), (" r \
      " % 10000) / 100.0, timestamptz '2026-01-01 UTC' + " i " * interval '1 second', " i     \
      " % 2 = 0, sqrt(" i ")"

static const char tpcb[] =
    "create table branches (bid int primary key, balance int, filler char(88));"
    "create table tellers (tid int primary key, bid int, balance int, filler char(84));"
    "create table accounts (aid int primary key, bid int, balance int, filler char(84));"
    "create table history (id bigint primary key, tid int, bid int, aid int, delta int,"
    " mtime timestamptz, filler char(22));"
    "insert into branches select i, 0, '' from generate_series(1, 5) i;"
    "insert into tellers select i, (i - 1) / 10 + 1, 0, '' from generate_series(1, 50) i;"
    "insert into accounts select i, (i - 1) / 100000 + 1, 0, '' from generate_series(1, 500000) i;" LOAD(
        "a int; t int; b int; d int;",
        "a := (r::bigint * 7919 + i) % 500000 + 1; t := r % 50 + 1; b := r % 5 + 1;"
        " d := r % 10001 - 5000;"
        " update accounts set balance = balance + d where aid = a;"
        " update tellers set balance = balance + d where tid = t;"
        " update branches set balance = balance + d where bid = b;"
        " insert into history values (i, t, b, a, d, now(), '');");

static const char insert[] =
    TEN_COLUMNS LOAD("", "insert into rows values (" TEN_VALUES("i", "r") ");");

static const char bulk[] = TEN_COLUMNS LOAD(
    "",
    "insert into rows select " TEN_VALUES(
        "s",
        "(s * 7919 % 1000003)") " from generate_series(100000::bigint * (i - 1) + 1, 100000::bigint * i) s;");

static const char wide[] =
    "create table rows (id int primary key, t1 text, t2 text, t3 text, t4 text, t5 text, t6 text,"
    " t7 text, t8 text, n1 int, n2 int, n3 int, n4 int, n5 int, n6 int, n7 int, n8 int, n9 int,"
    " n10 int, document text);"
    "alter table rows alter document set storage external;"
    "insert into rows select i, m, m, m, m, m, m, m, m, n, n, n, n, n, n, n, n, n, n, repeat(m, 128)"
    " from generate_series(1, 10000) i, md5(i::text) m, lateral (select i * 7 % 1000) x(n);"
    "create index on rows (n1); create index on rows (n2); create index on rows (t1);"
    "create index on rows (n3, n4);" LOAD(
        "",
        "update rows set n1 = r % 1000, t2 = md5(r::text), n5 = i where id = r % 10000 + 1;"
        " if i % 50 = 0 then update rows set n2 = i % 1000, document = repeat(md5(i::text), 128)"
        "  where id = (r / 7) % 10000 + 1;"
        " else update rows set n2 = i % 1000, t3 = md5(i::text) where id = (r / 7) % 10000 + 1;"
        " end if;");

#define INTO_ANY(table, id)                                                      \
    " execute 'insert into t' || (" table ") % 50 || ' values ($1, $2, $3, $4)'" \
    "  using 1000 + " id ", 'code ' || 1000 + " id ", r, md5(r::text);"
#define UPDATE_ANY(table, id)                                                               \
    " execute 'update t' || (" table ") % 50 || ' set value = $1, note = $2 where id = $3'" \
    "  using r, md5(r::text), (" id ") % 1000 + 1;"

static const char many[] =
    "do $$ begin for n in 0 .. 49 loop"
    " execute format('create table t%s (id int primary key, code text not null unique, value int,"
    "  note text)', n);"
    " execute format('insert into t%s select i, ''code '' || i, i, md5(i::text)"
    "  from generate_series(1, 1000) i', n); end loop; end $$;" LOAD(
        "", INTO_ANY("r", "2 * i") UPDATE_ANY("r / 50", "r / 7") INTO_ANY("r / 2500", "2 * i + 1")
                UPDATE_ANY("r / 125000", "r / 11"));

/* For memory: it has to be named. */
static const char huge[] = TEN_COLUMNS
    "create procedure load(n int) language sql as $$ insert into rows select " TEN_VALUES(
        "s",
        "(s * 7919 % 1000003)::int") " from generate_series(1::bigint, 100000::bigint * n) s $$;";

const Backlog bench_backlogs[] = {
    {"tpcb", "three updates and an insert a transaction", 120000, 0.5, false, tpcb},
    {"insert", "one row of ten columns a transaction", 320000, 0.7, false, insert},
    {"bulk", "100,000 rows of ten columns a transaction", 20, 0.7, false, bulk},
    {"wide", "two updates a transaction; 20 columns, 4 more indexes, 4 kB outside the row", 60000,
     0.6, false, wide},
    {"many", "50 tables with a second unique key; two inserts and two updates a transaction", 96000,
     0.6, false, many},
    {"huge", "ten million rows of ten columns in one transaction", 100, 1, true, huge},
};
const size_t bench_backlog_count = ARRAY_LEN(bench_backlogs);

const char bench_lag_setup[] = "create table lag (id bigint primary key, note text);"
                               "create table accounts (id int primary key, balance bigint);"
                               "insert into accounts select i, 0 from generate_series(1, 1000) i;";
