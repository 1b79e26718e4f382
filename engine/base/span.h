/* span.h - borrowed bytes, passed by value. Whoever made them says how long they live. */
#ifndef SPAN_H
#define SPAN_H

#include "engine/base/base.h"

typedef struct Span {
    const uint8_t *at; /* NULL: nothing was there, which is not the same as empty */
    size_t len;        /* bytes */
} Span;

#define SPAN_NONE      ((Span){NULL, 0})
#define SPAN_LIT(text) ((Span){(const uint8_t *)(text), sizeof(text) - 1})
#define SPAN_FMT(span) (int)(span).len, (const char *)(span).at /* for "%.*s" */

static inline Span span_of(const void *at, size_t len)
{
    return (Span){(const uint8_t *)at, len};
}

static inline Span span_str(const char *text)
{
    return text ? span_of(text, strlen(text)) : SPAN_NONE;
}

static inline bool span_equal(Span a, Span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

static inline bool span_is(Span span, const char *text)
{
    return span_equal(span, span_str(text));
}

static inline bool span_starts(Span span, const char *prefix)
{
    size_t len = strlen(prefix);

    return span.len >= len && memcmp(span.at, prefix, len) == 0;
}

/* Bytes first, then length: a total order that doesn't depend on the locale. */
static inline int span_compare(Span a, Span b)
{
    size_t least = size_min(a.len, b.len);
    int order = least ? memcmp(a.at, b.at, least) : 0;

    return order ? order : (a.len > b.len) - (a.len < b.len);
}

#endif
