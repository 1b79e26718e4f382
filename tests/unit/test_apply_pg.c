/* The writing half against a real PostgreSQL server: run it through tests/unit/with_pg.sh. */
#include "engine/base/base.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h> /* needs setjmp.h, so not sorted among the others */

#include "appliers/postgres/pg.h"
#include "engine/base/mono.h"
#include "engine/stream/apply.h"
#include "engine/stream/compact.h"
#include "tests/unit/rows.h"

typedef struct World {
    const char *dsn;
    Pg pg;
    Stop stop;
    Apply *apply;
    Err err;
    uint64_t at; /* of the next transaction */
} World;

static World world;
static uint64_t serials = 100;

/* The test can't be had on an older server. */
static void needs(int major)
{
    if (world.pg.version < major * 10000)
        skip();
}

static void sql(const char *text)
{
    Err err = ERR_INIT;

    if (!pg_exec(&world.pg, text, &err))
        fail_msg("%.60s: %s", text, strchr(err.text, ':') ? strrchr(err.text, ':') : err.text);
}

static const char *query(const char *text)
{
    static Buf out;
    Err err = ERR_INIT;

    if (!out.most)
        buf_init(&out, MIB(16));
    if (!pg_value(&world.pg, &out, &err, text, 0, NULL))
        fail_msg("%s: %s", text, err.text);
    return buf_str(&out);
}

static bool open_with(unsigned lanes, bool skip)
{
    ApplyConf conf = {.target_dsn = world.dsn,
                      .stream = "test",
                      .lanes = lanes,
                      .queue_batches = 4,
                      .text_only = true, /* else types must be the same on both sides */
                      .skip_failed = skip};

    world.err = ERR_INIT;
    world.apply = apply_open(&conf, &world.stop, &world.err);
    return world.apply != NULL;
}

static void must_open(unsigned lanes)
{
    if (!open_with(lanes, false))
        fail_msg("open: %s", world.err.text);
}

static void shut(void)
{
    apply_close(world.apply);
    world.apply = NULL;
}

static void push(Batch *batch)
{
    if (!queue_push(apply_queue(world.apply), batch))
        batch_free(batch);
}

/* Until everything pushed up to `at` is committed, or it failed. */
static bool settled(uint64_t at)
{
    for (uint64_t until = mono_ms() + 20000; mono_ms() < until; usleep(500)) {
        apply_error(world.apply, &world.err);
        if (err_is_set(&world.err))
            return false;
        if (apply_committed_end(world.apply).at >= at * 100 + 50 && apply_is_idle(world.apply))
            return true;
    }
    fail_msg("not applied in time");
    return false;
}

static void must_settle(uint64_t at)
{
    if (!settled(at))
        fail_msg("apply: %s [%s]", world.err.text, world.err.code);
}

static int before(void **state)
{
    (void)state;
    world.at = 1;
    sql("drop schema if exists keybridge cascade; drop schema public cascade; create schema public");
    return 0;
}

static int after(void **state)
{
    (void)state;
    shut();
    return 0;
}

/* --- */

static void inserts_updates_deletes(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, world.at++);

    (void)state;
    sql("create table t (id int primary key, v text, n numeric)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25 n:1700");
    must_open(2);
    INSERT(b, txn, &t, "1", "one", "1.50");
    INSERT(b, txn, &t, "2", "", NULL);
    INSERT(b, txn, &t, "3", "three", "3");
    txn = rows_txn(b, world.at++);
    UPDATE(b, txn, &t, NULL, "1", "uno", "1.5000");
    DELETE(b, txn, &t, "3", "\1", "\1");
    push(b);
    must_settle(2);
    assert_string_equal(query("select string_agg(t::text, ';' order by id) from t"),
                        "(1,uno,1.5000);(2,\"\",)");
    b = batch_new();
    txn = rows_txn(b, world.at++);
    UPDATE(b, txn, &t, NULL, "1", "eins", "7");
    DELETE(b, txn, &t, "2", "\1", "\1");
    INSERT(b, txn, &t, "2", "zwei", "2");
    push(b);
    must_settle(3);
    assert_string_equal(query("select string_agg(t::text, ';' order by id) from t"),
                        "(1,eins,7);(2,zwei,2)");
    assert_int_equal(apply_counters(world.apply).transactions, 3);
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void fill(Batch *b, Txn *txn, const Made *t, int from, int to, ChangeKind kind,
                 const char *v)
{
    for (int i = from; i < to; i++) {
        Value *row = arena_array(&b->arena, Value, 2);

        row[0] = rows_int4(b, i);
        row[1] = rows_bytes(b, v);
        if (kind == CHANGE_DELETE)
            row[1].kind = VALUE_ABSENT;
        rows_change(b, txn, kind, t, kind == CHANGE_DELETE ? row : NULL,
                    kind == CHANGE_DELETE ? NULL : row);
    }
}

