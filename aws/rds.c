/* What all RDS calls share: paging, and making things once although answers get lost. */
#include "aws/rds.h"

#include "aws/rds_impl.h"
#include "engine/base/log.h"

#define MOST_PAGES 2000

void rds_query_init(Query *query, const char *operation)
{
    query_init(query, operation, aws_service_rds.version);
}

static bool read_page(Aws *aws, const RdsDescribe *what, const char *marker, Arena *arena,
                      const XmlNode **result, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, what->operation);
    for (size_t i = 0; i < what->params.count; i++)
        query_str(&query, what->params.at[i].key, what->params.at[i].value);
    query_str(&query, "Marker", marker);
    return aws_query(aws, &aws_service_rds, what->operation, &query, arena, result, err);
}

static void add_nodes(const XmlNode *list, const char *element, Arena *arena, RdsNodes *out)
{
    size_t more = xml_count(list, element);
    const XmlNode **at = arena_alloc(arena, (out->count + more + 1) * sizeof(*at));

    if (out->count)
        memcpy(at, out->at, out->count * sizeof(*at));
    out->at = at;
    for (const XmlNode *node = xml_first(list, element); node; node = xml_next(node, element))
        out->at[out->count++] = node;
}

bool rds_describe(Aws *aws, const RdsDescribe *what, Arena *arena, RdsNodes *out, Err *err)
{
    const char *marker = NULL;

    *out = (RdsNodes){.count = 0};
    for (unsigned page = 0; page < MOST_PAGES; page++) {
        const XmlNode *result;
        const char *next;

        if (!read_page(aws, what, marker, arena, &result, err))
            return false;
        add_nodes(xml_at(result, what->list), what->element, arena, out);
        next = xml_text(result, "Marker");
        if (!next || !*next)
            return true;
        if (marker && strcmp(marker, next) == 0)
            break;
        marker = next;
    }
    return err_fail(err, ERR_PROTOCOL, "RDS %s: the pages don't come to an end", what->operation);
}

bool rds_do(Aws *aws, const char *operation, const Query *query, Err *err)
{
    const XmlNode *result;
    Arena scratch;
    bool ok;

    arena_init(&scratch, 4096);
    ok = aws_query(aws, &aws_service_rds, operation, query, &scratch, &result, err);
    arena_fini(&scratch);
    return ok;
}

/* Ours although the call failed: an answer was lost, or this is the second time after a crash. */
static bool take_ours(Aws *aws, const RdsMake *make, Arena *arena, const XmlNode **node,
                      const Err *failure)
{
    AwsTags tags = {.count = 0};
    Err why = ERR_INIT;

    if (!make->find(aws, make->name, arena, node, &tags, &why) || !*node)
        return false;
    if (!aws_is_ours(aws, tags))
        return false;
    log_info("AWS resource was made by an earlier attempt", F_STR("operation", make->operation),
             F_STR("name", make->name), F_STR("because", failure->code));
    return true;
}

bool rds_make(Aws *aws, const RdsMake *make, Arena *arena, const XmlNode **node, Err *err)
{
    const XmlNode *result;
    bool lost;

    if (aws_query(aws, &aws_service_rds, make->operation, make->query, arena, &result, err)) {
        *node = xml_at(result, make->result);
        return *node || err_fail(err, ERR_PROTOCOL, "RDS %s: the answer has no %s", make->operation,
                                 make->result);
    }
    lost = aws_was_ambiguous(aws) && err->kind != ERR_STOPPED;
    if (!lost && !aws_code_is(err, make->exists))
        return false;
    if (!take_ours(aws, make, arena, node, err))
        return false; /* err still says why the call failed */
    err_clear(err);
    return true;
}

AwsTags rds_read_tags(const XmlNode *list, Arena *arena)
{
    AwsTags tags = {.at = arena_array(arena, AwsTag, xml_count(list, "Tag") + 1)};

    for (const XmlNode *tag = xml_first(list, "Tag"); tag; tag = xml_next(tag, "Tag")) {
        const char *key = xml_text(tag, "Key");
        const char *value = xml_text(tag, "Value");

        if (key)
            tags.at[tags.count++] = (AwsTag){key, value ? value : ""};
    }
    return tags;
}

bool rds_not_found(const char *what, const char *name, const char *code, Err *err)
{
    err_fail(err, ERR_AWS, "RDS has no %s \"%s\" in this account and region", what, name);
    return err_code(err, code);
}

bool rds_list_tags(Aws *aws, const char *arn, Arena *arena, AwsTags *tags, Err *err)
{
    const XmlNode *result;
    AUTO_QUERY query;

    rds_query_init(&query, "ListTagsForResource");
    query_str(&query, "ResourceName", arn);
    if (!aws_query(aws, &aws_service_rds, "ListTagsForResource", &query, arena, &result, err))
        return false;
    *tags = rds_read_tags(xml_at(result, "TagList"), arena);
    return true;
}

bool rds_add_tags(Aws *aws, const char *arn, AwsTags tags, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "AddTagsToResource");
    query_str(&query, "ResourceName", arn);
    query_tags(&query, tags, NULL);
    return rds_do(aws, "AddTagsToResource", &query, err);
}
