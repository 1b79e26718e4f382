/* keybridge bench drain|lag: how fast keybridge is between two servers, beside PostgreSQL's own
 * subscription. */
#include <libsmartcols.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/cmd/bench_impl.h"
#include "engine/cmd/cmd.h"

#define POLL_MS 5

typedef struct Result {
    const Backlog *backlog;
    unsigned transactions;
    Figures native, keybridge; /* of the fastest drains */
} Result;

/* --- drain -------------------------------------------------------------------------------------
 */

static unsigned size_of(const Stage *stage, const Backlog *backlog)
{
    uint64_t count = backlog->full * stage->conf->bench_scale / 100;

    return count ? (unsigned)count : 1;
}

/* The backlog, and the position behind it. */
static bool load(Stage *stage, const Backlog *backlog, Buf *until, Err *err)
{
    PgOptions options = {.application = "keybridge bench", .stop = stage->stop};
    char call[64];
    AUTO_PG pg = {0};

    snprintf(call, sizeof(call), "call load(%u)", size_of(stage, backlog));
    return pg_open(&pg, stage->source_dsn, ERR_SOURCE, &options, err) &&
           pg_exec(&pg, "set search_path = public", err) &&
           pg_exec(&pg, "set synchronous_commit = off", err) && pg_exec(&pg, call, err) &&
           pg_exec(&pg, "set synchronous_commit = on", err) &&
           pg_exec(&pg, "insert into bench_end values (1)", err) &&
           pg_exec(&pg, "checkpoint", err) &&
           pg_value(&pg, until, err, "select pg_current_wal_flush_lsn()", 0, NULL);
}

static bool wait_for_end(Native *native, const Stop *stop, Err *err)
{
    for (;;) {
        AUTO_RESULT res = pg_rows(&native->pg, err, "select 1 from public.bench_end");

        if (!res)
            return false;
        if (PQntuples(res))
            return true;
        if (stop_wait(stop, POLL_MS))
            return stop_fail(err, "draining");
    }
}

static bool drain_native(Stage *stage, const char *slot, Figures *figures, Err *err)
{
    Native native;
    bool ok;

    if (!native_make(&native, stage, slot, err)) {
        pg_close(&native.pg);
        return false;
    }
    meter_start(stage, figures);
    ok = native_start(&native, err) && wait_for_end(&native, stage->stop, err);
    meter_stop(stage, figures);
    if (!ok) {
        pg_close(&native.pg);
        return false;
    }
    return native_end(&native, err);
}

static bool drain_keybridge(Stage *stage, const char *slot, const char *until, Figures *figures,
                            Err *err)
{
    Child child;

    meter_start(stage, figures);
    if (!child_start(&child, stage, slot, until, err) ||
        !child_wait(&child, stage, false, figures, err))
        return false;
    meter_stop(stage, figures);
    return true;
}

static bool drain_once(Stage *stage, bool native, const char *slot, const char *until,
                       Figures *best, Err *err)
{
    Figures figures = {0};

    if (!stage_fresh_copy(stage, err) ||
        !(native ? drain_native(stage, slot, &figures, err)
                 : drain_keybridge(stage, slot, until, &figures, err)) ||
        !stage_compare(stage, err) || !stage_drop_slot(stage, slot, err))
        return false;
    log_info("drained", F_STR("with", native ? "native" : "keybridge"),
             F_MS("took_ms", figures.seconds * 1000));
    if (best->seconds == 0 || figures.seconds < best->seconds)
        *best = figures;
    return true;
}

static bool drain_backlog(Stage *stage, Result *result, Err *err)
{
    unsigned runs = 2 * (unsigned)stage->conf->bench_repeat;
    char slots[2 * 20][64];
    AUTO_BUF until;

    buf_init(&until, 64);
    result->transactions = result->backlog->alone ? 1 : size_of(stage, result->backlog);
    log_info("making a backlog", F_STR("name", result->backlog->name),
             F_U64("transactions", result->transactions));
    if (!stage_make(stage, result->backlog->setup, err))
        return false;
    for (unsigned i = 0; i < runs; i++)
        if (!stage_slot(stage, slots[i], err))
            return false;
    if (!load(stage, result->backlog, &until, err))
        return false;
    for (unsigned i = 0; i < runs; i++)
        if (!drain_once(stage, i % 2 == 0, slots[i], buf_str(&until),
                        i % 2 == 0 ? &result->native : &result->keybridge, err))
            return false;
    return stage_drop(stage, err);
}

