#include "aws/rds_impl.h"

#define SNAPSHOT_GONE   "DBSnapshotNotFound DBSnapshotNotFoundFault"
#define SNAPSHOT_EXISTS "DBSnapshotAlreadyExists DBSnapshotAlreadyExistsFault"

static const char *text_or_null(const XmlNode *node, const char *path)
{
    const char *text = xml_text(node, path);

    return text && *text ? text : NULL;
}

static void read_snapshot(const XmlNode *node, Arena *arena, RdsSnapshot *out)
{
    *out = (RdsSnapshot){.name = text_or_null(node, "DBSnapshotIdentifier"),
                         .arn = text_or_null(node, "DBSnapshotArn"),
                         .instance = text_or_null(node, "DBInstanceIdentifier"),
                         .status = text_or_null(node, "Status"),
                         .type = text_or_null(node, "SnapshotType"),
                         .engine = text_or_null(node, "Engine"),
                         .engine_version = text_or_null(node, "EngineVersion"),
                         .created = text_or_null(node, "SnapshotCreateTime"),
                         .availability_zone = text_or_null(node, "AvailabilityZone"),
                         .vpc = text_or_null(node, "VpcId"),
                         .option_group = text_or_null(node, "OptionGroupName"),
                         .storage_type = text_or_null(node, "StorageType"),
                         .license_model = text_or_null(node, "LicenseModel"),
                         .source_snapshot = text_or_null(node, "SourceDBSnapshotIdentifier"),
                         .source_region = text_or_null(node, "SourceRegion"),
                         .resource_id = text_or_null(node, "DbiResourceId"),
                         .master_user = text_or_null(node, "MasterUsername"),
                         .kms_key = text_or_null(node, "KmsKeyId"),
                         .allocated_storage = xml_num(node, "AllocatedStorage"),
                         .iops = xml_num(node, "Iops"),
                         .storage_throughput = xml_num(node, "StorageThroughput"),
                         .percent = xml_num(node, "PercentProgress"),
                         .port = xml_num(node, "Port"),
                         .encrypted = xml_bool(node, "Encrypted"),
                         .iam_auth = xml_bool(node, "IAMDatabaseAuthenticationEnabled"),
                         .tags = rds_read_tags(xml_at(node, "TagList"), arena)};
}

static bool find_node(Aws *aws, const char *name, Arena *arena, const XmlNode **node, AwsTags *tags,
                      Err *err)
{
    AwsTag param = {"DBSnapshotIdentifier", name};
    RdsDescribe what = {"DescribeDBSnapshots", {&param, 1}, "DBSnapshots", "DBSnapshot"};
    RdsNodes nodes;

    *node = NULL;
    if (!rds_describe(aws, &what, arena, &nodes, err)) {
        if (!aws_code_is(err, SNAPSHOT_GONE))
            return false;
        err_clear(err);
        return true;
    }
    *node = nodes.count ? nodes.at[0] : NULL;
    *tags = rds_read_tags(xml_at(*node, "TagList"), arena);
    return true;
}

static RdsSnapshot *snapshot_of(const XmlNode *node, Arena *arena)
{
    RdsSnapshot *out = node ? arena_new(arena, RdsSnapshot) : NULL;

    if (out)
        read_snapshot(node, arena, out);
    return out;
}

bool rds_find_snapshot(Aws *aws, const char *name, Arena *arena, RdsSnapshot **found, Err *err)
{
    const XmlNode *node;
    AwsTags tags;

    if (!find_node(aws, name, arena, &node, &tags, err))
        return false;
    *found = snapshot_of(node, arena);
    return true;
}

bool rds_get_snapshot(Aws *aws, const char *name, Arena *arena, RdsSnapshot **found, Err *err)
{
    if (!rds_find_snapshot(aws, name, arena, found, err))
        return false;
    return *found || rds_not_found("snapshot", name, "DBSnapshotNotFound", err);
}

bool rds_list_snapshots(Aws *aws, const char *instance, const char *type, Arena *arena,
                        RdsSnapshots *all, Err *err)
{
    AwsTag params[] = {{"DBInstanceIdentifier", instance}, {"SnapshotType", type}};
    RdsDescribe what = {"DescribeDBSnapshots", {params, 2}, "DBSnapshots", "DBSnapshot"};
    RdsNodes nodes;

    if (!rds_describe(aws, &what, arena, &nodes, err))
        return false;
    all->at = arena_array(arena, RdsSnapshot, nodes.count + 1);
    all->count = nodes.count;
    for (size_t i = 0; i < nodes.count; i++)
        read_snapshot(nodes.at[i], arena, &all->at[i]);
    return true;
}

static bool make_snapshot(Aws *aws, const char *operation, const Query *query, const char *name,
                          Arena *arena, RdsSnapshot **made, Err *err)
{
    RdsMake make = {.operation = operation,
                    .query = query,
                    .exists = SNAPSHOT_EXISTS,
                    .find = find_node,
                    .name = name,
                    .result = "DBSnapshot"};
    const XmlNode *node;

    if (!rds_make(aws, &make, arena, &node, err))
        return false;
    *made = snapshot_of(node, arena);
    return true;
}

