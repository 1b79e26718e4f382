/* The results as JSON: for --json and for the receipt. */
#include "engine/check/sequences.h"
#include "engine/check/verify.h"

static void put_u64(Buf *out, const char *name, uint64_t value)
{
    buf_printf(out, ",\"%s\":%" PRIu64, name, value);
}

static void put_bool(Buf *out, const char *name, bool value)
{
    buf_printf(out, ",\"%s\":%s", name, value ? "true" : "false");
}

static void put_more(Buf *out, const char *name, const char *value)
{
    buf_putc(out, ',');
    buf_put_member(out, name, value);
}

static void put_row(Buf *out, const VerifyRow *row)
{
    static const char *const kinds[] = {
        [ROW_MISSING] = "missing", [ROW_EXTRA] = "extra", [ROW_CHANGED] = "changed"};

    buf_putc(out, '{');
    buf_put_member(out, "kind", kinds[row->kind]);
    put_more(out, "key", row->key);
    if (row->columns)
        put_more(out, "columns", row->columns);
    if (row->source)
        put_more(out, "source", row->source);
    if (row->target)
        put_more(out, "target", row->target);
    if (row->copies != 1)
        put_u64(out, "copies", row->copies);
    buf_putc(out, '}');
}

static void put_error(Buf *out, const Err *err)
{
    buf_puts(out, ",\"error\":{");
    buf_put_member(out, "kind", err_kind_name(err->kind));
    put_more(out, "code", err->code);
    put_more(out, "text", err->text);
    put_more(out, "hint", err->hint);
    buf_putc(out, '}');
}

static void put_table(Buf *out, const VerifyTable *table)
{
    buf_putc(out, '{');
    buf_put_member(out, "schema", table->schema);
    put_more(out, "table", table->name);
    put_more(out, "verdict", verify_verdict_name(table->verdict));
    put_bool(out, "keyless", table->keyless);
    put_u64(out, "source_rows", table->source_rows);
    put_u64(out, "target_rows", table->target_rows);
    put_more(out, "source_hash", table->source_hash);
    put_more(out, "target_hash", table->target_hash);
    if (table->verdict == VERIFY_DIFFERENT) {
        put_u64(out, "missing", table->missing);
        put_u64(out, "extra", table->extra);
        put_u64(out, "changed", table->changed);
        put_bool(out, "at_least", table->at_least);
        buf_puts(out, ",\"rows\":[");
        for (size_t i = 0; i < table->row_count; i++) {
            if (i)
                buf_putc(out, ',');
            put_row(out, &table->rows[i]);
        }
        buf_putc(out, ']');
    }
    if (err_is_set(&table->error))
        put_error(out, &table->error);
    buf_putc(out, '}');
}

static void put_drift(Buf *out, const TableDrift *drift)
{
    buf_putc(out, '{');
    buf_put_member(out, "kind", table_drift_name(drift->kind));
    put_more(out, "schema", drift->schema);
    put_more(out, "table", drift->table);
    put_more(out, "column", drift->column);
    put_more(out, "source", drift->source);
    put_more(out, "target", drift->target);
    buf_putc(out, '}');
}

void verify_json(const VerifyResult *result, Buf *out)
{
    char position[POSITION_TEXT];

    buf_putc(out, '{');
    buf_put_member(out, "database", result->database);
    put_bool(out, "equal", verify_equal(result));
    put_more(out, "how", result->how == VERIFY_AT_POSITION ? "at position" : "as is");
    put_more(out, "position",
             position_is_none(result->position) ? NULL : position_text(result->position, position));
    put_more(out, "note", result->note);
    put_u64(out, "rows", result->rows);
    put_u64(out, "different", result->different);
    put_u64(out, "errors", result->errors);
    put_u64(out, "pause_us", result->pause_us);
    put_u64(out, "total_us", result->total_us);
    buf_puts(out, ",\"tables\":[");
    for (size_t i = 0; i < result->table_count; i++) {
        if (i)
            buf_putc(out, ',');
        put_table(out, &result->tables[i]);
    }
    buf_puts(out, "],\"drift\":[");
    for (size_t i = 0; i < result->drift.count; i++) {
        if (i)
            buf_putc(out, ',');
        put_drift(out, &result->drift.items[i]);
    }
    buf_puts(out, "],\"left_out\":[");
    for (size_t i = 0; i < result->left_out_count; i++) {
        buf_puts(out, i ? ",{" : "{");
        buf_put_member(out, "schema", result->left_out[i].schema);
        put_more(out, "name", result->left_out[i].name);
        put_more(out, "why", result->left_out[i].why);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}

static void put_state(Buf *out, const char *name, const SequenceState *state)
{
    buf_printf(out, ",\"%s\":", name);
    if (!state->there) {
        buf_puts(out, "null");
        return;
    }
    buf_printf(out,
               "{\"last_value\":%" PRId64 ",\"is_called\":%s,\"increment\":%" PRId64
               ",\"min\":%" PRId64 ",\"max\":%" PRId64 ",\"cycle\":%s,\"type\":\"%s\"}",
               state->last_value, state->is_called ? "true" : "false", state->increment,
               state->least, state->most, state->cycle ? "true" : "false", state->type);
}

void sequences_json(const SequencesResult *result, Buf *out)
{
    buf_putc(out, '{');
    buf_put_member(out, "database", result->database);
    put_u64(out, "count", result->count);
    put_u64(out, "different", result->different);
    put_u64(out, "raised", result->raised);
    put_u64(out, "nearly_full", result->nearly_full);
    put_u64(out, "read_us", result->read_us);
    put_u64(out, "total_us", result->total_us);
    buf_puts(out, ",\"sequences\":[");
    for (size_t i = 0; i < result->count; i++) {
        const Sequence *s = &result->items[i];

        buf_puts(out, i ? ",{" : "{");
        buf_put_member(out, "schema", s->schema);
        put_more(out, "name", s->name);
        put_more(out, "owned_by", s->owned_by);
        put_bool(out, "identity", s->identity);
        put_more(out, "verdict", sequence_verdict_name(s->verdict));
        put_bool(out, "raised", s->raised);
        buf_printf(out, ",\"used_percent\":%.2f", s->used_percent);
        put_state(out, "source", &s->source);
        put_state(out, "before", &s->before);
        put_state(out, "after", &s->after);
        buf_putc(out, '}');
    }
    buf_puts(out, "]}");
}
