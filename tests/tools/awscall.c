/* awscall - AWS calls from the command line, so that tests in Python can drive aws/.
 *
 *   awscall [--option=value]… CALL ARG… [then CALL ARG…]…
 *
 * Each call prints one line of JSON: its result, or {"error": …} and the program ends with 6 (or
 * the kind's code). All calls of a run share one client. Not installed.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "aws/client_impl.h"
#include "aws/kms.h"
#include "aws/rds.h"
#include "aws/route53.h"
#include "aws/sts.h"
#include "engine/base/log.h"

typedef struct Tool {
    Aws *aws;
    Arena arena;
    Stop stop;
    char **args;
    int count;
    json_t *out; /* the result of the call */
    unsigned looks;
} Tool;

static const char *arg(Tool *tool, int n)
{
    return n < tool->count && strcmp(tool->args[n], "-") != 0 ? tool->args[n] : NULL;
}

static json_t *text(const char *value)
{
    return value ? json_string_nocheck(value) : json_null();
}

static json_t *number(AwsNum value)
{
    return value.set ? json_integer(value.value) : json_null();
}

static json_t *flag(AwsBool value)
{
    return value == AWS_UNSET ? json_null() : json_boolean(value == AWS_TRUE);
}

static json_t *names(AwsNames list)
{
    json_t *out = json_array();

    for (size_t i = 0; i < list.count; i++)
        json_array_append_new(out, text(list.at[i]));
    return out;
}

static json_t *tags(AwsTags list)
{
    json_t *out = json_object();

    for (size_t i = 0; i < list.count; i++)
        json_object_set_new_nocheck(out, list.at[i].key, text(list.at[i].value));
    return out;
}

static json_t *groups(RdsGroups list)
{
    json_t *out = json_object();

    for (size_t i = 0; i < list.count; i++)
        json_object_set_new_nocheck(out, list.at[i].name, text(list.at[i].status));
    return out;
}

static json_t *roles(RdsRoles list)
{
    json_t *out = json_array();

    for (size_t i = 0; i < list.count; i++)
        json_array_append_new(
            out, json_pack("[s?,s?,s?]", list.at[i].arn, list.at[i].feature, list.at[i].status));
    return out;
}

static void put(json_t *out, const char *key, json_t *value)
{
    json_object_set_new_nocheck(out, key, value);
}

static json_t *instance(const RdsInstance *it)
{
    json_t *out = json_object();

#define TEXT(field) put(out, #field, text(it->field))
#define NUM(field)  put(out, #field, number(it->field))
#define FLAG(field) put(out, #field, flag(it->field))
    TEXT(name), TEXT(arn), TEXT(resource_id), TEXT(status), TEXT(class_), TEXT(engine),
        TEXT(engine_version);
    TEXT(license_model), TEXT(cluster), TEXT(master_user), TEXT(db_name), TEXT(host),
        TEXT(host_zone), TEXT(created);
    TEXT(availability_zone), TEXT(secondary_zone), TEXT(subnet_group), TEXT(vpc),
        TEXT(network_type);
    TEXT(storage_type), TEXT(kms_key), TEXT(encryption_type), TEXT(storage_operation),
        TEXT(backup_window);
    TEXT(maintenance_window), TEXT(backup_target), TEXT(ca), TEXT(lifecycle_support),
        TEXT(monitoring_role);
    TEXT(performance_kms_key), TEXT(insights_mode), TEXT(secret_arn), TEXT(secret_kms_key),
        TEXT(iam_profile);
    TEXT(tde_arn), TEXT(timezone), TEXT(charset), TEXT(nchar_charset), TEXT(replica_of),
        TEXT(activity_stream);
    TEXT(activity_stream_kms_key);
    NUM(allocated_storage), NUM(max_allocated_storage), NUM(iops), NUM(storage_throughput),
        NUM(storage_percent);
    NUM(backup_retention), NUM(monitoring_interval), NUM(promotion_tier),
        NUM(performance_retention);
    FLAG(multi_az), FLAG(publicly_accessible), FLAG(storage_encrypted), FLAG(dedicated_log_volume),
        FLAG(iam_auth);
    FLAG(deletion_protection), FLAG(copy_tags_to_snapshot), FLAG(auto_minor_upgrade),
        FLAG(performance_insights);
    FLAG(customer_owned_ip);
#undef TEXT
#undef NUM
#undef FLAG
    put(out, "port", json_integer(it->port));
    put(out, "parameter_groups", groups(it->parameter_groups));
    put(out, "option_groups", groups(it->option_groups));
    put(out, "security_groups", groups(it->security_groups));
    put(out, "log_exports", names(it->log_exports));
    put(out, "roles", roles(it->roles));
    put(out, "domain", text(it->domains.count ? it->domains.at[0].domain : NULL));
    put(out, "processor_features", tags(it->processor_features));
    put(out, "tags", tags(it->tags));
    put(out, "pending", names(it->pending));
    put(out, "replicas", names(it->replicas));
    put(out, "backup_replications", names(it->backup_replications));
    return out;
}

