#include "engine/cmd/cmd.h"

#include <jansson.h>
#include <libsmartcols/libsmartcols.h>
#include <unistd.h>

#include "appliers/postgres/pg.h"
#include "engine/base/mono.h"
#include "engine/move/journal.h"

static void reset_arena(Arena *arena)
{
    arena_fini(arena);
}
#define AUTO_ARENA ON_EXIT(reset_arena) Arena

typedef struct Seen {
    JournalPhase *phases;
    size_t phase_count;
    JournalFact *facts;
    size_t fact_count;
} Seen;

static const char *fact(const Seen *seen, const char *scope, const char *key)
{
    for (size_t i = 0; i < seen->fact_count; i++)
        if (strcmp(seen->facts[i].scope, scope) == 0 && strcmp(seen->facts[i].key, key) == 0)
            return seen->facts[i].value;
    return "";
}

static uint64_t took_ms(const JournalPhase *phase)
{
    uint64_t end = phase->ended_us ? phase->ended_us : wall_us();

    return end > phase->started_us ? (end - phase->started_us) / 1000 : 0;
}

static void add_cell(struct libscols_line *line, size_t at, const char *text)
{
    if (scols_line_set_data(line, at, text) != 0)
        abort();
}

static void print_phases(const Seen *seen)
{
    static const char *const heads[] = {"PHASE", "STATE", "TOOK", "ATTEMPTS", "ERROR"};
    struct libscols_table *table = scols_new_table();

    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        scols_table_new_column(table, heads[i], 0.1,
                               i == 2 || i == 3 ? SCOLS_FL_RIGHT
                               : i == 4         ? SCOLS_FL_WRAP
                                                : 0);
    for (size_t i = 0; i < seen->phase_count; i++) {
        const JournalPhase *p = &seen->phases[i];
        struct libscols_line *line = scols_table_new_line(table, NULL);
        char took[32];
        char attempts[16];

        snprintf(took, sizeof(took), "%.1f s", (double)took_ms(p) / 1000);
        snprintf(attempts, sizeof(attempts), "%u", p->attempts);
        add_cell(line, 0, p->name);
        add_cell(line, 1, p->state);
        add_cell(line, 2, took);
        add_cell(line, 3, attempts);
        add_cell(line, 4, p->error);
    }
    scols_print_table(table);
    scols_unref_table(table);
}

/* A member of the progress that the running process keeps, as text; "" when there is none. */
static void put_progress(const json_t *progress, const char *key, char *out, size_t size)
{
    const json_t *value = json_object_get(progress, key);

    if (!value)
        value = json_object_get(json_object_get(progress, "slot_state"), key);
    *out = '\0';
    if (json_is_string(value))
        snprintf(out, size, "%s", json_string_value(value));
    else if (json_is_number(value))
        snprintf(out, size, "%.0f", json_number_value(value));
}

static void add_progress(const Seen *seen, const char *database, struct libscols_line *line,
                         size_t at)
{
    static const char *const keys[] = {"applied_lsn",        "lag_bytes",      "lag_ms",
                                       "transactions_per_s", "retained_bytes", "safe_wal_bytes",
                                       "minutes_left",       "skipped",        "at"};
    json_t *progress = json_loads(fact(seen, database, "progress"), 0, NULL);

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char text[64];

        put_progress(progress, keys[i], text, sizeof(text));
        add_cell(line, at + i, text);
    }
    json_decref(progress);
}

static void print_databases(const Seen *seen)
{
    static const char *const heads[] = {
        "DATABASE", "SLOT",     "CONSISTENT", "START",    "APPLIED", "LAG BYTES", "LAG MS",
        "TX/S",     "WAL KEPT", "WAL SAFE",   "MIN LEFT", "SKIPPED", "AS OF"};
    struct libscols_table *table = scols_new_table();

    for (size_t i = 0; i < ARRAY_LEN(heads); i++)
        scols_table_new_column(table, heads[i], 0.1, 0);
    for (size_t i = 0; i < seen->fact_count; i++) {
        const char *name = seen->facts[i].value;
        struct libscols_line *line;

        if (*seen->facts[i].scope || strncmp(seen->facts[i].key, "database.", 9) != 0)
            continue;
        line = scols_table_new_line(table, NULL);
        add_cell(line, 0, name);
        add_cell(line, 1, fact(seen, name, "slot"));
        add_cell(line, 2, fact(seen, name, "consistent_point"));
        add_cell(line, 3, fact(seen, name, "start"));
        add_progress(seen, name, line, 4);
    }
    if (!scols_table_is_empty(table))
        scols_print_table(table);
    scols_unref_table(table);
}

