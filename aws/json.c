#include "aws/json.h"

bool awsjson_parse(Span text, json_t **object, Err *err)
{
    json_error_t why;

    *object =
        json_loadb(text.len ? (const char *)text.at : "", text.len, JSON_REJECT_DUPLICATES, &why);
    if (!*object)
        return err_fail(err, ERR_PROTOCOL, "an answer isn't JSON: %s in line %d, column %d",
                        why.text, why.line, why.column);
    if (json_is_object(*object))
        return true;
    json_decref(*object);
    *object = NULL;
    return err_fail(err, ERR_PROTOCOL, "an answer isn't a JSON object");
}

const char *awsjson_text(const json_t *object, const char *key, Arena *arena)
{
    const char *text = json_string_value(json_object_get(object, key));

    return text ? arena_strdup(arena, text) : NULL;
}

AwsBool awsjson_bool(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_boolean(value) ? aws_bool(json_is_true(value)) : AWS_UNSET;
}

AwsNum awsjson_num(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_integer(value) ? aws_num(json_integer_value(value)) : (AwsNum){.set = false};
}