static json_t *snapshot(const RdsSnapshot *it)
{
    return json_pack("{s:s?,s:s?,s:s?,s:s?,s:s?,s:s?,s:o,s:o,s:o,s:s?}", "name", it->name, "arn",
                     it->arn, "instance", it->instance, "status", it->status, "kms_key",
                     it->kms_key, "source", it->source_snapshot, "percent", number(it->percent),
                     "encrypted", flag(it->encrypted), "tags", tags(it->tags), "type", it->type);
}

static json_t *record(const Route53Record *it)
{
    return json_pack("{s:s?,s:s?,s:o,s:o,s:s?,s:o,s:s?,s:s?,s:s?}", "name", it->name, "type",
                     it->type, "ttl", number(it->ttl), "values", names(it->values), "set_id",
                     it->set_id, "weight", number(it->weight), "alias", it->alias_name,
                     "alias_zone", it->alias_zone, "rest", it->rest);
}

/* key=value key=value … from argument `n` on */
static AwsTags given_tags(Tool *tool, int n)
{
    AwsTags out = {.at = arena_array(&tool->arena, AwsTag, tool->count + 1)};

    for (; n < tool->count; n++) {
        const char *equal = strchr(tool->args[n], '=');

        if (equal)
            out.at[out.count++] = (AwsTag){
                arena_str_of(&tool->arena, span_of(tool->args[n], (size_t)(equal - tool->args[n]))),
                equal + 1};
    }
    return out;
}

static void on_progress(void *self, const AwsProgress *progress)
{
    Tool *tool = self;

    tool->looks++;
    fprintf(stderr, "state %s %d %d\n", progress->status, (int)progress->state, progress->percent);
}

/* Calls --------------------------------------------------------------------------------------- */

static bool call_identity(Tool *tool, Err *err)
{
    StsIdentity who;

    if (!sts_get_caller_identity(tool->aws, &tool->arena, &who, err))
        return false;
    tool->out =
        json_pack("{s:s?,s:s?,s:s?}", "account", who.account, "arn", who.arn, "user", who.user_id);
    return true;
}

static bool call_key(Tool *tool, Err *err)
{
    KmsKey key;

    if (!kms_describe_key(tool->aws, arg(tool, 1), &tool->arena, &key, err))
        return false;
    tool->out = json_pack("{s:s?,s:s?,s:s?,s:s?,s:s?,s:s?,s:s?,s:o}", "id", key.id, "arn", key.arn,
                          "state", key.state, "manager", key.manager, "spec", key.spec, "usage",
                          key.usage, "origin", key.origin, "enabled", flag(key.enabled));
    if (!arg(tool, 2))
        return true;
    return kms_check_key(&key, err);
}

static bool call_instance(Tool *tool, Err *err)
{
    RdsInstance *found;

    if (!rds_find_instance(tool->aws, arg(tool, 1), &tool->arena, &found, err))
        return false;
    tool->out = found ? instance(found) : json_null();
    return true;
}

static bool call_instances(Tool *tool, Err *err)
{
    RdsInstances all;

    if (!rds_list_instances(tool->aws, &tool->arena, &all, err))
        return false;
    tool->out = json_array();
    for (size_t i = 0; i < all.count; i++)
        json_array_append_new(tool->out, text(all.at[i].name));
    return true;
}

static bool call_restore_as(Tool *tool, Err *err)
{
    RdsInstance *from;
    RdsInstance *made;
    RdsRestore restore;

    if (!rds_get_instance(tool->aws, arg(tool, 1), &tool->arena, &from, err))
        return false;
    rds_restore_as(from, arg(tool, 2), arg(tool, 3), &tool->arena, &restore);
    if (!rds_restore_instance(tool->aws, &restore, &tool->arena, &made, err))
        return false;
    tool->out = instance(made);
    return true;
}