static void big_batches_in_binary_over_lanes(void **state)
{
    Made t;
    Batch *b = batch_new();

    (void)state;
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(3);
    fill(b, rows_txn(b, 1), &t, 0, 20000, CHANGE_INSERT, "a");
    push(b);
    b = batch_new();
    fill(b, rows_txn(b, 2), &t, 0, 10000, CHANGE_UPDATE, "b");
    fill(b, rows_txn(b, 3), &t, 5000, 15000, CHANGE_DELETE, "");
    push(b);
    must_settle(3);
    assert_string_equal(
        query("select count(*) || ' ' || sum(id) || ' ' || string_agg(distinct v, ',') from t"),
        "10000 99995000 a,b");
    assert_string_equal(
        query(
            "select string_agg(lane || ':' || last_commit || ':' || lanes, ' ' order by lane) from keybridge.progress"),
        "0:0/12C:3 1:0/12C:3 2:0/12C:3");
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void progress_survives_and_durable_follows(void **state)
{
    Made t;
    Batch *b = batch_new();
    ApplyProgress p;

    (void)state;
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(2);
    assert_false(apply_progress(world.apply).any);
    assert_true(apply_set_start(world.apply, position_of_lsn(0x1234), &world.err));
    fill(b, rows_txn(b, 1), &t, 0, 2000, CHANGE_INSERT, "a");
    push(b);
    must_settle(1);
    for (uint64_t until = mono_ms() + 5000; apply_durable_end(world.apply).at != 150; usleep(1000))
        if (mono_ms() > until)
            fail_msg("never durable");
    shut();
    must_open(2);
    p = apply_progress(world.apply);
    assert_true(p.any && !p.partial);
    assert_int_equal(p.applied.at, 100);
    assert_int_equal(p.applied_end.at, 150);
    assert_true(apply_set_start(world.apply, position_of_lsn(0x1234), &world.err));
    assert_false(apply_set_start(world.apply, position_of_lsn(0x1235), &world.err));
    assert_string_equal(world.err.text,
                        "stream test started at 0/1234 and can't start at 0/1235 now");
    assert_int_equal(world.err.kind, ERR_STATE);
}

static void second_holder_is_refused(void **state)
{
    Apply *first;

    (void)state;
    must_open(1);
    first = world.apply;
    assert_false(open_with(1, false));
    assert_int_equal(world.err.kind, ERR_STATE);
    assert_non_null(strstr(world.err.text, "stream test is taken on the target by session "));
    world.apply = first;
}

/* --- values, in every form they travel in -------------------------------------------------------
 */

static const char awkward_columns[] =
    "id int, b bool, i2 smallint, i8 bigint, n numeric, f4 real, f8 float8, m money, t text, vc varchar(20), c char(9),"
    " nm name, \"char\" \"char\", by bytea, d date, ts timestamp(3), tz timestamptz, tm time, tmz timetz, iv interval, u uuid,"
    " j json, jb jsonb, x xml, pt point, bx box, pl polygon, inet inet, cidr cidr, mac macaddr, bi bit(9), vb varbit,"
    " tsv tsvector, tsq tsquery, ln pg_lsn, r int4range, nr numrange, mr int4multirange, ia int[], ta text[], na numeric[][],"
    " bxa box[], e mood, ea mood[], dm posint, da posarr, cmp pair, cmpa pair[], \"Odd \"\"name\" text, jp jsonpath";

static void make_awkward(int rows)
{
    char text[4000];

    sql("create type mood as enum ('sad', 'ok', 'it''s \"fine\"'); create domain posint as int check (value > 0);"
        "create domain posarr as int[]; create type pair as (a int, \"b c\" text)");
    snprintf(text, sizeof(text),
             "create table src (%s, primary key (id)); create table dst (like src including all)",
             awkward_columns);
    sql(text);
    snprintf(
        text, sizeof(text),
        "insert into src select g, g %% 2 = 0, g, g * 10000000000, case g %% 5 when 0 then 'NaN' when 1 then 'Infinity'"
        " when 2 then 1.50 when 3 then 0.00000000000000006938893903907228 else 1e130 end::numeric, g / 3.0, case g %% 4 when 0"
        " then '-0' when 1 then '1.7976931348623157E+308' when 2 then '-Infinity' else '5e-324' end::float8, g * 1.01,"
        " case g %% 4 when 0 then '' when 1 then E'a\\tb\\nc\\\\d\\r' when 2 then 'null' else repeat('é\"{},', g) end,"
        " case when g %% 3 > 0 then 'x''y ' end, 'pad', 'nm' || g, 'q', decode(repeat('00ff5c', g %% 4), 'hex'),"
        " case g %% 3 when 0 then 'infinity' when 1 then '0044-03-15 BC' else '12345-01-02' end::date, '2026-01-02 03:04:05.678',"
        " case g %% 2 when 0 then '-infinity' else '0001-01-01 00:00:00+00 BC' end::timestamptz, '24:00:00', '12:34:56.789+05:45',"
        " '-1 mons +2 days -03:04:05.000006', ('00000000-0000-0000-0000-' || lpad(g::text, 12, '0'))::uuid,"
        " '{\"a\": 1,  \"a\": \"\\u00e9\"}', '{\"b\": [1, null]}', '<a b=\"c\">d</a>', point(g, -0.5), box(point(g,1), point(0,0)),"
        " '((0,0),(1,1),(2,0))', '10.1.2.3/8', '10.0.0.0/8', '08:00:2b:01:02:03', b'101010101', b'1', 'a:1A b:2', 'a & !b',"
        " '16/B374D848', int4range(g, g + 5), case when g %% 2 = 0 then 'empty' else '(,1.50]' end::numrange, '{[1,3),[5,7)}',"
        " case g %% 3 when 0 then '{}' when 1 then '[0:1]={1,NULL}' else '{{1,2},{3,4}}' end::int[],"
        " array['a,b', '\"', NULL, 'NULL', ''], '{{1.0,2.50}}', array[box(point(1,1),point(0,0))], 'it''s \"fine\"',"
        " array['sad', NULL]::mood[], g, '{3,NULL}', row(g, 'x,\"y)')::pair, array[row(1, NULL)::pair, NULL], 'odd', '$.a[*]'"
        " from generate_series(1, %d) g;"
        "insert into src (id) select g from generate_series(%d, %d) g",
        rows, rows + 1, rows + 2);
    sql(text);
}

/* The relation and rows of src as its walsender would send them, for dst. */
static PGresult *read_src(Made *made, Column *columns, bool binary, char identity)
{
    PGresult *res = PQexecParams(world.pg.conn, "select * from src order by id", 0, NULL, NULL,
                                 NULL, NULL, binary);

    assert_int_equal(PQresultStatus(res), PGRES_TUPLES_OK);
    *made = (Made){.rel = {.serial = serials,
                           .id = (uint32_t)serials,
                           .schema = "public",
                           .name = "dst",
                           .identity = identity}};
    serials++;
    made->rel.column_count = (uint16_t)PQnfields(res);
    for (int c = 0; c < PQnfields(res); c++)
        columns[c] =
            (Column){PQfname(res, c), PQftype(res, c), PQfmod(res, c), c == 0 || identity == 'f'};
    made->rel.columns = columns;
    return res;
}

static Value *row_of(Batch *b, const PGresult *res, int row, bool binary, bool key_only)
{
    Value *values = arena_array(&b->arena, Value, PQnfields(res));

    for (int c = 0; c < PQnfields(res); c++) {
        Span copy = arena_dup(&b->arena, pg_cell(res, row, c));

        if (key_only && c > 0)
            continue;
        values[c] = (Value){copy.at, (uint32_t)copy.len,
                            copy.at ? (binary ? VALUE_BINARY : VALUE_TEXT) : VALUE_NULL};
    }
    return values;
}

static void assert_dst_is_src(const char *what)
{
    const char *differences = query(
        "select count(*)::text from (select src::text from src except all select dst::text from dst"
        " union all (select dst::text from dst except all select src::text from src)) d");

    if (strcmp(differences, "0") != 0)
        fail_msg("%s: %s rows differ", what, differences);
    /* Bit for bit; but the image of a composite or tsquery depends on how it was made. */
    sql("create table if not exists src_image as select * from src where false; create table if not exists dst_image as select * from src where false;"
        "truncate src_image, dst_image; insert into src_image select * from src; insert into dst_image select * from dst; alter table src_image drop if exists cmp, drop if exists cmpa, drop tsq; alter table dst_image drop if exists cmp, drop if exists cmpa, drop tsq");
    sql("create or replace function unlike() returns text language plpgsql as $$declare c text; n int; found text = ''; begin"
        " for c in select attname from pg_attribute where attrelid = 'src_image'::regclass and attnum > 0 and not attisdropped loop"
        "  execute format('select count(*) from src_image join dst_image using (id) where not (row(src_image.%1$I)::record *= row(dst_image.%1$I)::record)', c) into n;"
        "  if n > 0 then found = found || ' ' || c || ' ' || n; end if; end loop; return found; end$$");
    assert_string_equal(query("select unlike()"), "");
    sql("drop table src_image, dst_image");
}

static void every_value_in_every_form(void **state)
{
    static Column columns[64];
    static const int sizes[] = {2, 30, 300}; /* one by one, arrays, COPY */

    (void)state;
    needs(14);
    for (unsigned n = 0; n < 12; n++) {
        bool binary = n % 2, flat = n / 6;
        int rows = sizes[n / 2 % 3];
        Made made;
        PGresult *res;
        Batch *b;
        Txn *txn;
        uint64_t at = 1;
        char what[100];

        sql("drop schema if exists keybridge cascade; drop schema public cascade; create schema public");
        make_awkward(rows);
        if (flat) /* arrays and composites can't travel in arrays, and keep the others from it */
            sql("alter table src drop ia, drop ta, drop na, drop bxa, drop ea, drop da, drop cmp, drop cmpa;"
                "alter table dst drop ia, drop ta, drop na, drop bxa, drop ea, drop da, drop cmp, drop cmpa");
        must_open(1);
        res = read_src(&made, columns, binary, 'd');
        b = batch_new();
        txn = rows_txn(b, at);
        for (int i = 0; i < PQntuples(res); i++)
            rows_change(b, txn, CHANGE_INSERT, &made, NULL, row_of(b, res, i, binary, false));
        push(b);
        must_settle(at++);
        snprintf(what, sizeof(what), "%d inserts in %s", rows, binary ? "binary" : "text");
        assert_dst_is_src(what);
        /* Other values of the same rows, then src's again. */
        sql("update dst set t = 'other', n = 0, e = null, x = null, f8 = 0, dm = 77");
        if (!flat)
            sql("update dst set ia = '{9}', cmp = null");
        b = batch_new();
        txn = rows_txn(b, at);
        for (int i = 0; i < PQntuples(res); i++)
            rows_change(b, txn, CHANGE_UPDATE, &made, NULL, row_of(b, res, i, binary, false));
        push(b);
        must_settle(at++);
        assert_dst_is_src("updates");
        b = batch_new();
        txn = rows_txn(b, at);
        for (int i = 0; i < PQntuples(res); i++)
            rows_change(b, txn, CHANGE_DELETE, &made, row_of(b, res, i, binary, true), NULL);
        push(b);
        must_settle(at++);
        assert_string_equal(query("select count(*) from dst"), "0");
        assert_int_equal(apply_counters(world.apply).replays, 0);
        PQclear(res);
        shut();
    }
}

/* Traps 47, 48, 49, 173: found by the whole row, whatever its types. */
static void trap_047_full_identity_without_a_key(void **state)
{
    static Column columns[64];

    (void)state;
    needs(14);
    for (int binary = 0; binary < 2; binary++) {
        Made made;
        PGresult *res;
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, 1);

        sql("drop schema if exists keybridge cascade; drop schema public cascade; create schema public");
        make_awkward(20);
        sql("alter table dst drop constraint dst_pkey; insert into dst select * from src");
        must_open(2);
        res = read_src(&made, columns, binary, 'f');
        for (int i = 0; i < PQntuples(res); i++) {
            Value *new = row_of(b, res, i, binary, false);

            new[8] = rows_bytes(b, "changed");
            new[8].kind = binary ? VALUE_BINARY : VALUE_TEXT;
            rows_change(b, txn, CHANGE_UPDATE, &made, row_of(b, res, i, binary, false), new);
        }
        push(b);
        must_settle(1);
        assert_string_equal(
            query(
                "select count(*) from src join dst using (id) where dst.t = 'changed' and src.n is not distinct from dst.n"),
            "22");
        sql("update dst set t = src.t from src where src.id = dst.id");
        assert_dst_is_src("updates of whole rows");
        b = batch_new();
        txn = rows_txn(b, 2);
        for (int i = 0; i < PQntuples(res); i++)
            rows_change(b, txn, CHANGE_DELETE, &made, row_of(b, res, i, binary, false), NULL);
        push(b);
        must_settle(2);
        assert_string_equal(query("select count(*) from dst"), "0");
        PQclear(res);
        shut();
    }
}

