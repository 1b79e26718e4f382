/* keybridge verify: engine/check/verify for people and scripts. */
#include <libsmartcols.h>
#include <unistd.h>

#include "engine/base/log.h"
#include "engine/base/mono.h"
#include "engine/check/databases.h"
#include "engine/check/drift.h"
#include "engine/check/verify.h"
#include "engine/cmd/cmd.h"

static const char *phase_text(VerifyPhase phase)
{
    static const char *const texts[] = {
        [VERIFY_HOLDING] = "waiting for the stream to hold",
        [VERIFY_SNAPSHOT] = "waiting for a snapshot of the source",
        [VERIFY_REACHING] = "waiting for the stream to reach the snapshot's position",
        [VERIFY_HASHING] = "comparing",
        [VERIFY_NARROWING] = "looking for the rows that differ",
    };

    return texts[phase];
}

/* A live line on a terminal; elsewhere a log line every ten seconds. */
static void on_progress(void *arg, const VerifyProgress *p)
{
    uint64_t *logged_us = arg;
    double percent = p->pages ? 100.0 * (double)p->pages_done / (double)p->pages : 0;
    char line[300];

    snprintf(line, sizeof(line),
             "%s: %s, %zu of %zu tables, %.0f %%, %" PRIu64 " rows, %" PRIu64 " s", p->database,
             phase_text(p->phase), p->tables_done, p->tables, percent, p->rows_done,
             p->elapsed_us / 1000000);
    if (p->left_us)
        snprintf(line + strlen(line), sizeof(line) - strlen(line), ", about %" PRIu64 " s left",
                 p->left_us / 1000000 + 1);
    log_progress(line);
    if (!isatty(STDERR_FILENO) && mono_us() - *logged_us > 10000000) {
        *logged_us = mono_us();
        log_info("verifying", F_STR("database", p->database), F_STR("phase", phase_text(p->phase)),
                 F_U64("tables_done", p->tables_done), F_U64("tables", p->tables),
                 F_U64("rows", p->rows_done), F_U64("left_s", p->left_us / 1000000));
    }
}

