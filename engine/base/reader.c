#include "engine/base/reader.h"

void reader_break(Reader *r, const char *field, const char *why)
{
    if (r->broken)
        return;
    r->broken = field;
    r->why = why;
    r->broken_at = (size_t)(r->at - r->start);
}

Span reader_str(Reader *r, const char *field)
{
    size_t left = reader_left(r);
    const uint8_t *nul = left ? memchr(r->at, 0, left) : NULL;
    Span got;

    if (!nul) {
        reader_break(r, field, NULL);
        return SPAN_NONE;
    }
    got = span_of(r->at, (size_t)(nul - r->at));
    r->at = nul + 1;
    return got;
}

size_t reader_count(Reader *r, size_t claimed, size_t least, const char *field)
{
    if (r->broken)
        return 0;
    if (claimed > reader_left(r) / size_max(least, 1)) {
        reader_break(r, field, "more than the message can hold");
        return 0;
    }
    return claimed;
}

Reader reader_sub(Reader *r, size_t len, const char *field)
{
    Span got = reader_span(r, len, field);
    Reader sub = reader_of(got);

    if (r->broken)
        reader_break(&sub, field, NULL);
    return sub;
}

bool reader_finish(const Reader *r, const char *message, Err *err)
{
    size_t size = (size_t)(r->end - r->start);

    if (r->broken && r->why)
        return err_fail(err, ERR_PROTOCOL, "%s: %s at byte %zu of %zu: %s", message, r->broken,
                        r->broken_at, size, r->why);
    if (r->broken)
        return err_fail(err, ERR_PROTOCOL, "%s: %s does not fit at byte %zu of %zu", message,
                        r->broken, r->broken_at, size);
    if (r->at != r->end)
        return err_fail(err, ERR_PROTOCOL, "%s: %zu bytes left over at byte %zu of %zu", message,
                        (size_t)(r->end - r->at), (size_t)(r->at - r->start), size);
    return true;
}