/* --- traps -------------------------------------------------------------------------------------
 */

static void trap_041_unchanged_toast(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, big text, v text); insert into t values (1, repeat('x', 10000), 'a'), (2, 'b', 'b')");
    made_init(&t, serials++, "t", 'd', "id*:23 big:25 v:25");
    must_open(1);
    UPDATE(b, txn, &t, NULL, "1", "\2", "new");
    INSERT(b, txn, &t, "3", "inserted", "a"); /* the insert's value stays */
    UPDATE(b, txn, &t, NULL, "3", "\2", "later");
    UPDATE(b, txn, &t, NULL, "2", "known", "c"); /* the first update's value stays */
    UPDATE(b, txn, &t, NULL, "2", "\2", "d");
    push(b);
    must_settle(1);
    assert_string_equal(
        query(
            "select string_agg(concat(id, length(big), left(big, 5), v), ' ' order by id) from t"),
        "110000xxxxxnew 25knownd 38inserlater");
}

static void trap_042_unchanged_toast_under_full(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int, big text, v text); insert into t values (1, 'bbb', 'a')");
    made_init(&t, serials++, "t", 'f', "id*:23 big*:25 v*:25");
    must_open(1);
    UPDATE(b, txn, &t, ROW(b, "1", "bbb", "a"), "1", "\2", "new");
    push(b);
    must_settle(1);
    assert_string_equal(query("select t::text from t"), "(1,bbb,new)");
}

static void trap_043_absent_is_not_null(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, v text); insert into t values (1, 'a')");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(1);
    UPDATE(b, txn, &t, ROW(b, "1", "\1"), "7", "a");
    push(b);
    must_settle(1);
    assert_string_equal(query("select t::text from t"), "(7,a)");
}

static void trap_044_key_out_of_line(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (k text primary key, v text); insert into t values ('key', 'a')");
    made_init(&t, serials++, "t", 'd', "k*:25 v:25");
    must_open(1);
    UPDATE(b, txn, &t, ROW(b, "key", "\1"), "\2", "b"); /* newer sources send the old key then */
    push(b);
    must_settle(1);
    assert_string_equal(query("select t::text from t"), "(key,b)");
    b = batch_new();
    txn = rows_txn(b, 2);
    UPDATE(b, txn, &t, NULL, "\2", "c");
    push(b);
    assert_false(settled(2));
    assert_int_equal(world.err.kind, ERR_FAITHFUL);
    assert_string_equal(
        world.err.text,
        "transaction 2 committed at 0/C8: updating public.t: the value of key column k isn't in the source's message");
}

static void trap_045_key_change_with_unchanged_toast(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, big text, extra text default 'kept'); insert into t values (1, repeat('y', 9000)), (2, 'two')");
    made_init(&t, serials++, "t", 'd', "id*:23 big:25");
    must_open(2);
    UPDATE(b, txn, &t, ROW(b, "1", "\1"), "3", "\2");
    UPDATE(b, txn, &t, ROW(b, "2", "\1"), "1", "\2"); /* into the place that it left */
    UPDATE(b, txn, &t, NULL, "3", "\2");
    DELETE(b, txn, &t, "1", "\1");
    INSERT(b, txn, &t, "1", "fresh");
    push(b);
    must_settle(1);
    assert_string_equal(
        query(
            "select string_agg(id || left(big, 5) || length(big) || extra, ' ' order by id) from t"),
        "1fresh5kept 3yyyyy9000kept");
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void trap_046_update_of_nothing(void **state)
{
    Made t, k;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, big text); insert into t select g, 'x' from generate_series(1, 20) g; create table k (id int primary key); insert into k values (1)");
    made_init(&t, serials++, "t", 'd', "id*:23 big:25");
    made_init(&k, serials++, "k", 'd', "id*:23");
    must_open(1);
    for (int i = 1; i <= 20; i++) {
        char id[12];

        snprintf(id, sizeof(id), "%d", i);
        UPDATE(b, txn, &t, NULL, id, "\2");
    }
    UPDATE(b, txn, &k, NULL, "1");
    push(b);
    must_settle(1);
    b = batch_new(); /* and it is still noticed when the row is gone */
    UPDATE(b, rows_txn(b, 2), &k, NULL, "2");
    push(b);
    assert_false(settled(2));
    assert_string_equal(
        world.err.text,
        "transaction 2 committed at 0/C8: updating public.k key (id)=(2): 0 rows were found where the source changed 1");
}

static void trap_050_equal_rows(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (a int, b text); insert into t values (1, null), (1, null), (1, null)");
    made_init(&t, serials++, "t", 'f', "a*:23 b*:25");
    must_open(2);
    DELETE(b, txn, &t, "1", NULL);
    UPDATE(b, txn, &t, ROW(b, "1", NULL), "1", "x");
    push(b);
    must_settle(1);
    assert_string_equal(query("select string_agg(t::text, ' ' order by b) from t"), "(1,x) (1,)");
}

static void trap_051_row_is_missing(void **state)
{
    Made t;

    (void)state;
    sql("create table t (id int primary key, v text); insert into t select g, '' from generate_series(1, 1000) g");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(2);
    sql("delete from t where id = 500");
    for (int what = 0; what < 3; what++) {
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, 1);

        if (what == 0) {
            fill(b, txn, &t, 1, 1001, CHANGE_UPDATE, "x");
        } else if (what == 1) {
            fill(b, txn, &t, 499, 502, CHANGE_DELETE, "");
        } else {
            DELETE(b, txn, &t, "500", "\1");
        }
        push(b);
        assert_false(settled(1));
        assert_int_equal(world.err.kind, ERR_FAITHFUL);
        assert_false(world.err.transient);
        assert_string_equal(world.err.code, "row-count");
        assert_string_equal(
            world.err.text,
            what == 0
                ? "transaction 1 committed at 0/64: updating public.t key (id)=(500): 0 rows were found where the source changed 1"
                : "transaction 1 committed at 0/64: deleting from public.t key (id)=(500): 0 rows were found where the source changed 1");
        assert_string_equal(
            query("select count(*) || ' ' || count(*) filter (where v = 'x') from t"), "999 0");
        shut();
        must_open(2);
    }
}

static void trap_054_deferrable_unique(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, pos int unique deferrable initially deferred); insert into t select g, g from generate_series(1, 10) g");
    made_init(&t, serials++, "t", 'd', "id*:23 pos:23");
    must_open(2);
    for (int i = 1; i <= 10; i++) {
        char id[12], pos[12];

        snprintf(id, sizeof(id), "%d", i);
        snprintf(pos, sizeof(pos), "%d", i + 1);
        UPDATE(b, txn, &t, NULL, id, pos);
    }
    push(b);
    must_settle(1);
    assert_string_equal(query("select string_agg(id || '>' || pos, ' ' order by id) from t"),
                        "1>2 2>3 3>4 4>5 5>6 6>7 7>8 8>9 9>10 10>11");
}