static void put_figures_json(Buf *out, const Figures *f)
{
    buf_printf(out, "{\"seconds\":%.3f", f->seconds);
    if (f->source_cpu >= 0)
        buf_printf(out, ",\"source_cpu\":%.2f", f->source_cpu);
    if (f->target_cpu >= 0)
        buf_printf(out, ",\"target_cpu\":%.2f", f->target_cpu);
    if (f->own_cpu > 0)
        buf_printf(out, ",\"own_cpu\":%.2f,\"rss_mib\":%.0f", f->own_cpu, f->rss_mib);
    buf_putc(out, '}');
}

static void put_result_json(Buf *out, const Result *r)
{
    buf_printf(out, "%s{\"backlog\":\"%s\",\"what\":\"%s\",\"transactions\":%u,\"native\":",
               out->len > 1 ? ",\n" : "", r->backlog->name, r->backlog->what, r->transactions);
    put_figures_json(out, &r->native);
    buf_puts(out, ",\"keybridge\":");
    put_figures_json(out, &r->keybridge);
    buf_printf(out, ",\"ratio\":%.3f,\"must\":%.2f}", r->keybridge.seconds / r->native.seconds,
               r->backlog->must);
}

static void set_number(struct libscols_line *line, size_t column, const char *format, double value)
{
    char text[32];

    snprintf(text, sizeof(text), "%.2f", value);
    if (*format == '0')
        snprintf(text, sizeof(text), "%.0f", value);
    scols_line_set_data(line, column, value < 0 ? "" : text);
}

static struct libscols_table *table_of(const char *const *columns, size_t count)
{
    struct libscols_table *table = scols_new_table();

    for (size_t i = 0; i < count; i++)
        scols_table_new_column(table, columns[i], 0, i ? SCOLS_FL_RIGHT : 0);
    return table;
}

static void print_drains(const Result *results, size_t count)
{
    static const char *const columns[] = {"DRAIN",  "TRANSACTIONS", "NATIVE S", "SOURCE",
                                          "TARGET", "BRIDGE S",     "SOURCE",   "TARGET",
                                          "OWN",    "MIB",          "RATIO",    "MUST"};
    struct libscols_table *table = table_of(columns, ARRAY_LEN(columns));

    for (size_t i = 0; i < count; i++) {
        const Result *r = &results[i];
        struct libscols_line *line = scols_table_new_line(table, NULL);
        const double numbers[] = {r->transactions,         r->native.seconds,
                                  r->native.source_cpu,    r->native.target_cpu,
                                  r->keybridge.seconds,    r->keybridge.source_cpu,
                                  r->keybridge.target_cpu, r->keybridge.own_cpu,
                                  r->keybridge.rss_mib,    r->keybridge.seconds / r->native.seconds,
                                  r->backlog->must};

        scols_line_set_data(line, 0, r->backlog->name);
        for (size_t n = 0; n < ARRAY_LEN(numbers); n++)
            set_number(line, n + 1, n == 0 || n == 8 ? "0" : "2", numbers[n]);
    }
    scols_print_table(table);
    scols_unref_table(table);
    printf("source, target, own: CPU seconds, where the servers run on this host\n");
}

static bool is_wanted(const Conf *conf, const Backlog *backlog)
{
    const char *name = backlog->name;
    size_t len = strlen(name);

    for (const char *at = conf->bench_only; at && *at;) {
        size_t part = strcspn(at, ",");

        if (part == len && memcmp(at, name, len) == 0)
            return true;
        at += part + (at[part] == ',');
    }
    return !conf->bench_only && !backlog->alone;
}

