#include "engine/model/binlogpos.h"

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* All of it, at least one digit. */
static bool number_of(Span text, uint64_t *number)
{
    *number = 0;
    for (size_t i = 0; i < text.len; i++)
        if (!is_digit(text.at[i]) || __builtin_mul_overflow(*number, 10, number) ||
            __builtin_add_overflow(*number, (uint64_t)(text.at[i] - '0'), number))
            return false;
    return text.len > 0;
}

/* Where the last `c` is; false when there is none. */
static bool last_of(Span text, char c, size_t *at)
{
    const uint8_t *found = text.len ? memrchr(text.at, c, text.len) : NULL;

    if (found)
        *at = (size_t)(found - text.at);
    return found != NULL;
}

static Span part(Span text, size_t from, size_t to)
{
    return span_of(text.at + from, to - from);
}

static bool base_is_sound(Span base)
{
    if (base.len == 0 || base.len > BINLOG_BASE_MOST)
        return false;
    for (size_t i = 0; i < base.len; i++)
        if (base.at[i] <= ' ' || base.at[i] == 0x7F)
            return false;
    return true;
}

/* Position uses file 0 for "no binlog", and no server numbers from 0. */
static bool file_of(Span name, Span *base, uint64_t *number)
{
    size_t slash, dot;

    if (last_of(name, '/', &slash))
        name = part(name, slash + 1, name.len);
    if (!last_of(name, '.', &dot))
        return false;
    *base = part(name, 0, dot);
    return base_is_sound(*base) && number_of(part(name, dot + 1, name.len), number) && *number > 0;
}

bool binlog_file_parse(Span name, Span *base, uint64_t *number, Err *err)
{
    return file_of(name, base, number) ||
           err_fail(err, ERR_USAGE, "\"%.*s\" is not the name of a binlog file",
                    (int)size_min(name.len, 300), (const char *)name.at);
}

static Span without_blanks(Span text)
{
    while (text.len && text.at[0] == ' ')
        text = part(text, 1, text.len);
    while (text.len && text.at[text.len - 1] == ' ')
        text = part(text, 0, text.len - 1);
    return text;
}

static bool pos_of(Span text, BinlogPos *pos)
{
    size_t cut;

    if (!last_of(text, ':', &cut) && !last_of(text, ',', &cut) && !last_of(text, ' ', &cut))
        return false;
    return file_of(without_blanks(part(text, 0, cut)), &pos->base, &pos->at.file) &&
           number_of(without_blanks(part(text, cut + 1, text.len)), &pos->at.at);
}

bool binlog_pos_parse(Span text, BinlogPos *pos, Err *err)
{
    Span trimmed = without_blanks(text.at ? text : span_of("", 0));

    *pos = (BinlogPos){0};
    if (!pos_of(trimmed, pos)) {
        err_fail(err, ERR_USAGE, "\"%.*s\" is not a binlog position",
                 (int)size_min(trimmed.len, 300), (const char *)trimmed.at);
        return err_hint(
            err,
            "a binlog position looks like mysql-bin.000042:1234, as printed by SHOW MASTER STATUS");
    }
    if (pos->at.at < BINLOG_FIRST_OFFSET) {
        err_fail(err, ERR_USAGE, "\"%.*s\" is before the first event of a binlog",
                 (int)size_min(trimmed.len, 300), (const char *)trimmed.at);
        return err_hint(err, "the first event of every binlog file is at 4");
    }
    return true;
}

void binlog_file_put(Span base, uint64_t number, Buf *out)
{
    buf_put_span(out, base);
    buf_printf(out, ".%06" PRIu64, number);
}

void binlog_pos_put(const BinlogPos *pos, Buf *out)
{
    binlog_file_put(pos->base, pos->at.file, out);
    buf_printf(out, ":%" PRIu64, pos->at.at);
}

bool binlog_pos_compare(const BinlogPos *a, const BinlogPos *b, int *order, Err *err)
{
    if (!span_equal(a->base, b->base))
        return err_fail(
            err, ERR_FAITHFUL,
            "binlog files %.*s and %.*s are of different series: their positions have no order",
            SPAN_FMT(a->base), SPAN_FMT(b->base));
    *order = position_compare(a->at, b->at);
    return true;
}