static bool call_modify_as(Tool *tool, Err *err)
{
    RdsInstance *from;
    RdsInstance *made;
    RdsModify modify;
    bool needed;

    if (!rds_get_instance(tool->aws, arg(tool, 1), &tool->arena, &from, err) ||
        !rds_get_instance(tool->aws, arg(tool, 2), &tool->arena, &made, err))
        return false;
    needed = rds_modify_as(from, made, &tool->arena, &modify);
    tool->out = json_boolean(needed);
    return !needed || rds_modify_instance(tool->aws, &modify, err);
}

static AwsNames two_names(Tool *tool, const char *a, const char *b)
{
    AwsNames list = {arena_array(&tool->arena, const char *, 2), 2};

    list.at[0] = a;
    list.at[1] = b;
    return list;
}

/* Every member that the client can send, with a plausible value. */
static bool call_restore_full(Tool *tool, Err *err)
{
    RdsInstance *made;
    RdsRestore all = {.name = arg(tool, 1),
                      .snapshot = arg(tool, 2),
                      .class_ = "db.r6g.large",
                      .availability_zone = "eu-west-1a",
                      .subnet_group = "default",
                      .license_model = "postgresql-license",
                      .option_group = "default:postgres-15",
                      .parameter_group = "default.postgres15",
                      .storage_type = "io1",
                      .network_type = "IPV4",
                      .ca = "rds-ca-rsa2048-g1",
                      .backup_window = "03:00-04:00",
                      .backup_target = "region",
                      .lifecycle_support = "open-source-rds-extended-support-disabled",
                      .iam_profile = "AWSRDSCustom-x",
                      .tde_arn = "arn:x",
                      .tde_password = "tde-secret",
                      .port = aws_num(5432),
                      .iops = aws_num(1000),
                      .storage_throughput = aws_num(125),
                      .allocated_storage = aws_num(100),
                      .backup_retention = aws_num(7),
                      .multi_az = AWS_FALSE,
                      .publicly_accessible = AWS_FALSE,
                      .auto_minor_upgrade = AWS_TRUE,
                      .copy_tags_to_snapshot = AWS_TRUE,
                      .iam_auth = AWS_TRUE,
                      .deletion_protection = AWS_TRUE,
                      .dedicated_log_volume = AWS_FALSE,
                      .customer_owned_ip = AWS_FALSE,
                      .default_processor_features = AWS_FALSE,
                      .security_groups = two_names(tool, "sg-1", "sg-2"),
                      .log_exports = two_names(tool, "postgresql", "upgrade"),
                      .processor_features = {&(AwsTag){"coreCount", "4"}, 1},
                      .domain = {.domain = "d-1", .iam_role = "role"},
                      .tags = {&(AwsTag){"a b", "c&d"}, 1}};

    if (!rds_restore_instance(tool->aws, &all, &tool->arena, &made, err))
        return false;
    tool->out = text(made->name);
    return true;
}

static bool call_modify_full(Tool *tool, Err *err)
{
    RdsModify all = {.name = arg(tool, 1),
                     .new_name = "other",
                     .class_ = "db.r6g.large",
                     .subnet_group = "default",
                     .parameter_group = "default.postgres15",
                     .option_group = "default:postgres-15",
                     .engine_version = "15.4",
                     .license_model = "postgresql-license",
                     .storage_type = "gp3",
                     .backup_window = "03:00-04:00",
                     .maintenance_window = "sun:05:00-sun:06:00",
                     .ca = "rds-ca-rsa2048-g1",
                     .monitoring_role = "arn:aws:iam::123456789012:role/m",
                     .network_type = "IPV4",
                     .performance_kms_key = "arn:key",
                     .insights_mode = "standard",
                     .master_secret_kms_key = "arn:key",
                     .tde_arn = "arn:x",
                     .tde_password = "tde-secret",
                     .master_password = "new-secret",
                     .allocated_storage = aws_num(200),
                     .max_allocated_storage = aws_num(500),
                     .iops = aws_num(3000),
                     .storage_throughput = aws_num(125),
                     .backup_retention = aws_num(0),
                     .monitoring_interval = aws_num(60),
                     .port = aws_num(5433),
                     .promotion_tier = aws_num(0),
                     .performance_retention = aws_num(7),
                     .multi_az = AWS_TRUE,
                     .publicly_accessible = AWS_FALSE,
                     .auto_minor_upgrade = AWS_FALSE,
                     .copy_tags_to_snapshot = AWS_TRUE,
                     .iam_auth = AWS_TRUE,
                     .deletion_protection = AWS_FALSE,
                     .performance_insights = AWS_TRUE,
                     .dedicated_log_volume = AWS_FALSE,
                     .certificate_restart = AWS_FALSE,
                     .manage_master_password = AWS_FALSE,
                     .allow_major_upgrade = AWS_FALSE,
                     .customer_owned_ip = AWS_FALSE,
                     .security_groups = two_names(tool, "sg-1", "sg-2"),
                     .enable_logs = two_names(tool, "postgresql", "upgrade"),
                     .disable_logs = two_names(tool, "a", "b"),
                     .processor_features = {&(AwsTag){"coreCount", "4"}, 1},
                     .domain = {.domain = "d-1", .iam_role = "role"}};

    return rds_modify_instance(tool->aws, &all, err);
}