static bool run_drain(Stage *stage, Err *err)
{
    Result *results = arena_array(&stage->arena, Result, bench_backlog_count);
    size_t count = 0;
    AUTO_BUF json;

    buf_init(&json, MIB(1));
    for (size_t i = 0; i < bench_backlog_count; i++) {
        if (!is_wanted(stage->conf, &bench_backlogs[i]))
            continue;
        results[count].backlog = &bench_backlogs[i];
        if (!drain_backlog(stage, &results[count], err))
            return err_context(err, "backlog %s", bench_backlogs[i].name);
        count++;
    }
    if (count == 0)
        return err_fail(err, ERR_USAGE,
                        "--only names no backlog: tpcb, insert, bulk, wide, many, huge");
    if (!stage->conf->json) {
        print_drains(results, count);
        return true;
    }
    buf_putc(&json, '[');
    for (size_t i = 0; i < count; i++)
        put_result_json(&json, &results[i]);
    if (!buf_ok(&json, "the result", err))
        return false;
    printf("%s]\n", buf_str(&json));
    return true;
}

/* --- lag ---------------------------------------------------------------------------------------
 */

typedef struct LagResult {
    const char *name;
    Lag lag;
    Figures figures;
} LagResult;

static bool wait_for_stream(Stage *stage, const char *slot, Err *err)
{
    for (uint64_t deadline = mono_ms() + 30000; mono_ms() < deadline;) {
        AUTO_RESULT res = pg_rows(&stage->source, err,
                                  "select 1 from pg_catalog.pg_replication_slots s"
                                  " join pg_catalog.pg_stat_replication r on r.pid = s.active_pid"
                                  " where s.slot_name = $1 and r.state = 'streaming'",
                                  slot);

        if (!res)
            return false;
        if (PQntuples(res))
            return true;
        if (stop_wait(stage->stop, POLL_MS))
            return stop_fail(err, "waiting for the stream");
    }
    return err_fail(err, ERR_TIMEOUT, "the stream doesn't run after 30 s");
}

static bool measure(Stage *stage, const char *slot, LagResult *result, Err *err)
{
    if (!wait_for_stream(stage, slot, err))
        return false;
    meter_start(stage, &result->figures);
    if (!lag_measure(stage, &result->lag, err))
        return false;
    meter_stop(stage, &result->figures);
    return true;
}

static bool lag_native(Stage *stage, const char *slot, LagResult *result, Err *err)
{
    Native native;
    bool ok = native_make(&native, stage, slot, err) && native_start(&native, err) &&
              measure(stage, slot, result, err);

    if (ok)
        return native_end(&native, err);
    pg_close(&native.pg);
    return false;
}

static bool lag_keybridge(Stage *stage, const char *slot, LagResult *result, Err *err)
{
    Err later = ERR_INIT;
    Child child;
    bool ok;

    if (!child_start(&child, stage, slot, NULL, err))
        return false;
    ok = measure(stage, slot, result, err);
    child_end(&child);
    return child_wait(&child, stage, true, &result->figures, ok ? err : &later) && ok;
}

static bool lag_once(Stage *stage, bool native, LagResult *result, Err *err)
{
    char slot[64];

    result->name = native ? "native" : "keybridge";
    log_info("measuring lag", F_STR("with", result->name));
    return stage_make(stage, bench_lag_setup, err) && stage_fresh_copy(stage, err) &&
           stage_slot(stage, slot, err) &&
           (native ? lag_native(stage, slot, result, err)
                   : lag_keybridge(stage, slot, result, err)) &&
           stage_compare(stage, err) && stage_drop(stage, err);
}

static const double percents[] = {50, 90, 99, 99.9, 100};