bool rds_create_snapshot(Aws *aws, const char *instance, const char *name, AwsTags tags,
                         Arena *arena, RdsSnapshot **made, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "CreateDBSnapshot");
    query_str(&query, "DBInstanceIdentifier", instance);
    query_str(&query, "DBSnapshotIdentifier", name);
    query_tags(&query, tags, aws_run(aws));
    return make_snapshot(aws, "CreateDBSnapshot", &query, name, arena, made, err);
}

bool rds_copy_snapshot(Aws *aws, const RdsCopy *copy, Arena *arena, RdsSnapshot **made, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "CopyDBSnapshot");
    if (!copy->kms_key || !*copy->kms_key)
        return err_fail(err, ERR_BUG, "copying snapshot %s without a key would keep the old one",
                        copy->source);
    query_str(&query, "SourceDBSnapshotIdentifier", copy->source);
    query_str(&query, "TargetDBSnapshotIdentifier", copy->name);
    query_str(&query, "KmsKeyId", copy->kms_key);
    query_bool(&query, "CopyTags", AWS_TRUE);
    query_str(&query, "OptionGroupName", copy->option_group);
    query_tags(&query, copy->tags, aws_run(aws));
    return make_snapshot(aws, "CopyDBSnapshot", &query, copy->name, arena, made, err);
}

static bool is_going(Aws *aws, const char *name)
{
    RdsSnapshot *found = NULL;
    Err why = ERR_INIT;
    Arena arena;
    bool going;

    arena_init(&arena, 4096);
    going = rds_find_snapshot(aws, name, &arena, &found, &why) &&
            (!found || (found->status && strcmp(found->status, "deleting") == 0));
    arena_fini(&arena);
    return going;
}

bool rds_delete_snapshot(Aws *aws, const char *name, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "DeleteDBSnapshot");
    query_str(&query, "DBSnapshotIdentifier", name);
    if (rds_do(aws, "DeleteDBSnapshot", &query, err))
        return true;
    if (!aws_code_is(err, SNAPSHOT_GONE) &&
        !((aws_was_ambiguous(aws) ||
           aws_code_is(err, "InvalidDBSnapshotState InvalidDBSnapshotStateFault")) &&
          err->kind != ERR_STOPPED && is_going(aws, name)))
        return false;
    err_clear(err);
    return true;
}

/* Waiting ------------------------------------------------------------------------------------ */

typedef struct Watch {
    Aws *aws;
    const char *name;
} Watch;

static AwsState state_of(const char *status)
{
    static const char *const failed[] = {"deleted", "deleting", "failed", "incompatible-restore",
                                         "incompatible-parameters"};

    if (!status)
        return AWS_STATE_WAIT;
    for (size_t i = 0; i < ARRAY_LEN(failed); i++)
        if (strcmp(status, failed[i]) == 0)
            return AWS_STATE_FAILED;
    return strcmp(status, "available") == 0 ? AWS_STATE_READY : AWS_STATE_WAIT;
}

static bool look_snapshot(void *self, AwsProgress *progress, Err *err)
{
    Watch *watch = self;
    RdsSnapshot *found;
    Arena arena;
    bool ok;

    arena_init(&arena, 4096);
    ok = rds_get_snapshot(watch->aws, watch->name, &arena, &found, err);
    if (ok) {
        snprintf(progress->status, sizeof(progress->status), "%s",
                 found->status ? found->status : "unknown");
        progress->percent = (int)aws_num_or(found->percent, -1);
        progress->state = state_of(found->status);
    }
    arena_fini(&arena);
    return ok;
}

static bool look_snapshot_gone(void *self, AwsProgress *progress, Err *err)
{
    Watch *watch = self;
    RdsSnapshot *found;
    Arena arena;
    bool ok;

    arena_init(&arena, 4096);
    ok = rds_find_snapshot(watch->aws, watch->name, &arena, &found, err);
    if (ok) {
        snprintf(progress->status, sizeof(progress->status), "%s",
                 found && found->status ? found->status : "deleted");
        progress->state = found ? AWS_STATE_WAIT : AWS_STATE_READY;
    }
    arena_fini(&arena);
    return ok;
}

static bool wait_for(Watch *watch, bool (*look)(void *, AwsProgress *, Err *), const char *what,
                     AwsProgressFn *progress, void *self, Err *err)
{
    char text[300];
    AwsWait wait = {
        .what = text, .look = look, .self = watch, .progress = progress, .progress_self = self};

    snprintf(text, sizeof(text), "%s %s", what, watch->name);
    return aws_wait(watch->aws, &wait, err);
}

bool rds_wait_snapshot(Aws *aws, const char *name, AwsProgressFn *progress, void *self, Err *err)
{
    return wait_for(&(Watch){aws, name}, look_snapshot, "snapshot", progress, self, err);
}

bool rds_wait_snapshot_gone(Aws *aws, const char *name, AwsProgressFn *progress, void *self,
                            Err *err)
{
    return wait_for(&(Watch){aws, name}, look_snapshot_gone, "the end of snapshot", progress, self,
                    err);
}
