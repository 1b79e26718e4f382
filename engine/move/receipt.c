#include "engine/move/receipt.h"

#include <fcntl.h>
#include <jansson.h>
#include <unistd.h>

#include "engine/base/mono.h"
#include "engine/move/sha256.h"

#define RECEIPT_MOST MIB(256)

static void drop_json(json_t **json)
{
    json_decref(*json);
}
#define AUTO_JSON ON_EXIT(drop_json) json_t *

static void reset_arena(Arena *arena)
{
    arena_fini(arena);
}
#define AUTO_ARENA ON_EXIT(reset_arena) Arena

/* building
 * ------------------------------------------------------------------------------------------------
 */

/* Numbers are known by their names: an account or an id may look like one and isn't. */
static bool is_number(const char *key)
{
    static const char *const names[] = {"sessions_ended",    "late_sessions", "refused_logins",
                                        "fence_attempts",    "fence_tables",  "settings_compared",
                                        "settings_different"};
    size_t len = strlen(key);

    if (len > 3 && strcmp(key + len - 3, "_us") == 0)
        return true;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(key, names[i]) == 0)
            return true;
    return false;
}

/* Facts that are JSON themselves (verify, sequences) are put in as such. */
static json_t *value_of(const JournalFact *fact)
{
    json_t *parsed = NULL;

    if (is_number(fact->key))
        return json_integer(strtoll(fact->value, NULL, 10));
    if (*fact->value == '{')
        parsed = json_loads(fact->value, 0, NULL);
    return parsed ? parsed : json_string(fact->value);
}

static bool is_number_suffix(const char *at)
{
    return *at == '.' && at[1] >= '0' && at[1] <= '9';
}

/* "finding.003" and "setting.001" become lists, "step.drain_us" members of an object, the rest
 * plain members. */
static void put_fact(json_t *into, const JournalFact *fact)
{
    const char *dot = strchr(fact->key, '.');
    char group[64];
    json_t *inner;

    if (!dot || (size_t)(dot - fact->key) >= sizeof(group)) {
        json_object_set_new(into, fact->key, value_of(fact));
        return;
    }
    snprintf(group, sizeof(group), "%.*s%s", (int)(dot - fact->key), fact->key, "s");
    inner = json_object_get(into, group);
    if (is_number_suffix(dot)) {
        if (!json_is_array(inner)) {
            inner = json_array();
            json_object_set_new(into, group, inner);
        }
        json_array_append_new(inner, value_of(fact));
        return;
    }
    if (!json_is_object(inner)) {
        inner = json_object();
        json_object_set_new(into, group, inner);
    }
    json_object_set_new(inner, dot + 1, value_of(fact));
}

static json_t *phases_json(Journal *journal, Arena *arena, Err *err)
{
    JournalPhase *phases;
    size_t count;
    json_t *list;

    if (!journal_phases(journal, arena, &phases, &count, err))
        return NULL;
    list = json_array();
    for (size_t i = 0; i < count; i++) {
        char began[WALL_TEXT];
        char ended[WALL_TEXT];
        uint64_t end_us = phases[i].ended_us ? phases[i].ended_us : phases[i].started_us;

        json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:I, s:i}", "phase",
                                              phases[i].name, "state", phases[i].state, "began",
                                              wall_text(phases[i].started_us, began), "ended",
                                              wall_text(end_us, ended), "took_ms",
                                              (json_int_t)((end_us - phases[i].started_us) / 1000),
                                              "attempts", (int)phases[i].attempts));
    }
    return list;
}

