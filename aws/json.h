/* json.h - JSON answers by jansson, texts copied into an arena. */
#ifndef AWS_JSON_H
#define AWS_JSON_H

#include <jansson.h>

#include "aws/value.h"
#include "engine/base/arena.h"
#include "engine/base/err.h"
#include "engine/base/span.h"

static inline void awsjson_drop(json_t **json)
{
    json_decref(*json);
}
#define AUTO_JSON ON_EXIT(awsjson_drop) json_t *

/* An object; ERR_PROTOCOL when the text is anything else. */
MUST_USE bool awsjson_parse(Span text, json_t **object, Err *err);
const char *awsjson_text(const json_t *object, const char *key,
                         Arena *arena); /* NULL: not there, or no text */
AwsBool awsjson_bool(const json_t *object, const char *key);
AwsNum awsjson_num(const json_t *object, const char *key);

#endif
