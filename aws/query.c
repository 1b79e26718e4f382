#include "aws/query.h"

#include "aws/client.h"
#include "aws/sigv4.h"

#define MOST_BODY MIB(1)

void query_init(Query *query, const char *action, const char *version)
{
    buf_init(&query->body, MOST_BODY);
    query_str(query, "Action", action);
    query_str(query, "Version", version);
}

void query_fini(Query *query)
{
    buf_wipe(&query->body); /* a master password may be in it */
}

void query_str(Query *query, const char *name, const char *value)
{
    if (!value)
        return;
    if (query->body.len)
        buf_putc(&query->body, '&');
    buf_puts(&query->body, name);
    buf_putc(&query->body, '=');
    sigv4_encode(&query->body, span_str(value), false);
}

void query_num(Query *query, const char *name, AwsNum value)
{
    char text[24];

    if (!value.set)
        return;
    snprintf(text, sizeof(text), "%" PRId64, value.value);
    query_str(query, name, text);
}

void query_bool(Query *query, const char *name, AwsBool value)
{
    if (value != AWS_UNSET)
        query_str(query, name, value == AWS_TRUE ? "true" : "false");
}

void query_names(Query *query, const char *spelling, AwsNames names)
{
    char name[128];

    for (size_t i = 0; i < names.count; i++) {
        snprintf(name, sizeof(name), "%s.%zu", spelling, i + 1);
        query_str(query, name, names.at[i]);
    }
}

static void put_pair(Query *query, const char *spelling, size_t number, const char *part,
                     const char *value)
{
    char name[128];

    snprintf(name, sizeof(name), "%s.%zu.%s", spelling, number, part);
    query_str(query, name, value);
}

void query_pairs(Query *query, const char *spelling, const char *key, const char *value,
                 AwsTags pairs)
{
    for (size_t i = 0; i < pairs.count; i++) {
        put_pair(query, spelling, i + 1, key, pairs.at[i].key);
        put_pair(query, spelling, i + 1, value, pairs.at[i].value);
    }
}

void query_tags(Query *query, AwsTags tags, const char *run)
{
    size_t number = 0;

    for (size_t i = 0; i < tags.count; i++) {
        if (strncmp(tags.at[i].key, "aws:", 4) == 0 ||
            (run && strcmp(tags.at[i].key, AWS_RUN_TAG) == 0))
            continue;
        put_pair(query, "Tags.Tag", ++number, "Key", tags.at[i].key);
        put_pair(query, "Tags.Tag", number, "Value", tags.at[i].value);
    }
    if (run) {
        put_pair(query, "Tags.Tag", ++number, "Key", AWS_RUN_TAG);
        put_pair(query, "Tags.Tag", number, "Value", run);
    }
}