static void set_cell(struct libscols_line *line, size_t column, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void set_cell(struct libscols_line *line, size_t column, const char *fmt, ...)
{
    char text[256];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    scols_line_set_data(line, column, text);
}

static void print_tables(const VerifyResult *r)
{
    struct libscols_table *table = scols_new_table();

    scols_table_enable_noheadings(table, 0);
    scols_table_new_column(table, "TABLE", 0, 0);
    scols_table_new_column(table, "ROWS SOURCE", 0, SCOLS_FL_RIGHT);
    scols_table_new_column(table, "ROWS TARGET", 0, SCOLS_FL_RIGHT);
    scols_table_new_column(table, "HASH SOURCE", 0, 0);
    scols_table_new_column(table, "HASH TARGET", 0, 0);
    scols_table_new_column(table, "VERDICT", 0, 0);
    for (size_t i = 0; i < r->table_count; i++) {
        const VerifyTable *t = &r->tables[i];
        struct libscols_line *line = scols_table_new_line(table, NULL);
        bool read = *t->source_hash != '\0';

        set_cell(line, 0, "%s.%s", t->schema, t->name);
        if (read) {
            set_cell(line, 1, "%" PRIu64, t->source_rows);
            set_cell(line, 2, "%" PRIu64, t->target_rows);
            /* The first half tells as much to the eye; --json has all of it. */
            set_cell(line, 3, "%.16s", t->source_hash);
            set_cell(line, 4, "%.16s", t->target_hash);
        }
        set_cell(line, 5, "%s%s", verify_verdict_name(t->verdict),
                 t->keyless && t->verdict == VERIFY_EQUAL ? ", no key" : "");
    }
    scols_print_table(table);
    scols_unref_table(table);
}

static void print_row(const VerifyRow *row)
{
    static const char *const kinds[] = {
        [ROW_MISSING] = "missing", [ROW_EXTRA] = "extra", [ROW_CHANGED] = "changed"};

    printf("  %-7s %s", kinds[row->kind], row->key);
    if (row->copies != 1)
        printf(" (%" PRIu64 " copies)", row->copies);
    if (row->columns)
        printf(": %s", row->columns);
    printf("\n");
    if (row->source)
        printf("          source: %s\n", row->source);
    if (row->target)
        printf("          target: %s\n", row->target);
}

static void print_differences(const VerifyResult *r)
{
    for (size_t i = 0; i < r->table_count; i++) {
        const VerifyTable *t = &r->tables[i];

        if (t->verdict == VERIFY_DIFFERENT) {
            const char *least = t->at_least ? "at least " : "";
            uint64_t listed = 0;

            printf("\n%s.%s: %s%" PRIu64 " missing on the target, %s%" PRIu64
                   " only there, %s%" PRIu64 " changed\n",
                   t->schema, t->name, least, t->missing, least, t->extra, least, t->changed);
            for (size_t k = 0; k < t->row_count; k++) {
                print_row(&t->rows[k]);
                listed += t->rows[k].copies;
            }
            if (listed && listed < t->missing + t->extra + t->changed)
                printf("  … (--verify-report-rows lists more)\n");
        }
        if (err_is_set(&t->error))
            printf("\n%s.%s: %s\n", t->schema, t->name, t->error.text);
    }
}

static void print_drift(const VerifyResult *r)
{
    for (size_t i = 0; i < r->drift.count; i++) {
        const TableDrift *d = &r->drift.items[i];

        printf("%s: %s%s%s%s%s%s%s%s%s\n", table_drift_name(d->kind), d->schema,
               *d->schema ? "." : "", d->table, d->column ? "." : "", d->column ? d->column : "",
               d->source ? " source: " : "", d->source ? d->source : "",
               d->target ? " target: " : "", d->target ? d->target : "");
    }
}

static void print_result(const VerifyResult *r)
{
    char position[POSITION_TEXT];

    printf("database %s: %s", r->database, verify_equal(r) ? "equal" : "DIFFERENT");
    if (!position_is_none(r->position))
        printf(" at %s", position_text(r->position, position));
    printf("\n%s\n", r->note);
    if (r->how == VERIFY_AT_POSITION)
        printf("the stream stood still for %.1f ms\n", (double)r->pause_us / 1000);
    printf("\n");
    print_tables(r);
    print_drift(r);
    print_differences(r);
    for (size_t i = 0; i < r->left_out_count; i++)
        printf("left out: %s.%s (%s)\n", r->left_out[i].schema, r->left_out[i].name,
               r->left_out[i].why);
    printf("%" PRIu64 " rows in %.1f s\n\n", r->rows, (double)r->total_us / 1e6);
}

typedef struct Verdict {
    size_t different;
    size_t tables;
    size_t definitions; /* that differ */
    Err unread;         /* the first table that couldn't be read */
} Verdict;

static void add_verdict(Verdict *all, const VerifyResult *r)
{
    all->tables += r->table_count;
    all->different += r->different;
    if (!r->different && !r->errors && r->drift.count)
        all->different++;
    for (size_t i = 0; i < r->table_count; i++)
        if (r->tables[i].verdict == VERIFY_ERROR && !err_is_set(&all->unread))
            all->unread = r->tables[i].error;
}

static bool verify_one(const Conf *conf, const char *database, const Stop *stop, Buf *json,
                       Verdict *all, Err *err)
{
    VerifyResult result;
    uint64_t logged_us = mono_us();
    VerifyConf what = {.database = database,
                       .source_dsn = conf->source,
                       .target_dsn = conf->target,
                       .stream = conf->slot,
                       .or_as_is = true,
                       .tables = conf->verify_tables,
                       .workers = (unsigned)conf->verify_workers,
                       .chunk_rows = conf->verify_chunk,
                       .report_rows = (unsigned)conf->verify_report,
                       .show_values = conf->verify_values,
                       .progress = on_progress,
                       .arg = &logged_us,
                       .stop = stop};
    bool ok = verify_run(&what, &result, err);

    log_progress(NULL);
    if (!ok)
        return database ? err_context(err, "verifying %s", database)
                        : err_context(err, "verifying");
    add_verdict(all, &result);
    if (conf->json) {
        if (json->len)
            buf_putc(json, ',');
        verify_json(&result, json);
    } else
        print_result(&result);
    verify_free(&result);
    return true;
}

static void print_definitions(const char *database, const Drift *drift, Arena *arena, Buf *json)
{
    for (size_t i = 0; i < drift->count; i++) {
        const DriftItem *item = &drift->items[i];

        if (!json) {
            printf("%s%s%s\n", database, *database ? ": " : "", drift_text(item, arena));
            continue;
        }
        buf_puts(json, json->len ? ",{" : "{");
        buf_put_member(json, "database", database);
        buf_putc(json, ',');
        buf_put_member(json, "kind", item->kind);
        buf_putc(json, ',');
        buf_put_member(json, "name", item->name);
        buf_putc(json, ',');
        buf_put_member(json, "source", item->source);
        buf_putc(json, ',');
        buf_put_member(json, "target", item->target);
        buf_putc(json, '}');
    }
}

/* Of one database, and with the first one of the servers too. */
static bool compare_definitions(const Conf *conf, const char *database, bool servers,
                                const Stop *stop, Arena *arena, Buf *json, Verdict *all, Err *err)
{
    PgOptions options = {.stop = stop, .database = database};
    AUTO_PG source = {0};
    AUTO_PG target = {0};
    Drift drift = {0};
    Drift whole = {0};

    if (!pg_open(&source, conf->source, ERR_SOURCE, &options, err) ||
        !pg_open(&target, conf->target, ERR_TARGET, &options, err) ||
        !drift_database(&source, &target, arena, &drift, err) ||
        (servers && !drift_server(&source, &target, arena, &whole, err)))
        return err_context(err, "comparing definitions");
    print_definitions(PQdb(source.conn), &drift, arena, conf->json ? json : NULL);
    print_definitions("", &whole, arena, conf->json ? json : NULL);
    all->definitions += drift.count + whole.count;
    return true;
}

static bool finish(const Verdict *all, Err *err)
{
    if (all->different) {
        err_fail(err, ERR_DIFFERENT, "%zu of %zu tables differ", all->different, all->tables);
        return false;
    }
    if (all->definitions)
        return err_fail(err, ERR_DIFFERENT, "%zu definitions differ", all->definitions);
    if (err_is_set(&all->unread)) {
        *err = all->unread;
        return err_context(err, "not all tables could be read");
    }
    return true;
}

static bool run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    Verdict all = {.unread = ERR_INIT};
    Arena arena;
    DatabaseList list;
    AUTO_BUF json;
    AUTO_BUF definitions;
    bool ok;

    buf_init(&json, MIB(512));
    buf_init(&definitions, MIB(512));
    (void)argv;
    if (argc > 1)
        return command_misused(&cmd_verify, err);
    arena_init(&arena, 4096);
    ok = databases_of(conf->source, conf->target, conf->database, stop, &arena, &list, err);
    for (size_t i = 0; ok && i < list.count; i++)
        ok = verify_one(conf, list.names[i], stop, &json, &all, err) &&
             (!conf->verify_definitions || compare_definitions(conf, list.names[i], i == 0, stop,
                                                               &arena, &definitions, &all, err));
    if (ok && conf->json && buf_ok(&json, "the result", err) &&
        buf_ok(&definitions, "the result", err))
        printf("{\"equal\":%s,\"databases\":[%s],\"definitions\":[%s]}\n",
               all.different || all.definitions || err_is_set(&all.unread) ? "false" : "true",
               buf_str(&json), buf_str(&definitions));
    arena_fini(&arena);
    return ok && !err_is_set(err) && finish(&all, err);
}

const Command cmd_verify = {
    .name = "verify",
    .summary = "compare all rows of both sides while writes flow",
    .about =
        "Compares every row of every table, in both directions, at one exact position: a snapshot of the source tied to a position "
        "in its log, and a snapshot of the target while the stream stands still there for a moment.\n"
        "The servers compute the hashes, in chunks and in parallel; only what differs is looked at closer, and the rows that differ "
        "are named by their keys. Without a running stream both sides are compared as they are.\n"
        "Exit code 0: equal; 1: different; 4 or 5: the source or the target couldn't be read.",
    .sections = "source target tls stream.slot check verify",
    .examples =
        "keybridge verify --source postgres://old/app --target postgres://new/app --slot keybridge\n"
        "keybridge verify --tables public.orders,public.customers --show-values --json",
    .run = run,
};