static bool call_rename(Tool *tool, Err *err)
{
    return rds_rename_instance(tool->aws, arg(tool, 1), arg(tool, 2), arg(tool, 3), err);
}

static bool call_reboot(Tool *tool, Err *err)
{
    return rds_reboot_instance(tool->aws, arg(tool, 1), err);
}

static bool call_delete_instance(Tool *tool, Err *err)
{
    RdsDelete how = {.final_snapshot = arg(tool, 2)};

    return rds_delete_instance(tool->aws, arg(tool, 1), how, err);
}

static bool call_add_role(Tool *tool, Err *err)
{
    return rds_add_role(tool->aws, arg(tool, 1), arg(tool, 2), arg(tool, 3), err);
}

static bool call_wait_instance(Tool *tool, Err *err)
{
    return rds_wait_instance(tool->aws, arg(tool, 1), arg(tool, 2) != NULL, on_progress, tool, err);
}

static bool call_wait_renamed(Tool *tool, Err *err)
{
    return rds_wait_renamed(tool->aws, arg(tool, 1), arg(tool, 2), on_progress, tool, err);
}

static bool call_wait_instance_gone(Tool *tool, Err *err)
{
    return rds_wait_instance_gone(tool->aws, arg(tool, 1), on_progress, tool, err);
}

static bool call_create_snapshot(Tool *tool, Err *err)
{
    RdsSnapshot *made;

    if (!rds_create_snapshot(tool->aws, arg(tool, 1), arg(tool, 2), given_tags(tool, 3),
                             &tool->arena, &made, err))
        return false;
    tool->out = snapshot(made);
    return true;
}

static bool call_copy_snapshot(Tool *tool, Err *err)
{
    RdsCopy copy = {.source = arg(tool, 1),
                    .name = arg(tool, 2),
                    .kms_key = arg(tool, 3),
                    .option_group = arg(tool, 4),
                    .tags = given_tags(tool, 5)};
    RdsSnapshot *made;

    if (!rds_copy_snapshot(tool->aws, &copy, &tool->arena, &made, err))
        return false;
    tool->out = snapshot(made);
    return true;
}

static bool call_snapshot(Tool *tool, Err *err)
{
    RdsSnapshot *found;

    if (!rds_find_snapshot(tool->aws, arg(tool, 1), &tool->arena, &found, err))
        return false;
    tool->out = found ? snapshot(found) : json_null();
    return true;
}

static bool call_snapshots(Tool *tool, Err *err)
{
    RdsSnapshots all;

    if (!rds_list_snapshots(tool->aws, arg(tool, 1), arg(tool, 2), &tool->arena, &all, err))
        return false;
    tool->out = json_array();
    for (size_t i = 0; i < all.count; i++)
        json_array_append_new(tool->out, text(all.at[i].name));
    return true;
}

static bool call_delete_snapshot(Tool *tool, Err *err)
{
    return rds_delete_snapshot(tool->aws, arg(tool, 1), err);
}

static bool call_wait_snapshot(Tool *tool, Err *err)
{
    return rds_wait_snapshot(tool->aws, arg(tool, 1), on_progress, tool, err);
}

static bool call_wait_snapshot_gone(Tool *tool, Err *err)
{
    return rds_wait_snapshot_gone(tool->aws, arg(tool, 1), on_progress, tool, err);
}

