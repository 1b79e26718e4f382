#include "aws/rds_impl.h"
#include "engine/base/log.h"

#define GROUP_GONE        "DBParameterGroupNotFound DBParameterGroupNotFoundFault"
#define PARAMETERS_A_CALL 20

static void read_group(const XmlNode *node, RdsParameterGroup *out)
{
    *out = (RdsParameterGroup){.name = xml_text(node, "DBParameterGroupName"),
                               .family = xml_text(node, "DBParameterGroupFamily"),
                               .description = xml_text(node, "Description"),
                               .arn = xml_text(node, "DBParameterGroupArn")};
}

bool rds_find_parameter_group(Aws *aws, const char *name, Arena *arena, RdsParameterGroup **found,
                              Err *err)
{
    AwsTag param = {"DBParameterGroupName", name};
    RdsDescribe what = {
        "DescribeDBParameterGroups", {&param, 1}, "DBParameterGroups", "DBParameterGroup"};
    RdsNodes nodes;

    *found = NULL;
    if (!rds_describe(aws, &what, arena, &nodes, err)) {
        if (!aws_code_is(err, GROUP_GONE))
            return false;
        err_clear(err);
        return true;
    }
    if (nodes.count) {
        *found = arena_new(arena, RdsParameterGroup);
        read_group(nodes.at[0], *found);
    }
    return true;
}

static bool find_node(Aws *aws, const char *name, Arena *arena, const XmlNode **node, AwsTags *tags,
                      Err *err)
{
    AwsTag param = {"DBParameterGroupName", name};
    RdsDescribe what = {
        "DescribeDBParameterGroups", {&param, 1}, "DBParameterGroups", "DBParameterGroup"};
    RdsNodes nodes;
    const char *arn;

    *node = NULL;
    if (!rds_describe(aws, &what, arena, &nodes, err))
        return false;
    *node = nodes.count ? nodes.at[0] : NULL;
    arn = xml_text(*node, "DBParameterGroupArn");
    return !arn || rds_list_tags(aws, arn, arena, tags, err);
}

bool rds_create_parameter_group(Aws *aws, const RdsParameterGroup *group, AwsTags tags, Err *err)
{
    AUTO_QUERY query;
    RdsMake make = {.operation = "CreateDBParameterGroup",
                    .query = &query,
                    .exists = "DBParameterGroupAlreadyExists DBParameterGroupAlreadyExistsFault",
                    .find = find_node,
                    .name = group->name,
                    .result = "DBParameterGroup"};
    const XmlNode *node;
    Arena arena;
    bool ok;

    rds_query_init(&query, make.operation);
    query_str(&query, "DBParameterGroupName", group->name);
    query_str(&query, "DBParameterGroupFamily", group->family);
    query_str(&query, "Description", group->description ? group->description : group->name);
    query_tags(&query, tags, aws_run(aws));
    arena_init(&arena, 4096);
    ok = rds_make(aws, &make, &arena, &node, err);
    arena_fini(&arena);
    return ok;
}

static const char *apply_method(const RdsParameter *parameter)
{
    if (parameter->apply_method)
        return parameter->apply_method;
    return parameter->apply_type && strcmp(parameter->apply_type, "dynamic") == 0
               ? "immediate"
               : "pending-reboot";
}

static void put_parameter(Query *query, size_t number, const char *part, const char *value)
{
    char name[80];

    snprintf(name, sizeof(name), "Parameters.Parameter.%zu.%s", number, part);
    query_str(query, name, value);
}

static bool modify_some(Aws *aws, const char *name, const RdsParameter *at, size_t count, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "ModifyDBParameterGroup");
    query_str(&query, "DBParameterGroupName", name);
    for (size_t i = 0; i < count; i++) {
        put_parameter(&query, i + 1, "ParameterName", at[i].name);
        put_parameter(&query, i + 1, "ParameterValue", at[i].value);
        put_parameter(&query, i + 1, "ApplyMethod", apply_method(&at[i]));
    }
    return rds_do(aws, "ModifyDBParameterGroup", &query, err);
}

bool rds_modify_parameter_group(Aws *aws, const char *name, RdsParameters parameters, Err *err)
{
    for (size_t done = 0; done < parameters.count; done += PARAMETERS_A_CALL)
        if (!modify_some(aws, name, parameters.at + done,
                         size_min(parameters.count - done, PARAMETERS_A_CALL), err))
            return false;
    return true;
}

bool rds_delete_parameter_group(Aws *aws, const char *name, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "DeleteDBParameterGroup");
    query_str(&query, "DBParameterGroupName", name);
    if (rds_do(aws, "DeleteDBParameterGroup", &query, err))
        return true;
    if (!aws_code_is(err, GROUP_GONE))
        return false;
    err_clear(err);
    return true;
}

bool rds_list_parameters(Aws *aws, const char *group, const char *source, Arena *arena,
                         RdsParameters *all, Err *err)
{
    AwsTag params[] = {{"DBParameterGroupName", group}, {"Source", source}};
    RdsDescribe what = {"DescribeDBParameters", {params, 2}, "Parameters", "Parameter"};
    RdsNodes nodes;

    if (!rds_describe(aws, &what, arena, &nodes, err))
        return false;
    all->at = arena_array(arena, RdsParameter, nodes.count + 1);
    all->count = nodes.count;
    for (size_t i = 0; i < nodes.count; i++) {
        const XmlNode *node = nodes.at[i];

        all->at[i] = (RdsParameter){
            .name = xml_text(node, "ParameterName") ? xml_text(node, "ParameterName") : "",
            .value = xml_text(node, "ParameterValue"),
            .source = xml_text(node, "Source"),
            .apply_type = xml_text(node, "ApplyType"),
            .apply_method = xml_text(node, "ApplyMethod"),
            .data_type = xml_text(node, "DataType"),
            .allowed = xml_text(node, "AllowedValues"),
            .modifiable = xml_bool(node, "IsModifiable")};
    }
    return true;
}

const RdsParameter *rds_parameter(RdsParameters all, const char *name)
{
    for (size_t i = 0; i < all.count; i++)
        if (strcmp(all.at[i].name, name) == 0)
            return &all.at[i];
    return NULL;
}