static void trap_055_unique_value_moves(void **state)
{
    Made t;
    uint64_t at = 1;

    (void)state;
    sql("create table t (id int primary key, u text unique, v int); insert into t select g, g::text, 0 from generate_series(1, 20) g");
    made_init(&t, serials++, "t", 'd', "id*:23 u:25 v:23");
    must_open(3);
    for (int round = 0; round < 4; round++) {
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, at);

        /* Row 1 gives its value up, row 2 takes it; and the other way round by id. */
        UPDATE(b, txn, &t, NULL, "1", NULL, "1");
        UPDATE(b, txn, &t, NULL, "2", "1", "1");
        UPDATE(b, txn, &t, NULL, "1", "2", "1");
        UPDATE(b, txn, &t, NULL, "20", NULL, "1");
        UPDATE(b, txn, &t, NULL, "19", "20", "1");
        UPDATE(b, txn, &t, NULL, "20", "19", "1");
        UPDATE(b, txn, &t, NULL, "5", "five", "1");
        txn = rows_txn(b, at + 1);
        UPDATE(b, txn, &t, NULL, "1", NULL, "2"); /* back again */
        UPDATE(b, txn, &t, NULL, "2", "2", "2");
        UPDATE(b, txn, &t, NULL, "1", "1", "2");
        UPDATE(b, txn, &t, NULL, "20", NULL, "2");
        UPDATE(b, txn, &t, NULL, "19", "19", "2");
        UPDATE(b, txn, &t, NULL, "20", "20", "2");
        if (round % 2)
            DELETE(b, txn, &t, "20", "\1", "\1"); /* deleted, and its value in a new row */
        if (round % 2)
            INSERT(b, txn, &t, "20", "20", "0");
        push(b);
        must_settle(at + 1);
        at += 2;
        assert_string_equal(
            query(
                "select string_agg(id || '=' || u, ' ' order by id) filter (where u <> id::text) from t"),
            "5=five");
    }
    /* A swap, which only works in order. */
    for (int round = 0; round < 2; round++) {
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, at);

        UPDATE(b, txn, &t, NULL, "1", NULL, "9");
        UPDATE(b, txn, &t, NULL, "2", round ? "2" : "1", "9");
        UPDATE(b, txn, &t, NULL, "1", round ? "1" : "2", "9");
        push(b);
        must_settle(at++);
        assert_string_equal(query("select string_agg(u, ' ' order by id) from t where id < 3"),
                            round ? "1 2" : "2 1");
    }
    assert_true(apply_counters(world.apply).replays <= 1); /* once it has learned, no more */
}

static void trap_056_generated_always_identity(void **state)
{
    Made t, other;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int generated always as identity primary key, v text, more text default 'm');"
        "create table o (k int primary key, n int generated always as identity, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    made_init(&other, serials++, "o", 'd', "k*:23 n:23 v:25");
    must_open(2);
    for (int i = 1; i <= 12; i++) {
        char id[12];

        snprintf(id, sizeof(id), "%d", i * 10);
        INSERT(b, txn, &t, id, "a");
        INSERT(b, txn, &other, id, "7", "a");
    }
    txn = rows_txn(b, 2);
    UPDATE(b, txn, &t, NULL, "10", "b");
    push(b);
    must_settle(2);
    b = batch_new();
    txn = rows_txn(b, 3);
    for (int i = 1; i <= 12; i++) {
        char id[12];

        snprintf(id, sizeof(id), "%d", i * 10);
        UPDATE(b, txn, &t, NULL, id, "c");
        UPDATE(b, txn, &other, NULL, id, "7", "c");
    }
    UPDATE(b, txn, &t, ROW(b, "20", "\1"), "21", "key moved"); /* SET id = DEFAULT on the source */
    push(b);
    must_settle(3);
    assert_string_equal(query("select string_agg(t::text, '' order by id) from t where id < 35"),
                        "(10,c,m)(21,\"key moved\",m)(30,c,m)");
    assert_string_equal(query("select count(*) from o where v = 'c'"), "12");
    b = batch_new(); /* a changed identity that isn't the key can't be set, and isn't dropped
                        silently */
    txn = rows_txn(b, 4);
    UPDATE(b, txn, &other, NULL, "10", "8", "d");
    UPDATE(b, txn, &other, NULL, "20", "7", "d");
    push(b);
    must_settle(4);
    assert_string_equal(query("select string_agg(o::text, '' order by k) from o where k < 35"),
                        "(10,8,d)(20,7,d)(30,7,c)");
}

static void trap_057_generated_columns(void **state)
{
    Made t;

    (void)state;
    needs(12);
    sql("create table t (id int primary key, a int, twice int generated always as (a * 3) stored)");
    made_init(&t, serials++, "t", 'd', "id*:23 a:23 twice:23");
    must_open(1);
    for (int n = 1; n <= 200; n = n == 1 ? 20 : n * 10) { /* one by one, arrays, COPY */
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, (uint64_t)n);

        for (int i = 0; i < n; i++) {
            char id[12];

            snprintf(id, sizeof(id), "%d", n * 1000 + i);
            INSERT(b, txn, &t, id, "5", "10");
        }
        push(b);
        must_settle((uint64_t)n);
        b = batch_new();
        txn = rows_txn(b, (uint64_t)n + 1);
        for (int i = 0; i < n; i++) {
            char id[12];

            snprintf(id, sizeof(id), "%d", n * 1000 + i);
            UPDATE(b, txn, &t, NULL, id, "6", "12");
        }
        push(b);
        must_settle((uint64_t)n + 1);
    }
    assert_string_equal(query("select count(*) || ' ' || min(twice) || ' ' || max(twice) from t"),
                        "221 18 18");
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void trap_074_null_is_not_the_default(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, v text default 'd', more int default 7)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(1);
    INSERT(b, txn, &t, "1", NULL);
    push(b);
    must_settle(1);
    assert_string_equal(query("select t::text from t where v is null"), "(1,,7)");
}

static Change *truncate_of(Batch *b, Txn *txn, unsigned count, const Made *const *tables)
{
    Change *change = arena_new(&b->arena, Change);
    const Relation **list = arena_array(&b->arena, const Relation *, count);

    for (unsigned i = 0; i < count; i++)
        list[i] = &tables[i]->rel;
    change->kind = CHANGE_TRUNCATE;
    change->truncated = list;
    change->truncated_count = count;
    txn_add(txn, change);
    b->change_count++;
    return change;
}

static void trap_075_truncate(void **state)
{
    Made a, c;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    Change *change;

    (void)state;
    sql("create table a (id serial primary key, v text); create table c (id int primary key, a int references a);"
        "create sequence other start 100; select nextval('other'), setval('a_id_seq', 50); insert into a values (1, 'old'); insert into c values (1, 1)");
    made_init(&a, serials++, "a", 'd', "id*:23 v:25");
    made_init(&c, serials++, "c", 'd', "id*:23 a:23");
    must_open(2);
    INSERT(b, txn, &a, "2", "before");
    change = truncate_of(b, txn, 2, (const Made *const[]){&a, &c});
    change->restart_identity = true;
    INSERT(b, txn, &a, "1", "after");
    INSERT(b, txn, &c, "1", "1");
    txn = rows_txn(b, 2);
    INSERT(b, txn, &a, "3", "more");
    push(b);
    must_settle(2);
    assert_string_equal(
        query(
            "select (select string_agg(a::text, '' order by id) from a) || (select string_agg(c::text, '') from c)"),
        "(1,after)(3,more)(1,1)");
    assert_string_equal(query("select nextval('a_id_seq') || ' ' || nextval('other')"), "1 101");
    b = batch_new();
    txn = rows_txn(b, 3);
    truncate_of(b, txn, 1, (const Made *const[]){&a})->cascade = true;
    push(b);
    must_settle(3);
    assert_string_equal(query("select (select count(*) from a) + (select count(*) from c)"), "0");
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void trap_081_always_triggers_fire_once_for_each_row(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, v text); create table log (n int generated always as identity, what text);"
        "create function note() returns trigger language plpgsql as $$begin insert into public.log (what) values (tg_op || coalesce(new.id, old.id) || coalesce(new.v, '')); return null; end$$;"
        "create trigger note after insert or update or delete on t for each row execute function note(); alter table t enable always trigger note;"
        "create table quiet (id int primary key); create function no() returns trigger language plpgsql as $$begin raise 'fired'; end$$;"
        "create trigger no before insert on quiet for each row execute function no()");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(2);
    INSERT(b, txn, &t, "1", "a");
    UPDATE(b, txn, &t, NULL, "1", "b");
    DELETE(b, txn, &t, "1", "\1");
    push(b);
    must_settle(1);
    assert_string_equal(query("select string_agg(what, ' ' order by n) from log"),
                        "INSERT1a UPDATE1b DELETE1");
    made_init(&t, serials++, "quiet", 'd', "id*:23");
    b = batch_new();
    txn = rows_txn(b, 2);
    INSERT(b, txn, &t, "1");
    push(b);
    must_settle(2);
}

