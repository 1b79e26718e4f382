/* reader.h - reads bytes from a peer and can't overread.
 *
 * There is one function that moves the cursor. Failure is sticky: read in straight lines, name each
 * field, ask once with reader_finish, and use nothing before it said true.
 */
#ifndef READER_H
#define READER_H

#include "engine/base/err.h"
#include "engine/base/span.h"

typedef struct Reader {
    const uint8_t *start;
    const uint8_t *at;
    const uint8_t *end;
    const char *broken; /* the field that didn't fit, NULL while all is well */
    const char *why;    /* for fields that fit and can't be right */
    size_t broken_at;   /* byte of it */
} Reader;

static inline Reader reader_of(Span bytes)
{
    const uint8_t *at = bytes.at ? bytes.at : (const uint8_t *)""; /* NULL + 0 isn't C */

    return (Reader){.start = at, .at = at, .end = at + bytes.len};
}

static inline size_t reader_left(const Reader *r)
{
    return r->broken ? 0 : (size_t)(r->end - r->at);
}

/* The field doesn't fit, or (why) fits and can't be right. The first break is the one reported. */
void reader_break(Reader *r, const char *field, const char *why);

static inline Span reader_span(Reader *r, size_t len, const char *field)
{
    Span got = {r->at, len};

    if (UNLIKELY(r->broken || (size_t)(r->end - r->at) < len)) {
        reader_break(r, field, NULL);
        return SPAN_NONE;
    }
    r->at += len;
    return got;
}

static inline uint8_t reader_u8(Reader *r, const char *field)
{
    Span got = reader_span(r, 1, field);

    return got.at ? got.at[0] : 0;
}

#define READER_INT(name, type, swap)                      \
    static inline type name(Reader *r, const char *field) \
    {                                                     \
        Span got = reader_span(r, sizeof(type), field);   \
        type value = 0;                                   \
                                                          \
        if (LIKELY(got.at != NULL))                       \
            memcpy(&value, got.at, sizeof(value));        \
        return swap(value);                               \
    }
#define READER_AS_IS(x) (x)
READER_INT(reader_u16be, uint16_t, __builtin_bswap16)
READER_INT(reader_u32be, uint32_t, __builtin_bswap32)
READER_INT(reader_u64be, uint64_t, __builtin_bswap64)
READER_INT(reader_u16le, uint16_t, READER_AS_IS)
READER_INT(reader_u32le, uint32_t, READER_AS_IS)
READER_INT(reader_u64le, uint64_t, READER_AS_IS)

/* Up to the next NUL, which is consumed and not part of the span. */
Span reader_str(Reader *r, const char *field);
/* A claimed count of items that take at least `least` bytes each: breaks unless they can fit.
 * So a hostile count never reaches an allocation or a loop. */
size_t reader_count(Reader *r, size_t claimed, size_t least, const char *field);
/* A reader over the next len bytes, which are consumed here. */
Reader reader_sub(Reader *r, size_t len, const char *field);
/* True when nothing broke and every byte was used; else ERR_PROTOCOL with `message` named. */
MUST_USE bool reader_finish(const Reader *r, const char *message, Err *err);

#endif
