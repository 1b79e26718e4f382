/* value.h - the small types that AWS calls share: optional numbers and flags, lists of names, tags.
 *
 * Zero means "not given" everywhere, so a zeroed struct sends nothing that wasn't asked for.
 * Texts are borrowed; what a call gives back lives in the arena that was passed to it.
 */
#ifndef AWS_VALUE_H
#define AWS_VALUE_H

#include "engine/base/base.h"

typedef enum AwsBool { AWS_UNSET, AWS_FALSE, AWS_TRUE } AwsBool;

typedef struct AwsNum {
    bool set;
    int64_t value;
} AwsNum;

typedef struct AwsNames {
    const char **at;
    size_t count;
} AwsNames;

typedef struct AwsTag {
    const char *key;
    const char *value; /* may be "" */
} AwsTag;

typedef struct AwsTags {
    AwsTag *at;
    size_t count;
} AwsTags;

static inline AwsBool aws_bool(bool value)
{
    return value ? AWS_TRUE : AWS_FALSE;
}

static inline AwsNum aws_num(int64_t value)
{
    return (AwsNum){.set = true, .value = value};
}

/* What was not given counts as false. */
static inline bool aws_is(AwsBool value)
{
    return value == AWS_TRUE;
}

static inline int64_t aws_num_or(AwsNum num, int64_t otherwise)
{
    return num.set ? num.value : otherwise;
}

/* NULL when there is no such tag. */
static inline const char *aws_tag(AwsTags tags, const char *key)
{
    for (size_t i = 0; i < tags.count; i++)
        if (strcmp(tags.at[i].key, key) == 0)
            return tags.at[i].value;
    return NULL;
}

#endif
