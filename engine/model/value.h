/* value.h - one column's value in one row, as the source sent it. */
#ifndef VALUE_H
#define VALUE_H

#include "engine/base/span.h"

typedef enum ValueKind {
    VALUE_ABSENT, /* the message doesn't say: not part of the old row's identity, or of the image */
    VALUE_NULL,   /* SQL NULL */
    VALUE_TEXT,   /* the type's text output, no NUL behind */
    VALUE_BINARY, /* the type's send output */
    VALUE_UNCHANGED, /* a TOASTed value that the update left alone; the source didn't send it */
} ValueKind;

typedef struct Value {
    const uint8_t *at; /* into the message; lives as long as the batch's arena */
    uint32_t len;
    uint8_t kind; /* ValueKind */
} Value;

static inline bool value_is_known(Value v)
{
    return v.kind == VALUE_NULL || v.kind == VALUE_TEXT || v.kind == VALUE_BINARY;
}

static inline bool value_equal(Value a, Value b)
{
    return a.kind == b.kind && a.len == b.len && (a.len == 0 || memcmp(a.at, b.at, a.len) == 0);
}

#endif