static void print_lags(const Stage *stage, const LagResult *results)
{
    static const char *const columns[] = {"LAG, MS", "P50",    "P90",    "P99", "P99.9",
                                          "MAX",     "SOURCE", "TARGET", "OWN"};
    struct libscols_table *table = table_of(columns, ARRAY_LEN(columns));

    for (size_t i = 0; i < 2; i++) {
        const LagResult *r = &results[i];
        struct libscols_line *line = scols_table_new_line(table, NULL);

        scols_line_set_data(line, 0, r->name);
        for (size_t n = 0; n < ARRAY_LEN(percents); n++)
            set_number(line, n + 1, "2",
                       (double)histogram_percentile(&r->lag.seen, percents[n]) / 1000);
        set_number(line, 6, "2", r->figures.source_cpu);
        set_number(line, 7, "2", r->figures.target_cpu);
        set_number(line, 8, "2", i ? r->figures.own_cpu : -1);
    }
    scols_print_table(table);
    scols_unref_table(table);
    printf("%" PRIu64 " transactions a second for %" PRIu64
           " s; source, target, own: CPU seconds, where the servers run on this host\n",
           (uint64_t)stage->conf->bench_rate, (uint64_t)stage->conf->bench_seconds);
}

static bool print_lags_json(const Stage *stage, const LagResult *results, Err *err)
{
    static const char *const names[] = {"p50", "p90", "p99", "p999", "max"};
    AUTO_BUF out;

    buf_init(&out, KIB(16));
    buf_printf(&out, "{\"rate\":%" PRIu64, (uint64_t)stage->conf->bench_rate);
    for (size_t i = 0; i < 2; i++) {
        const LagResult *r = &results[i];

        buf_printf(&out, ",\"%s\":{\"count\":%" PRIu64, r->name, r->lag.seen.count);
        for (size_t n = 0; n < ARRAY_LEN(percents); n++)
            buf_printf(&out, ",\"%s_us\":%" PRIu64, names[n],
                       histogram_percentile(&r->lag.seen, percents[n]));
        buf_printf(&out, ",\"writer_late_us\":%" PRIu64 ",\"used\":", r->lag.writer_late_us);
        put_figures_json(&out, &r->figures);
        buf_putc(&out, '}');
    }
    buf_puts(&out, "}\n");
    if (!buf_ok(&out, "the result", err))
        return false;
    fputs(buf_str(&out), stdout);
    return true;
}

static bool run_lag(Stage *stage, Err *err)
{
    LagResult *results = arena_array(&stage->arena, LagResult, 2);

    for (unsigned i = 0; i < 2; i++)
        if (!lag_once(stage, i == 0, &results[i], err))
            return false;
    if (stage->conf->json)
        return print_lags_json(stage, results, err);
    print_lags(stage, results);
    return true;
}

static bool run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    bool drain = argc == 2 && strcmp(argv[1], "drain") == 0;
    Stage stage;
    bool ok;

    if (argc != 2 || (!drain && strcmp(argv[1], "lag") != 0))
        return command_misused(&cmd_bench, err);
    ok = stage_open(&stage, conf, stop, err) &&
         (drain ? run_drain(&stage, err) : run_lag(&stage, err));
    stage_close(&stage);
    return ok;
}

const Command cmd_bench = {
    .name = "bench",
    .summary = "measure keybridge beside PostgreSQL's own subscription",
    .operands = "drain|lag",
    .about =
        "Both connections must be of users who may make databases, publications, slots and subscriptions; the target must reach "
        "the source under the same connection string. Everything is made in databases keybridge_bench and keybridge_bench_copy, which "
        "must not exist, and is removed at the end. Not for servers that are in use.\n"
        "drain makes backlogs on the source and works them off by turns with a subscription (binary, streaming) and with keybridge, "
        "which counts from the start of its process until it has ended with everything on the target's disk; the content is "
        "compared after each.\n"
        "lag writes at a fixed rate and measures from the answer to a commit on the source until the target shows it.",
    .sections = "source target tls apply.lanes bench",
    .examples =
        "keybridge bench drain --source postgres://one/postgres --target postgres://two/postgres\n"
        "keybridge bench drain --only tpcb,bulk --scale 10 --repeat 3 --json\n"
        "keybridge bench lag --rate 1000 --seconds 20",
    .run = run,
};