/* What keeps the program going is no part of a receipt. */
static bool is_internal(const JournalFact *fact)
{
    static const char *const prefixes[] = {"undo", "slot_intended", "marker",  "databases",
                                           "what", "seed_lsn",      "progress"};

    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (strncmp(fact->key, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

static json_t *database_of(json_t *databases, const char *name)
{
    json_t *db = json_object_get(databases, name);

    if (!db) {
        db = json_object();
        json_object_set_new(databases, name, db);
    }
    return db;
}

static bool put_facts(Journal *journal, Arena *arena, json_t *receipt, json_t *databases, Err *err)
{
    JournalFact *facts;
    size_t count;

    if (!journal_facts(journal, arena, &facts, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) {
        if (*facts[i].scope == '\0' && strncmp(facts[i].key, "database.", 9) == 0)
            (void)database_of(databases, facts[i].value);
        else if (!is_internal(&facts[i]))
            put_fact(*facts[i].scope ? database_of(databases, facts[i].scope) : receipt, &facts[i]);
    }
    return true;
}

bool receipt_json(Journal *journal, const char *audit_head, Buf *out, Err *err)
{
    AUTO_ARENA arena;
    AUTO_JSON receipt = json_object();
    json_t *databases = json_object();
    json_t *phases;
    char *text;
    char now[WALL_TEXT];

    arena_init(&arena, 65536);
    json_object_set_new(receipt, "receipt", json_string("keybridge 1"));
    json_object_set_new(receipt, "written", json_string(wall_text(wall_us(), now)));
    json_object_set_new(receipt, "audit_head", json_string(audit_head));
    json_object_set_new(receipt, "databases", databases);
    if (!put_facts(journal, &arena, receipt, databases, err))
        return false;
    phases = phases_json(journal, &arena, err);
    if (!phases)
        return false;
    json_object_set_new(receipt, "phases", phases);
    text = json_dumps(receipt, JSON_INDENT(1) | JSON_SORT_KEYS);
    if (!text)
        return err_fail(err, ERR_BUG, "the receipt can't be made into JSON");
    buf_puts(out, text);
    buf_putc(out, '\n');
    free(text);
    return buf_ok(out, "the receipt", err);
}

/* as text
 * -------------------------------------------------------------------------------------------------
 */

static const char *str_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? text : "-";
}

static double ms_of(const json_t *object, const char *key)
{
    return (double)json_integer_value(json_object_get(object, key)) / 1000;
}

static void put_line(Buf *out, const char *name, const char *value)
{
    buf_printf(out, "  %-22s %s\n", name, value);
}

static void put_head(Buf *out, const json_t *receipt)
{
    static const struct {
        const char *name;
        const char *key;
    } lines[] = {
        {"migration", "id"},
        {"account", "account"},
        {"done by", "caller"},
        {"old instance", "source"},
        {"  at", "old_address"},
        {"new instance", "target"},
        {"  at", "new_address"},
        {"old key", "old_key_arn"},
        {"new key", "key_arn"},
        {"snapshot", "snapshot"},
        {"copy", "copy"},
        {"copy ends at", "start"},
        {"by", "start_rule"},
        {"switch", "switch"},
        {"sessions ended", "fenced"},
        {"came late", "late_who"},
        {"refused by old side", "refused_who"},
    };

    buf_printf(out, "keybridge receipt, %s\n\n", str_of(receipt, "written"));
    for (size_t i = 0; i < ARRAY_LEN(lines); i++)
        if (*str_of(receipt, lines[i].key) &&
            json_is_string(json_object_get(receipt, lines[i].key)))
            put_line(out, lines[i].name, str_of(receipt, lines[i].key));
}

static void put_table(Buf *out, const json_t *table)
{
    char name[140];

    snprintf(name, sizeof(name), "%s.%s", str_of(table, "schema"), str_of(table, "table"));
    buf_printf(
        out,
        "  %-34.60s %12" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT "  %-16.16s %-16.16s %s\n",
        name, json_integer_value(json_object_get(table, "source_rows")),
        json_integer_value(json_object_get(table, "target_rows")), str_of(table, "source_hash"),
        str_of(table, "target_hash"), str_of(table, "verdict"));
}

static void put_sequence(Buf *out, const json_t *sequence)
{
    char name[140];

    snprintf(name, sizeof(name), "%s.%s", str_of(sequence, "schema"), str_of(sequence, "name"));
    buf_printf(
        out,
        "  %-34.60s %12" JSON_INTEGER_FORMAT " %12" JSON_INTEGER_FORMAT " -> %" JSON_INTEGER_FORMAT
        "  %s\n",
        name,
        json_integer_value(json_object_get(json_object_get(sequence, "source"), "last_value")),
        json_integer_value(json_object_get(json_object_get(sequence, "before"), "last_value")),
        json_integer_value(json_object_get(json_object_get(sequence, "after"), "last_value")),
        str_of(sequence, "verdict"));
}

static void put_database(Buf *out, const char *name, const json_t *db)
{
    const json_t *tables = json_object_get(json_object_get(db, "verify"), "tables");
    const json_t *sequences = json_object_get(json_object_get(db, "sequences"), "sequences");
    size_t at;
    const json_t *item;

    buf_printf(out, "\ndatabase %s\n", name);
    buf_printf(out, "  slot %s, consistent at %s; copy ends at %s; all rows compared at %s\n",
               str_of(db, "slot"), str_of(db, "consistent_point"), str_of(db, "start"),
               str_of(json_object_get(db, "verify"), "position"));
    if (json_object_get(db, "end"))
        buf_printf(out, "  end position %s, nothing behind it up to %s\n", str_of(db, "end"),
                   str_of(db, "end_proved"));
    if (json_array_size(tables))
        buf_printf(out, "  %-34s %12s %12s  %-16s %-16s\n", "table", "rows old", "rows new",
                   "hash old", "hash new");
    json_array_foreach((json_t *)(uintptr_t)tables, at, item) put_table(out, item);
    if (json_array_size(sequences))
        buf_printf(out, "  %-34s %12s %12s\n", "sequence", "old side", "new side");
    json_array_foreach((json_t *)(uintptr_t)sequences, at, item) put_sequence(out, item);
}

static void put_list(Buf *out, const char *title, const json_t *list)
{
    size_t at;
    const json_t *item;

    if (json_array_size(list))
        buf_printf(out, "\n%s\n", title);
    json_array_foreach((json_t *)(uintptr_t)list, at, item)
        buf_printf(out, "  %s\n", json_string_value(item) ? json_string_value(item) : "");
}

static void put_times(Buf *out, const json_t *receipt)
{
    static const char *const steps[] = {"fence", "drain",  "sequences", "close", "prove",
                                        "open",  "switch", "settle",    "watch"};
    const json_t *took = json_object_get(receipt, "steps");
    const json_t *phases = json_object_get(receipt, "phases");
    size_t at;
    const json_t *phase;

    buf_puts(out, "\nphases, ms\n");
    json_array_foreach((json_t *)(uintptr_t)phases, at, phase) buf_printf(
        out, "  %-22s %10" JSON_INTEGER_FORMAT "%s\n", str_of(phase, "phase"),
        json_integer_value(json_object_get(phase, "took_ms")),
        json_integer_value(json_object_get(phase, "attempts")) > 1 ? "  (more than one attempt)"
                                                                   : "");
    if (!took)
        return;
    buf_puts(out, "\ncut-over, ms\n");
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        char key[32];

        snprintf(key, sizeof(key), "%s_us", steps[i]);
        if (json_object_get(took, key))
            buf_printf(out, "  %-22s %10.1f\n", steps[i], ms_of(took, key));
    }
    if (json_object_get(receipt, "blocked_us"))
        buf_printf(out, "\nwrites were blocked for %.0f ms, from %s to %s\n",
                   ms_of(receipt, "blocked_us"), str_of(receipt, "blocked_from"),
                   str_of(receipt, "switched_at"));
    else
        buf_puts(
            out,
            "\nthe cut-over was interrupted and finished by a later run: how long writes were blocked isn't known\n");
}

bool receipt_text(Span json, Buf *out, Err *err)
{
    AUTO_JSON receipt = json_loadb((const char *)json.at, json.len, 0, NULL);
    const char *name;
    json_t *db;

    if (!receipt)
        return err_fail(err, ERR_STATE, "the receipt is not JSON");
    put_head(out, receipt);
    json_object_foreach(json_object_get(receipt, "databases"), name, db)
    {
        put_database(out, name, db);
        put_list(out, "  transactions that were skipped, the new side lacks them:",
                 json_object_get(db, "dead_letters"));
        put_list(out, "  findings:", json_object_get(db, "findings"));
        put_list(out, "  definitions that differ:", json_object_get(db, "definitions"));
    }
    put_list(out, "findings of the whole", json_object_get(receipt, "findings"));
    put_list(out, "definitions of the server that differ", json_object_get(receipt, "definitions"));
    put_list(out, "settings that differ", json_object_get(receipt, "settings"));
    put_times(out, receipt);
    buf_printf(out, "audit log up to %.16s…\n", str_of(receipt, "audit_head"));
    return buf_ok(out, "the receipt", err);
}

/* writing
 * -------------------------------------------------------------------------------------------------
 */

/* Beside and then renamed, so that there is never half a receipt. */
static bool write_file(const char *dir, const char *name, Span bytes, Err *err)
{
    char path[4200];
    char fresh[4210];
    int fd;
    bool ok;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    snprintf(fresh, sizeof(fresh), "%s.new", path);
    fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, ERR_SYSTEM, "opening %s", fresh);
    ok = write(fd, bytes.at, bytes.len) == (ssize_t)bytes.len && fsync(fd) == 0;
    if (!ok)
        err_errno(err, ERR_SYSTEM, "writing %s", fresh);
    close(fd);
    return ok && (rename(fresh, path) == 0 || err_errno(err, ERR_SYSTEM, "renaming %s", fresh));
}

bool receipt_write(Journal *journal, Audit *audit, Buf *text, Err *err)
{
    AUTO_BUF json;
    char json_hash[SHA256_TEXT];
    char text_hash[SHA256_TEXT];

    buf_init(&json, RECEIPT_MOST);
    if (!receipt_json(journal, audit_head(audit), &json, err) ||
        !receipt_text(buf_span(&json), text, err) ||
        !write_file(journal_dir(journal), "receipt.json", buf_span(&json), err) ||
        !write_file(journal_dir(journal), "receipt.txt", buf_span(text), err))
        return false;
    return audit_add(audit, err, "receipt written",
                     F_STR("json_sha256", sha256_text(buf_span(&json), json_hash)),
                     F_STR("text_sha256", sha256_text(buf_span(text), text_hash)));
}