static const char *cutover_text(const Seen *seen)
{
    const char *state = fact(seen, "", "cutover");

    return *state ? state : "not begun";
}

static void print_text(const Seen *seen)
{
    printf("%s, migration %s, cut-over %s\n\n", fact(seen, "", "what"), fact(seen, "", "id"),
           cutover_text(seen));
    print_phases(seen);
    printf("\n");
    print_databases(seen);
    if (*fact(seen, "", "blocked_us"))
        printf("\nwrites were blocked for %.0f ms\n",
               strtod(fact(seen, "", "blocked_us"), NULL) / 1000);
}

static void print_json(const Seen *seen)
{
    AUTO_BUF out;
    size_t databases = 0;

    buf_init(&out, MIB(64));
    buf_putc(&out, '{');
    buf_put_member(&out, "what", fact(seen, "", "what"));
    buf_putc(&out, ',');
    buf_put_member(&out, "migration", fact(seen, "", "id"));
    buf_putc(&out, ',');
    buf_put_member(&out, "cutover", cutover_text(seen));
    buf_puts(&out, ",\"phases\":[");
    for (size_t i = 0; i < seen->phase_count; i++) {
        const JournalPhase *p = &seen->phases[i];

        buf_puts(&out, i ? ",{" : "{");
        buf_put_member(&out, "phase", p->name);
        buf_putc(&out, ',');
        buf_put_member(&out, "state", p->state);
        buf_printf(&out, ",\"took_ms\":%" PRIu64 ",\"attempts\":%u,", took_ms(p), p->attempts);
        buf_put_member(&out, "error", p->error);
        buf_putc(&out, '}');
    }
    buf_puts(&out, "],\"databases\":[");
    for (size_t i = 0; i < seen->fact_count; i++) {
        const char *name = seen->facts[i].value;

        if (*seen->facts[i].scope || strncmp(seen->facts[i].key, "database.", 9) != 0)
            continue;
        buf_puts(&out, databases++ ? ",{" : "{");
        buf_put_member(&out, "database", name);
        buf_putc(&out, ',');
        buf_put_member(&out, "slot", fact(seen, name, "slot"));
        buf_putc(&out, ',');
        buf_put_member(&out, "start", fact(seen, name, "start"));
        buf_printf(&out, ",\"progress\":%s}",
                   *fact(seen, name, "progress") ? fact(seen, name, "progress") : "null");
    }
    buf_puts(&out, "]}\n");
    fputs(buf_str(&out), stdout);
}

static bool look(const Conf *conf, Err *err)
{
    AUTO_ARENA arena;
    Seen seen = {0};
    Journal *journal = journal_open_readonly(conf->state_dir, err);
    bool ok;

    arena_init(&arena, 65536);
    ok = journal && journal_phases(journal, &arena, &seen.phases, &seen.phase_count, err) &&
         journal_facts(journal, &arena, &seen.facts, &seen.fact_count, err);
    if (ok && conf->json)
        print_json(&seen);
    else if (ok)
        print_text(&seen);
    journal_close(journal);
    return ok;
}

static bool status_run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    (void)argc;
    (void)argv;
    do {
        if (conf->watch && !conf->json && isatty(STDOUT_FILENO))
            fputs("\x1b[H\x1b[2J", stdout);
        if (!look(conf, err))
            return false;
        fflush(stdout);
    } while (conf->watch && !stop_wait(stop, 1000));
    return true;
}

const Command cmd_status = {
    .name = "status",
    .summary = "where the migration stands",
    .about =
        "Reads the state directory only: no connection is made, and a run that is going on isn't disturbed.",
    .sections = "state output",
    .run = status_run,
    .examples = "keybridge status --watch",
};
