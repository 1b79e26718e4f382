/* The writing half against a real PostgreSQL server: run it through tests/unit/with_pg.sh. */
#include "engine/base/base.h"

#include <setjmp.h>
#include <cmocka.h>
#include <unistd.h>

#include "appliers/postgres/pg.h"
#include "engine/base/mono.h"
#include "engine/stream/apply.h"
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

static void sql(const char *text)
{
    Err err = ERR_INIT;

    if (!pg_exec(&world.pg, text, &err))
        fail_msg("%s: %s", text, err.text);
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
    ApplyConf conf = {.target_dsn = world.dsn, .stream = "test", .lanes = lanes, .queue_batches = 4, .skip_failed = skip};

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
    assert_string_equal(query("select string_agg(t::text, ';' order by id) from t"), "(1,uno,1.5000);(2,\"\",)");
    b = batch_new();
    txn = rows_txn(b, world.at++);
    UPDATE(b, txn, &t, NULL, "1", "eins", "7");
    DELETE(b, txn, &t, "2", "\1", "\1");
    INSERT(b, txn, &t, "2", "zwei", "2");
    push(b);
    must_settle(3);
    assert_string_equal(query("select string_agg(t::text, ';' order by id) from t"), "(1,eins,7);(2,zwei,2)");
    assert_int_equal(apply_counters(world.apply).transactions, 3);
    assert_int_equal(apply_counters(world.apply).replays, 0);
}

static void fill(Batch *b, Txn *txn, const Made *t, int from, int to, ChangeKind kind, const char *v)
{
    for (int i = from; i < to; i++) {
        Value *row = arena_array(&b->arena, Value, 2);

        row[0] = rows_int4(b, i);
        row[1] = rows_bytes(b, v);
        if (kind == CHANGE_DELETE)
            row[1].kind = VALUE_ABSENT;
        rows_change(b, txn, kind, t, kind == CHANGE_DELETE ? row : NULL, kind == CHANGE_DELETE ? NULL : row);
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
    assert_string_equal(query("select count(*) || ' ' || sum(id) || ' ' || string_agg(distinct v, ',') from t"),
                        "10000 99995000 a,b");
    assert_string_equal(query("select string_agg(lane || ':' || last_commit || ':' || lanes, ' ' order by lane) from keybridge.progress"),
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
    assert_string_equal(world.err.text, "stream test started at 0/1234 and can't start at 0/1235 now");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inserts_updates_deletes, before, after),
        cmocka_unit_test_setup_teardown(big_batches_in_binary_over_lanes, before, after),
        cmocka_unit_test_setup_teardown(progress_survives_and_durable_follows, before, after),
        cmocka_unit_test_setup_teardown(second_holder_is_refused, before, after),
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