static bool call_tags(Tool *tool, Err *err)
{
    AwsTags list;

    if (!rds_list_tags(tool->aws, arg(tool, 1), &tool->arena, &list, err))
        return false;
    tool->out = tags(list);
    return true;
}

static bool call_add_tags(Tool *tool, Err *err)
{
    return rds_add_tags(tool->aws, arg(tool, 1), given_tags(tool, 2), err);
}

static bool call_group(Tool *tool, Err *err)
{
    RdsParameterGroup *found;

    if (!rds_find_parameter_group(tool->aws, arg(tool, 1), &tool->arena, &found, err))
        return false;
    tool->out = found ? json_pack("{s:s?,s:s?,s:s?}", "name", found->name, "family", found->family,
                                  "arn", found->arn)
                      : json_null();
    return true;
}

static bool call_create_group(Tool *tool, Err *err)
{
    RdsParameterGroup group = {
        .name = arg(tool, 1), .family = arg(tool, 2), .description = "made by a test"};

    return rds_create_parameter_group(tool->aws, &group, given_tags(tool, 3), err);
}

static bool call_modify_group(Tool *tool, Err *err)
{
    AwsTags pairs = given_tags(tool, 2);
    RdsParameters all = {arena_array(&tool->arena, RdsParameter, pairs.count + 1), pairs.count};

    for (size_t i = 0; i < pairs.count; i++)
        all.at[i] = (RdsParameter){.name = pairs.at[i].key, .value = pairs.at[i].value};
    return rds_modify_parameter_group(tool->aws, arg(tool, 1), all, err);
}

static bool call_delete_group(Tool *tool, Err *err)
{
    return rds_delete_parameter_group(tool->aws, arg(tool, 1), err);
}

static bool call_parameters(Tool *tool, Err *err)
{
    RdsParameters all;

    if (!rds_list_parameters(tool->aws, arg(tool, 1), arg(tool, 2), &tool->arena, &all, err))
        return false;
    tool->out = json_object();
    for (size_t i = 0; i < all.count; i++)
        put(tool->out, all.at[i].name, text(all.at[i].value));
    return true;
}

static bool call_logs(Tool *tool, Err *err)
{
    RdsLogFiles all;

    if (!rds_list_logs(tool->aws, arg(tool, 1), arg(tool, 2), &tool->arena, &all, err))
        return false;
    tool->out = json_array();
    for (size_t i = 0; i < all.count; i++)
        json_array_append_new(tool->out,
                              json_pack("[s,I,I]", all.at[i].name, (json_int_t)all.at[i].bytes,
                                        (json_int_t)all.at[i].last_written));
    return true;
}

static bool call_log(Tool *tool, Err *err)
{
    AUTO_BUF out;

    buf_init(&out, MIB(64));
    if (!rds_download_log(tool->aws, arg(tool, 1), arg(tool, 2), &out, err))
        return false;
    tool->out = json_stringn((const char *)buf_span(&out).at, out.len);
    return true;
}

static bool call_events(Tool *tool, Err *err)
{
    RdsEvents all;

    if (!rds_list_events(tool->aws, arg(tool, 1), arg(tool, 2), 60, &tool->arena, &all, err))
        return false;
    tool->out = json_array();
    for (size_t i = 0; i < all.count; i++)
        json_array_append_new(tool->out, text(all.at[i].message));
    return true;
}

static json_t *zone_json(const Route53Zone *zone)
{
    return json_pack("{s:s,s:s,s:b}", "id", zone->id, "name", zone->name, "private",
                     (int)zone->is_private);
}

static bool call_zone(Tool *tool, Err *err)
{
    Route53Zone zone;

    if (!route53_find_zone(tool->aws, arg(tool, 1), &tool->arena, &zone, err))
        return false;
    tool->out = zone_json(&zone);
    return true;
}

static bool call_zone_of(Tool *tool, Err *err)
{
    Route53Zone zone;

    if (!route53_zone_of(tool->aws, arg(tool, 1), &tool->arena, &zone, err))
        return false;
    tool->out = zone_json(&zone);
    return true;
}

static bool call_records(Tool *tool, Err *err)
{
    Route53Records all;

    if (!route53_list_records(tool->aws, arg(tool, 1), &tool->arena, &all, err))
        return false;
    tool->out = json_array();
    for (size_t i = 0; i < all.count; i++)
        json_array_append_new(tool->out, record(&all.at[i]));
    return true;
}

