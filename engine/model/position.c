#include "engine/model/position.h"

const char *lsn_text(uint64_t lsn, char out[LSN_TEXT])
{
    snprintf(out, LSN_TEXT, "%X/%X", LSN_ARGS(lsn));
    return out;
}

const char *position_text(Position p, char out[POSITION_TEXT])
{
    if (p.file == 0)
        snprintf(out, POSITION_TEXT, "%X/%X", LSN_ARGS(p.at));
    else
        snprintf(out, POSITION_TEXT, "%" PRIu64 ":%" PRIu64, p.file, p.at);
    return out;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
        return (c | 0x20) - 'a' + 10;
    return -1;
}

/* One to eight hex digits from *i on. */
static bool hex_part(Span text, size_t *i, uint64_t *value)
{
    size_t start = *i;

    for (*value = 0; *i < text.len && hex_digit(text.at[*i]) >= 0; (*i)++)
        *value = *value << 4 | (uint64_t)hex_digit(text.at[*i]);
    return *i > start && *i - start <= 8;
}

bool lsn_parse(Span text, uint64_t *lsn, Err *err)
{
    size_t i = 0;
    uint64_t high, low;

    if (hex_part(text, &i, &high) && i < text.len && text.at[i++] == '/' &&
        hex_part(text, &i, &low) && i == text.len) {
        *lsn = high << 32 | low;
        return true;
    }
    err_fail(err, ERR_USAGE, "\"%.*s\" is not an LSN", (int)size_min(text.len, 40),
             (const char *)text.at);
    return err_hint(err, "an LSN looks like 16/B374D848, as printed by pg_current_wal_lsn()");
}