static void trap_175_equal_but_not_identical(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (n numeric, f float8); insert into t values (1.0, '-0'), (1.00, '0'), (1.00, '-0')");
    made_init(&t, serials++, "t", 'f', "n*:1700 f*:701");
    must_open(1);
    DELETE(b, txn, &t, "1.00", "-0");
    UPDATE(b, txn, &t, ROW(b, "1.0", "-0"), "2", "2");
    push(b);
    must_settle(1);
    assert_string_equal(query("select string_agg(t::text, ' ' order by n) from t"),
                        "(1.00,0) (2,2)");
    b = batch_new(); /* an image that isn't there, but an equal row: that one */
    txn = rows_txn(b, 2);
    DELETE(b, txn, &t, "1.000", "0");
    push(b);
    must_settle(2);
    assert_string_equal(query("select string_agg(t::text, ' ' order by n) from t"), "(2,2)");
    b = batch_new();
    txn = rows_txn(b, 3);
    DELETE(b, txn, &t, "5.99", "0");
    push(b);
    assert_false(settled(3));
    assert_string_equal(world.err.code, "row-count");
}

/* --- what can't be applied -----------------------------------------------------------------------
 */

static void trap_033_missing_table_and_column(void **state)
{
    Made t, u;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25 w:25");
    made_init(&u, serials++, "u", 'd', "id*:23");
    must_open(1);
    INSERT(b, txn, &t, "1", "a", "b");
    push(b);
    assert_false(settled(1));
    assert_int_equal(world.err.kind, ERR_FAITHFUL);
    assert_string_equal(
        world.err.text,
        "transaction 1 committed at 0/64: table public.t on the target has no columns v, w, which the source sends");
    shut();
    must_open(1);
    b = batch_new();
    INSERT(b, rows_txn(b, 1), &u, "1");
    push(b);
    assert_false(settled(1));
    assert_string_equal(world.err.text,
                        "transaction 1 committed at 0/64: table public.u isn't on the target");
    shut();
    sql("alter table t add v text, add w text, add extra int default 3"); /* fixed: it goes on */
    must_open(1);
    b = batch_new();
    INSERT(b, rows_txn(b, 1), &t, "1", "a", "b");
    push(b);
    must_settle(1);
    assert_string_equal(query("select t::text from t"), "(1,a,b,3)");
}

static void failed_transaction_stops_after_the_ones_before(void **state)
{
    Made t;
    Batch *b = batch_new();

    (void)state;
    sql("create table t (id int primary key, v text check (v <> 'bad'))");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(2);
    INSERT(b, rows_txn(b, 1), &t, "1", "a");
    INSERT(b, rows_txn(b, 2), &t, "2", "bad");
    INSERT(b, rows_txn(b, 3), &t, "3", "c");
    push(b);
    assert_false(settled(3));
    assert_int_equal(world.err.kind, ERR_FAITHFUL);
    assert_string_equal(world.err.code, "23514");
    assert_non_null(strstr(
        world.err.text,
        "transaction 2 committed at 0/C8: inserting into public.t key (id)=(2): new row for relation \"t\" violates check constraint"));
    assert_string_equal(query("select string_agg(t::text, '') from t"), "(1,a)");
    shut();
    must_open(2);
    assert_int_equal(apply_progress(world.apply).applied.at, 100);
}

static void skip_failed_buries_it(void **state)
{
    Made t;
    Batch *b = batch_new();

    (void)state;
    sql("create table t (id int primary key, v text check (v <> 'bad'))");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    assert_true(open_with(2, true));
    INSERT(b, rows_txn(b, 1), &t, "1", "a");
    INSERT(b, rows_txn(b, 2), &t, "2", "bad");
    INSERT(b, rows_txn(b, 3), &t, "3", "c");
    push(b);
    must_settle(3);
    assert_int_equal(apply_counters(world.apply).skipped, 1);
    assert_string_equal(query("select string_agg(t::text, '' order by id) from t"), "(1,a)(3,c)");
    assert_string_equal(
        query(
            "select xid || ' ' || commit_position || ' ' || end_position || ' ' || sqlstate || ' ' || changes from keybridge.dead_letter"),
        "2 0/C8 0/FA 23514 [{\"change\":\"insert\",\"table\":\"public.t\",\"new\":{\"id\":\"2\",\"v\":\"bad\"}}]");
    assert_string_equal(
        query("select (commit_time at time zone 'UTC')::text from keybridge.dead_letter"),
        "2023-11-14 22:13:20.000002");
}

static void another_writer_of_progress_is_noticed(void **state)
{
    Made t;
    Batch *b = batch_new();

    (void)state;
    sql("create table t (id int primary key)");
    made_init(&t, serials++, "t", 'd', "id*:23");
    must_open(1);
    INSERT(b, rows_txn(b, 1), &t, "1");
    push(b);
    must_settle(1);
    sql("update keybridge.progress set last_commit = '0/99'");
    b = batch_new();
    INSERT(b, rows_txn(b, 2), &t, "2");
    push(b);
    assert_false(settled(2));
    assert_true(world.err.transient);
    assert_string_equal(world.err.text,
                        "another session has written the progress of this stream meanwhile");
    assert_string_equal(query("select count(*) from t"), "1");
}

