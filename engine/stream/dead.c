#include "engine/stream/dead.h"

static void put_table(Buf *out, const Relation *rel)
{
    AUTO_BUF place;

    buf_init(&place, KIB(64));
    buf_printf(&place, "%s.%s", rel->schema, rel->name);
    buf_put_json(out, buf_span(&place));
}

static void put_value(Buf *out, Value v)
{
    if (v.kind == VALUE_NULL) {
        buf_puts(out, "null");
    } else if (v.kind == VALUE_TEXT) {
        buf_put_json(out, span_of(v.at, v.len));
    } else {
        static const char digits[] = "0123456789abcdef";

        buf_puts(out, "{\"binary\":\"");
        for (uint32_t b = 0; b < v.len; b++) {
            buf_putc(out, digits[v.at[b] >> 4]);
            buf_putc(out, digits[v.at[b] & 15]);
        }
        buf_puts(out, "\"}");
    }
}

static void put_row(Buf *out, const char *name, const Relation *rel, const Value *row)
{
    const char *sep = "";

    if (!row)
        return;
    buf_printf(out, ",\"%s\":{", name);
    for (unsigned i = 0; i < rel->column_count; i++) {
        if (!value_is_known(row[i]))
            continue;
        buf_puts(out, sep);
        sep = ",";
        buf_put_json(out, span_str(rel->columns[i].name));
        buf_putc(out, ':');
        put_value(out, row[i]);
    }
    buf_putc(out, '}');
}

static void put_truncated(Buf *out, const Change *change)
{
    buf_puts(out, ",\"tables\":[");
    for (uint32_t i = 0; i < change->truncated_count; i++) {
        buf_puts(out, i ? "," : "");
        put_table(out, change->truncated[i]);
    }
    buf_printf(out, "],\"cascade\":%s,\"restart_identity\":%s", change->cascade ? "true" : "false",
               change->restart_identity ? "true" : "false");
}

void dead_put_change(Buf *out, const Change *change)
{
    static const char *const kinds[] = {"insert", "update", "delete", "truncate", "message"};

    buf_printf(out, "{\"change\":\"%s\"", kinds[change->kind]);
    if (change->kind == CHANGE_TRUNCATE) {
        put_truncated(out, change);
    } else if (change->kind == CHANGE_MESSAGE) {
        buf_puts(out, ",\"prefix\":");
        buf_put_json(out, change->prefix);
        buf_puts(out, ",\"content\":");
        buf_put_json(out, change->content);
    } else {
        buf_puts(out, ",\"table\":");
        put_table(out, change->rel);
        put_row(out, "old", change->rel, change->old);
        put_row(out, "new", change->rel, change->new);
    }
    buf_putc(out, '}');
}
