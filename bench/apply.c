/* Batches from memory into a real server: what the writing half can do by itself.
 *
 *   tests/unit/with_pg.sh build/release/bin/apply [tpcb|insert|many|lag] [TRANSACTIONS]
 * [IN-A-BATCH] [LANES]
 *
 * tpcb: pgbench's transaction (three updates, one insert), 100,000 accounts, 10 tellers a branch,
 * SCALE branches. insert: one row of ten columns. many: 50 tables with a further unique key, one
 * insert or update each. lag: tpcb, one transaction a batch, one a millisecond: from handing it
 * over to its commit. CPU seconds: of this process, and of the server's sessions that write.
 */
#include "engine/base/base.h"

#include <sys/resource.h>
#include <unistd.h>

#include "appliers/postgres/pg.h"
#include "engine/base/mono.h"
#include "engine/stream/apply.h"
#include "tests/unit/rows.h"

static Made accounts, tellers, branches, history, wide, many[50];
static char many_names[50][16];
static uint64_t seed = 42;
static int32_t serial = 1;
#define SCALE 5

static uint32_t rnd(uint32_t most)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % most;
}

static void update3(Batch *b, Txn *txn, const Made *t, int32_t id, int32_t branch,
                    const char *filler)
{
    Value *row = arena_array(&b->arena, Value, 4);

    row[0] = rows_int4(b, id);
    row[1] = rows_int4(b, branch);
    row[2] = rows_int4(b, (int32_t)rnd(10000));
    row[3] = rows_bytes(b, filler);
    rows_change(b, txn, CHANGE_UPDATE, t, NULL, row);
}

static Value int8_of(Batch *b, int64_t n)
{
    uint8_t *at = arena_alloc(&b->arena, 8);

    for (int i = 0; i < 8; i++)
        at[i] = (uint8_t)((uint64_t)n >> (56 - 8 * i));
    return (Value){at, 8, VALUE_BINARY};
}

static void make_tpcb(Batch *b, Txn *txn)
{
    static const char spaces[] =
        "                                                                                    ";
    int32_t aid = (int32_t)rnd(100000 * SCALE) + 1, tid = (int32_t)rnd(10 * SCALE) + 1,
            bid = (int32_t)rnd(SCALE) + 1;
    Value *row = arena_array(&b->arena, Value, 6);

    update3(b, txn, &accounts, aid, (aid - 1) / 100000 + 1, spaces);
    update3(b, txn, &tellers, tid, (tid - 1) / 10 + 1, spaces);
    row[0] = rows_int4(b, bid);
    row[1] = rows_int4(b, (int32_t)rnd(10000));
    row[2] = (Value){.kind = VALUE_NULL};
    rows_change(b, txn, CHANGE_UPDATE, &branches, NULL, row);
    row = arena_array(&b->arena, Value, 6);
    row[0] = rows_int4(b, tid);
    row[1] = rows_int4(b, bid);
    row[2] = rows_int4(b, aid);
    row[3] = rows_int4(b, 5);
    row[4] = int8_of(b, 700000000000000 + serial++);
    row[5] = (Value){.kind = VALUE_NULL};
    rows_change(b, txn, CHANGE_INSERT, &history, NULL, row);
}

static void make_insert(Batch *b, Txn *txn)
{
    Value *row = arena_array(&b->arena, Value, 10);

    row[0] = int8_of(b, serial++);
    for (unsigned i = 1; i < 5; i++)
        row[i] = rows_int4(b, (int32_t)rnd(1000000));
    for (unsigned i = 5; i < 8; i++)
        row[i] = rows_bytes(b, "a text of some thirty bytes...");
    row[8] = int8_of(b, 700000000000000 + serial);
    row[9] = (Value){.kind = VALUE_NULL};
    rows_change(b, txn, CHANGE_INSERT, &wide, NULL, row);
}