static bool call_record(Tool *tool, Err *err)
{
    Route53Record *found;

    if (!route53_find_record(tool->aws, arg(tool, 1), arg(tool, 2), arg(tool, 3), arg(tool, 4),
                             &tool->arena, &found, err))
        return false;
    tool->out = found ? record(found) : json_null();
    return true;
}

/* upsert ZONE NAME TYPE SET VALUE TTL: an existing record keeps its other attributes. */
static bool call_upsert(Tool *tool, Err *err)
{
    Route53Record *found;
    Route53Record fresh = {.name = arg(tool, 2), .type = arg(tool, 3), .set_id = arg(tool, 4)};
    const char *value = arg(tool, 5);
    const char *change;

    if (!route53_find_record(tool->aws, arg(tool, 1), arg(tool, 2), arg(tool, 3), arg(tool, 4),
                             &tool->arena, &found, err))
        return false;
    if (!found)
        found = &fresh;
    found->values = (AwsNames){&value, 1};
    if (arg(tool, 6))
        found->ttl = aws_num(strtol(arg(tool, 6), NULL, 10));
    if (!route53_upsert(tool->aws, arg(tool, 1), found, "test", &tool->arena, &change, err))
        return false;
    tool->out = text(change);
    return route53_wait_change(tool->aws, change, on_progress, tool, err);
}

typedef struct Worker {
    const Aws *aws;
    Err err;
    bool ok;
} Worker;

static void *work(void *self)
{
    Worker *worker = self;
    Aws *own = aws_again(worker->aws, &worker->err);
    StsIdentity who;
    Arena arena;

    arena_init(&arena, 1024);
    worker->ok = own != NULL;
    for (int i = 0; worker->ok && i < 20; i++) {
        worker->ok = sts_get_caller_identity(own, &arena, &who, &worker->err);
        usleep(100000);
    }
    arena_fini(&arena);
    aws_free(own);
    return NULL;
}

/* threads N: N clients of one set of credentials, at the same time */
static bool call_threads(Tool *tool, Err *err)
{
    size_t count = size_min(strtoul(arg(tool, 1), NULL, 10), 32);
    Worker workers[32];
    pthread_t threads[32];
    bool ok = true;

    for (size_t i = 0; i < count; i++) {
        workers[i] = (Worker){.aws = tool->aws};
        if (pthread_create(&threads[i], NULL, work, &workers[i]) != 0)
            return err_fail(err, ERR_SYSTEM, "starting a thread");
    }
    for (size_t i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        if (!workers[i].ok)
            *err = workers[i].err;
        ok = ok && workers[i].ok;
    }
    return ok;
}

static bool call_sleep(Tool *tool, Err *err)
{
    (void)err;
    stop_wait(&tool->stop, (unsigned)strtoul(arg(tool, 1), NULL, 10));
    return true;
}

static const struct {
    const char *name;
    bool (*run)(Tool *tool, Err *err);
} calls[] = {
    {"identity", call_identity},
    {"key", call_key},
    {"instance", call_instance},
    {"instances", call_instances},
    {"restore-as", call_restore_as},
    {"modify-as", call_modify_as},
    {"restore-full", call_restore_full},
    {"modify-full", call_modify_full},
    {"rename", call_rename},
    {"reboot", call_reboot},
    {"delete-instance", call_delete_instance},
    {"add-role", call_add_role},
    {"wait-instance", call_wait_instance},
    {"wait-renamed", call_wait_renamed},
    {"wait-instance-gone", call_wait_instance_gone},
    {"create-snapshot", call_create_snapshot},
    {"copy-snapshot", call_copy_snapshot},
    {"snapshot", call_snapshot},
    {"snapshots", call_snapshots},
    {"delete-snapshot", call_delete_snapshot},
    {"wait-snapshot", call_wait_snapshot},
    {"wait-snapshot-gone", call_wait_snapshot_gone},
    {"tags", call_tags},
    {"add-tags", call_add_tags},
    {"group", call_group},
    {"create-group", call_create_group},
    {"modify-group", call_modify_group},
    {"delete-group", call_delete_group},
    {"parameters", call_parameters},
    {"logs", call_logs},
    {"log", call_log},
    {"events", call_events},
    {"zone", call_zone},
    {"zone-of", call_zone_of},
    {"records", call_records},
    {"record", call_record},
    {"upsert", call_upsert},
    {"threads", call_threads},
    {"sleep", call_sleep},
};

