/* keybridge sequences check|sync: engine/check/sequences for people and scripts. */
#include <libsmartcols.h>

#include "engine/base/log.h"
#include "engine/check/databases.h"
#include "engine/check/sequences.h"
#include "engine/cmd/cmd.h"

static void put_state(struct libscols_line *line, size_t column, const SequenceState *state)
{
    char text[64];

    if (!state->there)
        return;
    snprintf(text, sizeof(text), "%" PRId64 "%s", state->last_value,
             state->is_called ? "" : " not called");
    scols_line_set_data(line, column, text);
}

/* Equal ones are counted only: there may be thousands. */
static bool is_shown(const Sequence *s)
{
    return s->verdict != SEQUENCE_EQUAL || s->raised || s->used_percent > 90;
}

static void add_line(struct libscols_table *table, const Sequence *s, bool sync)
{
    struct libscols_line *line = scols_table_new_line(table, NULL);
    char text[300];

    snprintf(text, sizeof(text), "%s.%s", s->schema, s->name);
    scols_line_set_data(line, 0, text);
    put_state(line, 1, &s->source);
    put_state(line, 2, &s->before);
    if (sync)
        put_state(line, 3, &s->after);
    if (s->source.there) {
        snprintf(text, sizeof(text), "%.1f %%", s->used_percent);
        scols_line_set_data(line, sync ? 4 : 3, text);
    }
    snprintf(text, sizeof(text), "%s%s", s->raised ? "raised, " : "",
             sequence_verdict_name(s->verdict));
    scols_line_set_data(line, sync ? 5 : 4, text);
}

static void print_result(const SequencesResult *r, bool sync)
{
    struct libscols_table *table = scols_new_table();
    size_t lines = 0;

    scols_table_new_column(table, "SEQUENCE", 0, 0);
    scols_table_new_column(table, "SOURCE", 0, SCOLS_FL_RIGHT);
    scols_table_new_column(table, "TARGET", 0, SCOLS_FL_RIGHT);
    if (sync)
        scols_table_new_column(table, "NOW", 0, SCOLS_FL_RIGHT);
    scols_table_new_column(table, "USED", 0, SCOLS_FL_RIGHT);
    scols_table_new_column(table, "VERDICT", 0, 0);
    for (size_t i = 0; i < r->count; i++) {
        if (!is_shown(&r->items[i]))
            continue;
        add_line(table, &r->items[i], sync);
        lines++;
    }
    printf("database %s: %zu sequences, %zu different", r->database, r->count, r->different);
    if (sync)
        printf(", %zu raised", r->raised);
    printf(", in %.0f ms\n", (double)r->total_us / 1000);
    if (lines)
        scols_print_table(table);
    scols_unref_table(table);
    printf("\n");
}

static bool open_sides(const Conf *conf, const char *database, const Stop *stop, Pg *source,
                       Pg *target, Err *err)
{
    PgOptions options = {.application = "keybridge sequences", .database = database, .stop = stop};

    return pg_open(source, conf->source, ERR_SOURCE, &options, err) &&
           pg_open(target, conf->target, ERR_TARGET, &options, err);
}

static bool run_one(const Conf *conf, const char *database, bool sync, const Stop *stop, Buf *json,
                    size_t *different, Err *err)
{
    AUTO_PG source = {0}, target = {0};
    SequencesResult result;

    if (!open_sides(conf, database, stop, &source, &target, err) ||
        !sequences_run(&source, &target, PQdb(source.conn), sync, &result, err))
        return database ? err_context(err, "database %s", database) : false;
    *different += result.different;
    for (size_t i = 0; i < result.count; i++)
        if (result.items[i].used_percent > 90 && !result.items[i].source.cycle)
            log_warn("a sequence is nearly used up", F_STR("schema", result.items[i].schema),
                     F_STR("sequence", result.items[i].name),
                     F_U64("used_percent", (uint64_t)result.items[i].used_percent));
    if (conf->json) {
        if (json->len)
            buf_putc(json, ',');
        sequences_json(&result, json);
    } else
        print_result(&result, sync);
    sequences_free(&result);
    return true;
}

static bool run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    bool sync = argc == 2 && strcmp(argv[1], "sync") == 0;
    size_t different = 0;
    DatabaseList list;
    Arena arena;
    AUTO_BUF json;
    bool ok;

    buf_init(&json, MIB(512));
    if (argc != 2 || (!sync && strcmp(argv[1], "check") != 0))
        return command_misused(&cmd_sequences, err);
    arena_init(&arena, 4096);
    ok = databases_of(conf->source, conf->target, conf->database, stop, &arena, &list, err);
    for (size_t i = 0; ok && i < list.count; i++)
        ok = run_one(conf, list.names[i], sync, stop, &json, &different, err);
    if (ok && conf->json && buf_ok(&json, "the result", err))
        printf("{\"equal\":%s,\"databases\":[%s]}\n", different ? "false" : "true", buf_str(&json));
    arena_fini(&arena);
    if (!ok || err_is_set(err) || !different)
        return ok && !err_is_set(err);
    err_fail(err, ERR_DIFFERENT, "%zu sequences differ", different);
    return err_hint(err, sync ? "missing ones and other definitions need a hand; see the list"
                              : "keybridge sequences sync raises those that are behind");
}

const Command cmd_sequences = {
    .name = "sequences",
    .summary = "compare sequences and identity columns, or raise the target's",
    .operands = "check|sync",
    .about =
        "check compares all sequences and identity columns of both sides and prints those that differ. The target may be ahead, "
        "but never behind.\n"
        "sync sets the target's to where the source's are, never back, and reads them again. Writes to the source must be "
        "blocked by then, or what they take afterwards is missing.\n"
        "Exit code 0: nothing is behind, missing or defined otherwise; 1: something is.",
    .sections = "source target tls check",
    .examples =
        "keybridge sequences check --source postgres://old/app --target postgres://new/app\n"
        "keybridge sequences sync --json",
    .run = run,
};