static void make_many(Batch *b, Txn *txn)
{
    static int32_t next[50];
    uint32_t t = rnd(50);
    Value *row = arena_array(&b->arena, Value, 3);
    bool update = next[t] > 10 && rnd(2);
    int32_t id = update ? (int32_t)rnd((uint32_t)next[t]) : next[t]++;

    row[0] = rows_int4(b, id);
    row[1] = rows_int4(b, id + 1000000);
    row[2] = rows_bytes(b, "something");
    rows_change(b, txn, update ? CHANGE_UPDATE : CHANGE_INSERT, &many[t], NULL, row);
}

static void must(bool ok, const Err *err)
{
    if (ok)
        return;
    fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static void make_tables(Pg *pg)
{
    Err err = ERR_INIT;
    char sql[400];

    must(
        pg_exec(
            pg,
            "set search_path = public, pg_catalog; drop schema if exists keybridge cascade; drop schema public cascade;"
            "create schema public;"
            "create table pgbench_accounts (aid int primary key, bid int, abalance int, filler char(84)) with (fillfactor=90);"
            "create table pgbench_tellers (tid int primary key, bid int, tbalance int, filler char(84));"
            "create table pgbench_branches (bid int primary key, bbalance int, filler char(88));"
            "create table pgbench_history (tid int, bid int, aid int, delta int, mtime timestamp, filler char(22));"
            "create table wide (id bigint primary key, a int, b int, c int, d int, e text, f text, g text, h timestamp, i text)",
            &err),
        &err);
    snprintf(
        sql, sizeof(sql),
        "insert into pgbench_accounts select g, (g - 1) / 100000 + 1, 0, '' from generate_series(1, %d) g;"
        "insert into pgbench_tellers select g, (g - 1) / 10 + 1, 0, '' from generate_series(1, %d) g;"
        "insert into pgbench_branches select g, 0, '' from generate_series(1, %d) g",
        100000 * SCALE, 10 * SCALE, SCALE);
    must(pg_exec(pg, sql, &err), &err);
    for (unsigned i = 0; i < 50; i++) {
        snprintf(sql, sizeof(sql),
                 "create table many%u (id int primary key, code int not null unique, v text)", i);
        must(pg_exec(pg, sql, &err), &err);
        snprintf(many_names[i], sizeof(many_names[i]), "many%u", i);
        made_init(&many[i], 20 + i, many_names[i], 'd', "id*:23 code:23 v:25");
    }
    must(pg_exec(pg, "vacuum analyze; checkpoint", &err) ||
             (err_clear(&err), pg_exec(pg, "vacuum analyze", &err)),
         &err);
    made_init(&accounts, 1, "pgbench_accounts", 'd', "aid*:23 bid:23 abalance:23 filler:1042");
    made_init(&tellers, 2, "pgbench_tellers", 'd', "tid*:23 bid:23 tbalance:23 filler:1042");
    made_init(&branches, 3, "pgbench_branches", 'd', "bid*:23 bbalance:23 filler:1042");
    made_init(&history, 4, "pgbench_history", 'n',
              "tid:23 bid:23 aid:23 delta:23 mtime:1114 filler:1042");
    made_init(&wide, 5, "wide", 'd', "id*:20 a:23 b:23 c:23 d:23 e:25 f:25 g:25 h:1114 i:25");
}

static double server_cpu(Pg *pg, double *control)
{
    Err err = ERR_INIT;
    PGresult *res = pg_rows(pg, &err,
                            "select pid, application_name like '%control' from pg_stat_activity"
                            " where application_name like 'keybridge bench %'");
    double total = 0;

    must(res != NULL, &err);
    for (int i = 0; i < PQntuples(res); i++) {
        char path[64], line[1024];
        FILE *f;
        unsigned long user = 0, sys = 0;

        snprintf(path, sizeof(path), "/proc/%s/stat", PQgetvalue(res, i, 0));
        f = fopen(path, "r");
        if (f && fgets(line, sizeof(line), f))
            sscanf(strrchr(line, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
                   &user, &sys);
        if (f)
            fclose(f);
        if (*PQgetvalue(res, i, 1) == 't')
            *control = (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
        else
            total += (double)(user + sys) / (double)sysconf(_SC_CLK_TCK);
    }
    PQclear(res);
    return total;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return (x > y) - (x < y);
}

static void lag(Apply *apply, unsigned long txns)
{
    uint32_t *us = calloc(txns + 1, sizeof(*us));
    uint64_t begun = mono_us();

    for (unsigned long n = 0; us && n < txns; n++) {
        Batch *b = batch_new();
        Err err = ERR_INIT;
        uint64_t start;

        make_tpcb(b, rows_txn(b, n + 1));
        while (mono_us() < begun + n * 1000)
            usleep(50);
        start = mono_us();
        if (!queue_push(apply_queue(apply), b))
            batch_free(b);
        while (apply_committed_end(apply).at < (n + 1) * 100 + 50) {
            apply_error(apply, &err);
            must(!err_is_set(&err), &err);
            usleep(10);
        }
        us[n] = (uint32_t)(mono_us() - start);
    }
    qsort(us, txns, sizeof(*us), by_value);
    printf("lag: %lu transactions, ms: p50 %.3f, p99 %.3f, most %.3f\n", txns, us[txns / 2] / 1e3,
           us[txns * 99 / 100] / 1e3, us[txns - 1] / 1e3);
    free(us);
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "tpcb";
    unsigned long txns = argc > 2 ? strtoul(argv[2], NULL, 10) : 100000,
                  each = argc > 3 ? strtoul(argv[3], NULL, 10) : 1000;
    ApplyConf conf = {.target_dsn = getenv("KB_TEST_TARGET"),
                      .stream = "bench",
                      .queue_batches = 2000,
                      .lanes = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 2};
    Stop stop;
    Err err = ERR_INIT;
    Pg pg;
    Apply *apply;
    Batch **batches;
    size_t count = (txns + each - 1) / each, rows = 0;
    uint64_t at = 1, start, us;
    struct rusage before, after;
    double cpu, server, control = 0;

    must(stop_init(&stop, &err) && pg_open(&pg, conf.target_dsn, ERR_TARGET, NULL, &err), &err);
    make_tables(&pg);
    if (strcmp(what, "lag") == 0) {
        apply = apply_open(&conf, &stop, &err);
        must(apply != NULL, &err);
        lag(apply, txns);
        apply_close(apply);
        return 0;
    }
    batches = calloc(count, sizeof(Batch *));
    conf.queue_batches = count + 1;
    for (size_t i = 0; batches && i < count; i++) {
        batches[i] = batch_new();
        for (unsigned long n = 0; n < each && at <= txns; n++) {
            Txn *txn = rows_txn(batches[i], at++);

            if (strcmp(what, "tpcb") == 0)
                make_tpcb(batches[i], txn);
            else if (strcmp(what, "many") == 0)
                make_many(batches[i], txn);
            else
                make_insert(batches[i], txn);
        }
        rows += batches[i]->change_count;
    }
    apply = apply_open(&conf, &stop, &err);
    must(apply != NULL, &err);
    getrusage(RUSAGE_SELF, &before);
    start = mono_us();
    for (size_t i = 0; batches && i < count; i++)
        if (!queue_push(apply_queue(apply), batches[i]))
            batch_free(batches[i]);
    while (apply_committed_end(apply).at < txns * 100 + 50) {
        apply_error(apply, &err);
        must(!err_is_set(&err), &err);
        usleep(1000);
    }
    us = mono_us() - start;
    getrusage(RUSAGE_SELF, &after);
    server = server_cpu(&pg, &control);
    cpu = (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec -
                   before.ru_stime.tv_sec) +
          (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec -
                   before.ru_stime.tv_usec) /
              1e6;
    printf("%s: %lu transactions, %zu rows, %lu a batch, %u lanes: %.3f s, %.0f thousand rows/s, "
           "us a row: %.2f here, %.2f target; %.2f s control; written %" PRIu64 ", replays %" PRIu64
           "\n",
           what, txns, rows, each, conf.lanes, (double)us / 1e6, (double)rows * 1e3 / (double)us,
           cpu * 1e6 / (double)rows, server * 1e6 / (double)rows, control,
           apply_counters(apply).rows_written, apply_counters(apply).replays);
    apply_close(apply);
    pg_close(&pg);
    free(batches);
    return 0;
}