static int print_error(const Err *err)
{
    json_t *out =
        json_pack("{s:s,s:s,s:s,s:s,s:b}", "error", err->text, "code", err->code, "kind",
                  err_kind_name(err->kind), "hint", err->hint, "transient", (int)err->transient);

    json_dumpf(out, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(out);
    return err_exit_code(err->kind);
}

static int run_call(Tool *tool)
{
    Err err = ERR_INIT;
    size_t i = 0;

    while (i < ARRAY_LEN(calls) && strcmp(calls[i].name, tool->args[0]) != 0)
        i++;
    if (i == ARRAY_LEN(calls)) {
        fprintf(stderr, "awscall: unknown call %s\n", tool->args[0]);
        return 2;
    }
    tool->out = NULL;
    if (!calls[i].run(tool, &err)) {
        json_decref(tool->out);
        return print_error(&err);
    }
    if (!tool->out)
        tool->out = json_true();
    json_dumpf(tool->out, stdout, JSON_COMPACT | JSON_ENCODE_ANY);
    putchar('\n');
    fflush(stdout);
    json_decref(tool->out);
    return 0;
}

static bool is_option(const char *text_, const char *name, const char **value)
{
    size_t len = strlen(name);

    if (strncmp(text_, name, len) != 0 || text_[len] != '=')
        return false;
    *value = text_ + len + 1;
    return true;
}

static bool take_option(const char *given, AwsOptions *options, unsigned *stop_ms)
{
    const char *value;

    if (is_option(given, "--run", &value))
        options->run = value;
    else if (is_option(given, "--region", &value))
        options->region = value;
    else if (is_option(given, "--profile", &value))
        options->profile = value;
    else if (is_option(given, "--endpoint", &value))
        options->endpoint = value;
    else if (is_option(given, "--attempts", &value))
        options->attempts = (unsigned)strtoul(value, NULL, 10);
    else if (is_option(given, "--timeout-ms", &value))
        options->timeout_ms = (unsigned)strtoul(value, NULL, 10);
    else if (is_option(given, "--poll-ms", &value))
        options->poll_ms = (unsigned)strtoul(value, NULL, 10);
    else if (is_option(given, "--retry-ms", &value))
        options->retry_ms = (unsigned)strtoul(value, NULL, 10);
    else if (is_option(given, "--stop-ms", &value))
        *stop_ms = (unsigned)strtoul(value, NULL, 10);
    else
        return false;
    return true;
}

typedef struct Timer {
    Stop *stop;
    unsigned ms;
} Timer;

static void *stop_later(void *self)
{
    Timer *timer = self;

    usleep(timer->ms * 1000);
    stop_request(timer->stop);
    return NULL;
}

static int run_all(Tool *tool, int argc, char **argv, int first)
{
    int code = 0;

    while (code == 0 && first < argc) {
        int last = first;

        while (last < argc && strcmp(argv[last], "then") != 0)
            last++;
        tool->args = argv + first;
        tool->count = last - first;
        code = run_call(tool);
        first = last + 1;
    }
    return code;
}

int main(int argc, char **argv)
{
    AwsOptions options = {.poll_ms = 100, .retry_ms = 20};
    Tool tool = {.looks = 0};
    Timer timer = {.stop = &tool.stop};
    Err err = ERR_INIT;
    pthread_t thread;
    int first = 1;
    int code;

    log_setup(getenv("AWSCALL_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARN, LOG_FORMAT_LOGFMT);
    while (first < argc && strncmp(argv[first], "--", 2) == 0 &&
           take_option(argv[first], &options, &timer.ms))
        first++;
    if (first >= argc || argv[first][0] == '-') {
        fprintf(stderr, "usage: awscall [--option=value]... CALL ARG... [then CALL ARG...]...\n");
        return 2;
    }
    if (!stop_init(&tool.stop, &err))
        return print_error(&err);
    options.stop = &tool.stop;
    arena_init(&tool.arena, 8192);
    tool.aws = aws_open(&options, &err);
    if (timer.ms && pthread_create(&thread, NULL, stop_later, &timer) == 0)
        pthread_detach(thread);
    code = tool.aws ? run_all(&tool, argc, argv, first) : print_error(&err);
    aws_free(tool.aws);
    arena_fini(&tool.arena);
    if (!timer.ms)
        stop_fini(&tool.stop);
    return code;
}