static void lost_connection_is_transient(void **state)
{
    Made t;
    Batch *b = batch_new();

    (void)state;
    sql("create table t (id int primary key)");
    made_init(&t, serials++, "t", 'd', "id*:23");
    must_open(2);
    query(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'keybridge test lane%'");
    INSERT(b, rows_txn(b, 1), &t, "1");
    push(b);
    assert_false(settled(1));
    assert_true(world.err.transient);
}

/* The n-th id whose row goes to this lane of four. */
static void id_of_lane(const Made *t, unsigned lane, int n, char id[12])
{
    static const uint16_t first[1] = {0};
    Table table = {.rel = &t->rel, .key = first, .key_count = 1};

    for (int i = 1;; i++) {
        uint64_t hash;
        Value key;

        snprintf(id, 12, "%d", i);
        key = (Value){(const uint8_t *)id, (uint32_t)strlen(id), VALUE_TEXT};
        assert_true(key_hash(&table, &key, &hash));
        if ((hash >> 32) % 4 == lane && n-- == 0)
            return;
    }
}

/* An index that routing doesn't know of: one lane waits for a row that another one deleted, and
 * would for ever. */
static void lanes_that_wait_for_each_other_are_untied(void **state)
{
    Made t, slow;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);
    char id[12], v[12];

    (void)state;
    sql("create table t (id int primary key, v text); create table slow (id int primary key, u int unique)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    made_init(&slow, serials++, "slow", 'd', "id*:23 u:23");
    must_open(4);
    for (int i = 0; i < 8; i++) {
        id_of_lane(&t, 1, i, id);
        snprintf(v, sizeof(v), "v%d", i);
        INSERT(b, txn, &t, id, v);
    }
    push(b);
    must_settle(1);
    sql("create unique index on t (v)");
    b = batch_new();
    b->lanes_before = 4;
    txn = rows_txn(b, 2);
    for (int i = 0; i < 20000;
         i++) { /* the largest whole table is lane 0's, which so comes late to the others' rows */
        snprintf(id, sizeof(id), "%d", i);
        INSERT(b, txn, &slow, id, id);
    }
    for (int i = 0; i < 8; i++) {
        id_of_lane(&t, 1, i, id);
        DELETE(b, txn, &t, id, "\1");
        id_of_lane(&t, 0, i, id);
        snprintf(v, sizeof(v), "v%d", i);
        INSERT(b, txn, &t, id, v);
    }
    push(b);
    must_settle(2);
    assert_int_equal(apply_counters(world.apply).replays, 1);
    assert_string_equal(query("select count(*)::text from t"), "8");
    id_of_lane(&t, 0, 7, id);
    assert_string_equal(query("select max(id)::text from t"), id);
}

/* --- big transactions ----------------------------------------------------------------------------
 */

typedef struct Fake { /* a reader that makes its changes up */
    ChangeReader base;
    const Made *made;
    int next, count;
    bool fails; /* one of its inserts violates a constraint */
} Fake;

static bool fake_rewind(ChangeReader *self, Err *err)
{
    (void)err;
    ((Fake *)self)->next = 0;
    return true;
}

static bool fake_next(ChangeReader *self, Arena *arena, Change **change, Err *err)
{
    Fake *f = (Fake *)self;
    Batch in = {.arena = *arena}; /* only its arena is used */
    Txn txn = {0};
    char id[12];

    (void)err;
    *change = NULL;
    if (f->next == f->count)
        return true;
    /* Every row is inserted, then updated; every third deleted. */
    snprintf(id, sizeof(id), "%d", f->next / 3);
    if (f->next % 3 == 0)
        *change = INSERT(&in, &txn, f->made, id, "a");
    else if (f->next % 3 == 1)
        *change =
            UPDATE(&in, &txn, f->made, NULL, id, f->fails && f->next >= f->count - 3 ? "bad" : "b");
    else if (f->next % 9 == 2)
        *change = DELETE(&in, &txn, f->made, id, "\1");
    else
        *change =
            UPDATE(&in, &txn, f->made, NULL, id, f->fails && f->next >= f->count - 3 ? "bad" : "c");
    f->next++;
    *arena = in.arena;
    return true;
}

static void fake_free(ChangeReader *self)
{
    free(self);
}

static Batch *big_batch(const Made *made, uint64_t at, int count, bool fails)
{
    static const ChangeReaderOps ops = {fake_rewind, fake_next, fake_free};
    Batch *b = batch_new();
    Fake *f = calloc(1, sizeof(*f));
    Txn *txn = rows_txn(b, at);

    assert_non_null(f);
    INSERT(b, txn, made, "-1", "before");
    *f = (Fake){.base.ops = &ops, .made = made, .count = count, .fails = fails};
    txn = rows_txn(b, at + 1);
    txn->big = &f->base;
    txn->change_count = (size_t)count;
    INSERT(b, rows_txn(b, at + 2), made, "-2", "after");
    return b;
}

static void big_transaction_in_chunks(void **state)
{
    Made t;

    (void)state;
    sql("create table t (id int primary key, v text check (v <> 'bad'))");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(2);
    push(big_batch(&t, 1, 90000, false));
    must_settle(3);
    assert_string_equal(
        query("select count(*) || ' ' || count(*) filter (where v = 'c') || ' ' || min(id) from t"),
        "20002 20000 -2");
    assert_int_equal(apply_counters(world.apply).replays, 0);
    sql("delete from t");
    push(big_batch(&t, 4, 90000, true));
    assert_false(settled(6));
    assert_non_null(
        strstr(world.err.text,
               "transaction 5 committed at 0/1F4: updating public.t key (id)=(29999): new row"));
    assert_string_equal(query("select string_agg(t::text, '') from t"),
                        "(-1,before)"); /* all of it is gone again */
}

/* --- crashes
 * -------------------------------------------------------------------------------------- */

static Batch *spread_batch(const Made *t, uint64_t at, unsigned lanes_before)
{
    Batch *b = batch_new();

    b->lanes_before = lanes_before;
    fill(b, rows_txn(b, at), t, 0, 1000, CHANGE_INSERT, "one");
    fill(b, rows_txn(b, at + 1), t, 0, 300, CHANGE_UPDATE, "two");
    fill(b, rows_txn(b, at + 2), t, 900, 1000, CHANGE_DELETE, "");
    return b;
}

/* In a child: applies the batch and dies at the named point. */
static void crash_at(const char *point, const Made *t, uint64_t at, unsigned lanes)
{
#ifndef KB_TEST_HOOKS
    skip(); /* this build has no crash points */
#endif
    pid_t pid = fork();
    int status;

    assert_true(pid >= 0);
    if (pid == 0) {
        setenv("KB_CRASH_AT", point, 1);
        must_open(lanes);
        push(spread_batch(t, at, 0));
        settled(at + 2);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void crash_between_commits_is_completed(void **state)
{
    Made t;

    (void)state;
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    for (int done = 1; done <= 3; done++) {
        ApplyProgress p;
        char point[64];

        sql("drop schema if exists keybridge cascade; drop table if exists t; create table t (id int primary key, v text)");
        snprintf(point, sizeof(point), "between-lane-commits:%d", done);
        crash_at(point, &t, 10, 3);
        must_open(2); /* fewer lanes than then */
        p = apply_progress(world.apply);
        assert_int_equal(p.partial, done < 3);
        if (done < 3) {
            assert_true(p.any);
            assert_int_equal(p.lanes, 3);
            assert_int_equal(p.first.at, 1000);
            assert_int_equal(p.last.at, 1200);
            assert_int_equal(p.applied_end.at, 0);
            assert_string_not_equal(query("select count(*) from t"), "900");
            push(spread_batch(&t, 10, p.lanes));
            must_settle(12);
            assert_int_equal(apply_counters(world.apply).replays, 0);
        } else {
            assert_int_equal(p.applied.at, 1200);
        }
        assert_string_equal(
            query(
                "select count(*) || ' ' || sum(id) || ' ' || count(*) filter (where v = 'two') from t"),
            "900 404550 300");
        assert_string_equal(
            query(
                "select count(*) || min(last_commit) || max(last_commit) from keybridge.progress"),
            "30/4B00/4B0");
        shut();
        must_open(2);
        assert_false(apply_progress(world.apply).partial);
        assert_int_equal(apply_progress(world.apply).applied.at, 1200);
        shut();
    }
}

static void crash_before_commits_leaves_nothing(void **state)
{
    Made t;

    (void)state;
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    crash_at("before-lane-commit", &t, 10, 3);
    must_open(3);
    assert_false(apply_progress(world.apply).any);
    assert_string_equal(query("select count(*) from t"), "0");
}

/* The rest of a half-applied batch fails set-wise: it is written row by row, lane by lane. */
static void half_applied_batch_is_replayed_by_lane(void **state)
{
    Made t;

    (void)state;
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    crash_at("between-lane-commits:1", &t, 10, 3);
    /* Fails the first time that it is fired for a statement of many rows. */
    sql("create function once() returns trigger language plpgsql as $$begin if (select count(*) from n) > 1 then raise 'no'; end if; return null; end$$;"
        "create trigger once after insert on t referencing new table as n for each statement execute function once()");
    must_open(3);
    sql("alter table t enable always trigger once");
    push(spread_batch(&t, 10, 3));
    assert_false(settled(12)); /* its definition isn't the one it was routed by */
    assert_int_equal(world.err.kind, ERR_FAITHFUL);
    assert_non_null(strstr(world.err.text,
                           "a batch is on the target in part, and its tables were altered since"));
    shut();
    sql("drop trigger once on t");
    must_open(3);
    sql("create or replace function bad() returns trigger language plpgsql as $$begin if (select count(*) from n) > 1 then raise 'no'; end if; return null; end$$");
    push(spread_batch(&t, 10, 3));
    must_settle(12);
    assert_string_equal(
        query(
            "select count(*) || ' ' || sum(id) || ' ' || count(*) filter (where v = 'two') from t"),
        "900 404550 300");
}

static void batch_that_should_be_formed_again_and_isnt(void **state)
{
    Made t;

    (void)state;
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    crash_at("between-lane-commits:1", &t, 10, 3);
    must_open(3);
    push(spread_batch(&t, 10, 0));
    assert_false(settled(12));
    assert_int_equal(world.err.kind, ERR_BUG);
}

/* --- more rules
 * ------------------------------------------------------------------------------------ */

static void full_identity_with_a_key_on_the_target(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, v text); insert into t select g, 'a' from generate_series(1, 9) g");
    made_init(&t, serials++, "t", 'f', "id*:23 v*:25");
    must_open(2);
    UPDATE(b, txn, &t, ROW(b, "1", "a"), "1", "b");
    UPDATE(b, txn, &t, ROW(b, "1", "b"), "1", "c");
    DELETE(b, txn, &t, "2", "a");
    INSERT(b, txn, &t, "2", "again");
    push(b);
    must_settle(1);
    b = batch_new();
    UPDATE(b, rows_txn(b, 2), &t, ROW(b, "3", "a"), "30", "a");
    push(b);
    must_settle(2);
    assert_string_equal(
        query("select string_agg(t::text, '' order by id) from t where id < 4 or id > 9"),
        "(1,c)(2,again)(30,a)");
    assert_int_equal(apply_counters(world.apply).rows_written, 4);
}

static void nothing_identity_takes_inserts_only(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int, v text)");
    made_init(&t, serials++, "t", 'n', "id:23 v:25");
    must_open(2);
    for (int i = 0; i < 300; i++)
        INSERT(b, txn, &t, "1", "a");
    push(b);
    must_settle(1);
    assert_string_equal(query("select count(*) from t"), "300");
    b = batch_new();
    DELETE(b, rows_txn(b, 2), &t, "1", "a");
    push(b);
    assert_false(settled(2));
    assert_string_equal(
        world.err.text,
        "transaction 2 committed at 0/C8: deleting from public.t: the table has no replica identity, so its rows can't be found");
}

static void trap_039_names_that_differ_by_case(void **state)
{
    Made a, c;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t1 (id int primary key, \"ID\" int); create table \"T1\" (id int primary key, \"ID\" int); create table \"se\"\"lect\" (\"a b\" int primary key)");
    made_init(&a, serials++, "t1", 'd', "id*:23 ID:23");
    made_init(&c, serials++, "T1", 'd', "id*:23 ID:23");
    must_open(1);
    INSERT(b, txn, &a, "1", "2");
    INSERT(b, txn, &c, "3", "4");
    push(b);
    must_settle(1);
    assert_string_equal(
        query("select (select t1::text from t1) || (select \"T1\"::text from \"T1\")"),
        "(1,2)(3,4)");
}

static void trap_076_rows_that_move_between_partitions(void **state)
{
    Made root, low, high;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table p (id int, v text, primary key (id)) partition by range (id); create table low partition of p for values from (0) to (1000);"
        "create table high partition of p for values from (1000) to (100000); create unique index on high (v)");
    made_init(&root, serials++, "p", 'd', "id*:23 v:25");
    made_init(&low, serials++, "low", 'd', "id*:23 v:25");
    made_init(&high, serials++, "high", 'd', "id*:23 v:25");
    must_open(3);
    for (int i = 1; i <= 200; i++) {
        char id[12];

        snprintf(id, sizeof(id), "%d", i * 10);
        INSERT(b, txn, &root, id, id);
    }
    push(b);
    must_settle(1);
    b = batch_new();
    txn = rows_txn(b, 2);
    for (int i = 1; i <= 20; i++) {
        char id[12];

        snprintf(id, sizeof(id), "%d", i * 10);
        UPDATE(b, txn, &root, NULL, id, "updated");
    }
    UPDATE(b, txn, &root, ROW(b, "210", "\1"), "5000", "moved");
    push(b);
    must_settle(2);
    b = batch_new(); /* the same without publish_via_partition_root: two tables */
    txn = rows_txn(b, 3);
    DELETE(b, txn, &low, "220", "\1");
    INSERT(b, txn, &high, "6000", "moved too");
    push(b);
    must_settle(3);
    assert_string_equal(query("select string_agg(p::text, '' order by id) from p where id > 2000"),
                        "(5000,moved)(6000,\"moved too\")");
    assert_string_equal(
        query("select count(*) || ' ' || count(*) filter (where v = 'updated') from only low"),
        "97 20");
}

static void inheritance_children_are_their_own_tables(void **state)
{
    Made t;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, v text); create table kid (primary key (id)) inherits (t); insert into t values (1, 'a'), (2, 'a'); insert into kid values (1, 'k'), (2, 'k')");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(1);
    UPDATE(b, txn, &t, NULL, "1", "b");
    DELETE(b, txn, &t, "2", "\1");
    push(b);
    must_settle(1);
    b = batch_new();
    truncate_of(b, rows_txn(b, 2), 1, (const Made *const[]){&t});
    push(b);
    must_settle(2);
    assert_string_equal(query("select string_agg(t::text, '' order by id) from t"), "(1,k)(2,k)");
}

/* Types that differ travel as text. */
static void wider_types_on_the_target(void **state)
{
    Made t;

    (void)state;
    sql("create table t (id bigint primary key, n numeric)");
    made_init(&t, serials++, "t", 'd', "id*:23 n:23");
    must_open(2);
    for (int n = 1; n <= 1000; n *= 10) {
        Batch *b = batch_new();
        Txn *txn = rows_txn(b, (uint64_t)n * 2);

        for (int kind = 0; kind < 3; kind++)
            for (int i = 0; i < n; i++) {
                char id[16];

                snprintf(id, sizeof(id), "%d", kind * 1000000 + n * 1000 + i - 500);
                rows_change(b, txn, CHANGE_INSERT, &t, NULL,
                            ROW(b, id,
                                kind == 2 ? NULL
                                : kind    ? "-1"
                                          : "0"));
            }
        push(b);
        must_settle((uint64_t)n * 2);
        b = batch_new();
        txn = rows_txn(b, (uint64_t)n * 2 + 1);
        for (int i = 0; i < n; i++) {
            char id[16];

            snprintf(id, sizeof(id), "%d", n * 1000 + i - 500);
            rows_change(b, txn, CHANGE_UPDATE, &t, NULL, ROW(b, id, "77"));
        }
        push(b);
        must_settle((uint64_t)n * 2 + 1);
    }
    assert_string_equal(
        query(
            "select string_agg(c, ' ') from (select n || ':' || count(*) c from t group by n order by n) s"),
        "-1:1111 77:1111");
    assert_string_equal(query("select count(*) from t where n is null"), "1111");
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void altered_table_within_a_batch(void **state)
{
    Made before_it, after_it;
    Batch *b = batch_new();
    Txn *txn = rows_txn(b, 1);

    (void)state;
    sql("create table t (id int primary key, v text, w text)");
    made_init(&before_it, 100000, "t", 'd', "id*:23 v:25");
    made_init(&after_it, 100001, "t", 'd', "id*:23 v:25 w:25");
    must_open(2);
    INSERT(b, txn, &before_it, "1", "a");
    INSERT(b, txn, &before_it, "2", "a");
    txn = rows_txn(b, 2);
    UPDATE(b, txn, &after_it, NULL, "1", "b", "w");
    DELETE(b, txn, &after_it, "2", "\1", "\1");
    push(b);
    must_settle(2);
    assert_string_equal(query("select string_agg(t::text, '') from t"), "(1,b,w)");
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

/* Nothing is called durable before the server has flushed it (trap 174); the server of these tests
 * does so late. */
static void trap_174_durable_is_flushed(void **state)
{
    Made t;
    uint64_t before_it[201], at = 1;

    (void)state;
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(1);
    for (; at <= 200; at++) {
        Batch *b = batch_new();
        Err err = ERR_INIT;
        uint64_t durable, flushed;

        assert_true(lsn_parse(span_str(query("select pg_current_wal_insert_lsn()::text")),
                              &before_it[at], &err));
        fill(b, rows_txn(b, at), &t, (int)at * 100, (int)at * 100 + 20, CHANGE_INSERT, "x");
        push(b);
        must_settle(at);
        durable = apply_durable_end(world.apply).at / 100;
        assert_true(
            lsn_parse(span_str(query("select pg_current_wal_flush_lsn()::text")), &flushed, &err));
        assert_true(durable == 0 || flushed > before_it[durable]);
    }
}

/* At once: what a program started for it would give the server time to write. */
static void crash_server(const char *data)
{
    char path[600];
    FILE *f;
    int pid = 0;

    snprintf(path, sizeof(path), "%s/postmaster.pid", data);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    fclose(f);
    assert_int_equal(kill(pid, SIGQUIT), 0);
    for (uint64_t until = mono_ms() + 10000; kill(pid, 0) == 0 && mono_ms() < until;)
        usleep(2000);
}

/* A crash of the server loses what wasn't flushed: always a suffix, and at most one batch is there
 * in part. */
static void server_crash_loses_a_suffix(void **state)
{
    const char *data = getenv("KB_TEST_PGDATA"), *bin = getenv("KB_TEST_PGBIN");
    char command[1000];
    Made t;
    uint64_t at = 1;
    int partial = 0, lost = 0;

    (void)state;
    if (!data || !bin)
        return;
    snprintf(command, sizeof(command), "%s%s/pg_ctl -D %s -w -l %s/../log start >/dev/null 2>&1",
             geteuid() == 0 ? "runuser -u postgres -- " : "", bin, data, data);
    sql("create table t (id int primary key, v text)");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    /* Few rows for each lane: COPY's buffers would have the log written early. */
    for (int round = 0; round < 6; round++) {
        ApplyProgress p;
        Position durable, committed;
        Err err = ERR_INIT;

        must_open(3);
        p = apply_progress(world.apply);
        if (p.any)
            at = p.applied.at / 100 + 1;
        if (p.partial) {
            Batch *b = batch_new();

            partial++;
            assert_int_equal(p.first.at, at * 100);
            b->lanes_before = p.lanes;
            fill(b, rows_txn(b, at), &t, (int)at * 1000, (int)at * 1000 + 240, CHANGE_INSERT, "x");
            push(b);
            must_settle(at++);
        }
        for (uint64_t until = mono_ms() + 200;
             mono_ms() < until && !queue_is_closed(apply_queue(world.apply)); at++) {
            Batch *b = batch_new();

            b->lanes_before = 3;
            fill(b, rows_txn(b, at), &t, (int)at * 1000, (int)at * 1000 + 240, CHANGE_INSERT, "x");
            push(b);
        }
        durable = apply_durable_end(world.apply);
        committed = apply_committed_end(world.apply);
        crash_server(data);
        assert_int_equal(system(command), 0);
        shut();
        pg_close(&world.pg);
        if (!pg_open(&world.pg, world.dsn, ERR_TARGET, NULL, &err))
            fail_msg("%s", err.text);
        sql("set search_path = public, pg_catalog");
        must_open(3);
        p = apply_progress(world.apply);
        assert_true(position_compare(p.applied_end, durable) >=
                    0); /* what was called durable is there */
        lost += position_compare(p.applied_end, committed) < 0;
        snprintf(
            command + 500, 400,
            "select coalesce(min(n), 240) || ' ' || count(*) from (select count(*) n from t where id / 1000 <= %d group by id / 1000) s",
            (int)(p.applied.at / 100));
        {
            char want[40];

            snprintf(want, sizeof(want), "240 %d", (int)(p.applied.at / 100));
            assert_string_equal(query(command + 500), want);
        }
        snprintf(command + 500, 400,
                 "select count(distinct id / 1000)::text from t where id / 1000 > %d",
                 (int)(p.applied.at / 100));
        assert_string_equal(query(command + 500), p.partial ? "1" : "0");
        shut();
    }
    print_message("%d crashes lost something, %d left a batch in part\n", lost, partial);
}

/* A check that waits for COMMIT must not fail there, where other lanes have committed already. */
static void deferred_checks_fail_before_the_commits(void **state)
{
    Made t;
    Batch *b = batch_new();

    (void)state;
    sql("create table t (id int primary key, v text); create function no() returns trigger language plpgsql as $$begin if new.v = 'bad' then raise 'refused'; end if; return null; end$$;"
        "create constraint trigger no after insert on t deferrable initially deferred for each row execute function no(); alter table t enable always trigger no");
    made_init(&t, serials++, "t", 'd', "id*:23 v:25");
    must_open(2);
    INSERT(b, rows_txn(b, 1), &t, "1", "good");
    INSERT(b, rows_txn(b, 2), &t, "2", "bad");
    push(b);
    assert_false(settled(2));
    assert_int_equal(world.err.kind, ERR_FAITHFUL);
    assert_false(world.err.transient);
    assert_string_equal(world.err.text,
                        "transaction 2 committed at 0/C8: checking deferred constraints: refused");
    assert_string_equal(query("select string_agg(t::text, '') from t"), "(1,good)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inserts_updates_deletes, before, after),
        cmocka_unit_test_setup_teardown(big_batches_in_binary_over_lanes, before, after),
        cmocka_unit_test_setup_teardown(progress_survives_and_durable_follows, before, after),
        cmocka_unit_test_setup_teardown(second_holder_is_refused, before, after),
        cmocka_unit_test_setup_teardown(every_value_in_every_form, before, after),
        cmocka_unit_test_setup_teardown(trap_047_full_identity_without_a_key, before, after),
        cmocka_unit_test_setup_teardown(trap_041_unchanged_toast, before, after),
        cmocka_unit_test_setup_teardown(trap_042_unchanged_toast_under_full, before, after),
        cmocka_unit_test_setup_teardown(trap_043_absent_is_not_null, before, after),
        cmocka_unit_test_setup_teardown(trap_044_key_out_of_line, before, after),
        cmocka_unit_test_setup_teardown(trap_045_key_change_with_unchanged_toast, before, after),
        cmocka_unit_test_setup_teardown(trap_046_update_of_nothing, before, after),
        cmocka_unit_test_setup_teardown(trap_050_equal_rows, before, after),
        cmocka_unit_test_setup_teardown(trap_051_row_is_missing, before, after),
        cmocka_unit_test_setup_teardown(trap_054_deferrable_unique, before, after),
        cmocka_unit_test_setup_teardown(trap_055_unique_value_moves, before, after),
        cmocka_unit_test_setup_teardown(trap_056_generated_always_identity, before, after),
        cmocka_unit_test_setup_teardown(trap_057_generated_columns, before, after),
        cmocka_unit_test_setup_teardown(trap_074_null_is_not_the_default, before, after),
        cmocka_unit_test_setup_teardown(trap_075_truncate, before, after),
        cmocka_unit_test_setup_teardown(trap_081_always_triggers_fire_once_for_each_row, before,
                                        after),
        cmocka_unit_test_setup_teardown(trap_175_equal_but_not_identical, before, after),
        cmocka_unit_test_setup_teardown(trap_033_missing_table_and_column, before, after),
        cmocka_unit_test_setup_teardown(failed_transaction_stops_after_the_ones_before, before,
                                        after),
        cmocka_unit_test_setup_teardown(skip_failed_buries_it, before, after),
        cmocka_unit_test_setup_teardown(another_writer_of_progress_is_noticed, before, after),
        cmocka_unit_test_setup_teardown(lost_connection_is_transient, before, after),
        cmocka_unit_test_setup_teardown(lanes_that_wait_for_each_other_are_untied, before, after),
        cmocka_unit_test_setup_teardown(big_transaction_in_chunks, before, after),
        cmocka_unit_test_setup_teardown(crash_between_commits_is_completed, before, after),
        cmocka_unit_test_setup_teardown(crash_before_commits_leaves_nothing, before, after),
        cmocka_unit_test_setup_teardown(half_applied_batch_is_replayed_by_lane, before, after),
        cmocka_unit_test_setup_teardown(batch_that_should_be_formed_again_and_isnt, before, after),
        cmocka_unit_test_setup_teardown(full_identity_with_a_key_on_the_target, before, after),
        cmocka_unit_test_setup_teardown(nothing_identity_takes_inserts_only, before, after),
        cmocka_unit_test_setup_teardown(trap_039_names_that_differ_by_case, before, after),
        cmocka_unit_test_setup_teardown(trap_076_rows_that_move_between_partitions, before, after),
        cmocka_unit_test_setup_teardown(inheritance_children_are_their_own_tables, before, after),
        cmocka_unit_test_setup_teardown(wider_types_on_the_target, before, after),
        cmocka_unit_test_setup_teardown(altered_table_within_a_batch, before, after),
        cmocka_unit_test_setup_teardown(trap_174_durable_is_flushed, before, after),
        cmocka_unit_test_setup_teardown(server_crash_loses_a_suffix, before, after),
        cmocka_unit_test_setup_teardown(deferred_checks_fail_before_the_commits, before, after),
    };
    Err err = ERR_INIT;
    int failed;

    world.dsn = getenv("KB_TEST_TARGET");
    if (!world.dsn) {
        fprintf(stderr, "KB_TEST_TARGET isn't set: skipped (run through tests/unit/with_pg.sh)\n");
        return 0;
    }
    if (!stop_init(&world.stop, &err) || !pg_open(&world.pg, world.dsn, ERR_TARGET, NULL, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    sql("set search_path = public, pg_catalog");
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    pg_close(&world.pg);
    stop_fini(&world.stop);
    return failed;
}
