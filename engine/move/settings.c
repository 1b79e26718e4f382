#include "engine/move/settings.h"

typedef enum SettingKind { TEXT, NUM, BOOL, NAMES, GROUPS, ROLES, TAGS } SettingKind;

#define SETTING(kind, field, name)               \
    {                                            \
        name, offsetof(RdsInstance, field), kind \
    }

static const struct {
    const char *name;
    size_t at;
    SettingKind kind;
} settings[] = {
    SETTING(TEXT, class_, "DBInstanceClass"),
    SETTING(TEXT, engine, "Engine"),
    SETTING(TEXT, engine_version, "EngineVersion"),
    SETTING(TEXT, license_model, "LicenseModel"),
    SETTING(TEXT, master_user, "MasterUsername"),
    SETTING(TEXT, db_name, "DBName"),
    SETTING(TEXT, subnet_group, "DBSubnetGroup"),
    SETTING(TEXT, network_type, "NetworkType"),
    SETTING(BOOL, multi_az, "MultiAZ"),
    SETTING(BOOL, publicly_accessible, "PubliclyAccessible"),
    SETTING(TEXT, storage_type, "StorageType"),
    SETTING(NUM, allocated_storage, "AllocatedStorage"),
    SETTING(NUM, max_allocated_storage, "MaxAllocatedStorage"),
    SETTING(NUM, iops, "Iops"),
    SETTING(NUM, storage_throughput, "StorageThroughput"),
    SETTING(BOOL, dedicated_log_volume, "DedicatedLogVolume"),
    SETTING(GROUPS, parameter_groups, "DBParameterGroups"),
    SETTING(GROUPS, option_groups, "OptionGroupMemberships"),
    SETTING(GROUPS, security_groups, "VpcSecurityGroups"),
    SETTING(BOOL, iam_auth, "IAMDatabaseAuthenticationEnabled"),
    SETTING(NAMES, log_exports, "EnabledCloudwatchLogsExports"),
    SETTING(BOOL, deletion_protection, "DeletionProtection"),
    SETTING(BOOL, copy_tags_to_snapshot, "CopyTagsToSnapshot"),
    SETTING(BOOL, auto_minor_upgrade, "AutoMinorVersionUpgrade"),
    SETTING(NUM, backup_retention, "BackupRetentionPeriod"),
    SETTING(TEXT, backup_window, "PreferredBackupWindow"),
    SETTING(TEXT, maintenance_window, "PreferredMaintenanceWindow"),
    SETTING(TEXT, backup_target, "BackupTarget"),
    SETTING(TEXT, ca, "CACertificateIdentifier"),
    SETTING(TEXT, lifecycle_support, "EngineLifecycleSupport"),
    SETTING(NUM, monitoring_interval, "MonitoringInterval"),
    SETTING(TEXT, monitoring_role, "MonitoringRoleArn"),
    SETTING(BOOL, performance_insights, "PerformanceInsightsEnabled"),
    SETTING(NUM, performance_retention, "PerformanceInsightsRetentionPeriod"),
    SETTING(TEXT, performance_kms_key, "PerformanceInsightsKMSKeyId"),
    SETTING(TEXT, insights_mode, "DatabaseInsightsMode"),
    SETTING(TEXT, secret_kms_key, "MasterUserSecret.KmsKeyId"),
    SETTING(ROLES, roles, "AssociatedRoles"),
    SETTING(TAGS, processor_features, "ProcessorFeatures"),
    SETTING(BOOL, customer_owned_ip, "CustomerOwnedIpEnabled"),
    SETTING(TEXT, iam_profile, "CustomIamInstanceProfile"),
    SETTING(TEXT, timezone, "Timezone"),
    SETTING(TEXT, charset, "CharacterSetName"),
    SETTING(TAGS, tags, "TagList"),
    SETTING(TEXT, activity_stream, "ActivityStreamStatus"),
};

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Lists are compared without order. */
static const char *joined(Arena *arena, const char **items, size_t count)
{
    const char *text = "";

    qsort(items, count, sizeof(*items), by_text);
    for (size_t i = 0; i < count; i++)
        text = arena_printf(arena, "%s%s%s", text, i ? ", " : "", items[i]);
    return count ? text : "-";
}

static const char *names_text(Arena *arena, const AwsNames *names)
{
    const char **items = arena_array(arena, const char *, names->count + 1);

    for (size_t i = 0; i < names->count; i++)
        items[i] = names->at[i];
    return joined(arena, items, names->count);
}

static const char *groups_text(Arena *arena, const RdsGroups *groups)
{
    const char **items = arena_array(arena, const char *, groups->count + 1);

    for (size_t i = 0; i < groups->count; i++)
        items[i] = groups->at[i].name;
    return joined(arena, items, groups->count);
}

static const char *roles_text(Arena *arena, const RdsRoles *roles)
{
    const char **items = arena_array(arena, const char *, roles->count + 1);

    for (size_t i = 0; i < roles->count; i++)
        items[i] = arena_printf(arena, "%s (%s)", roles->at[i].arn,
                                roles->at[i].feature ? roles->at[i].feature : "");
    return joined(arena, items, roles->count);
}

/* Without our own: they are there to recognize what a run made. */
static const char *tags_text(Arena *arena, const AwsTags *tags)
{
    const char **items = arena_array(arena, const char *, tags->count + 1);
    size_t count = 0;

    for (size_t i = 0; i < tags->count; i++)
        if (strncmp(tags->at[i].key, "keybridge:", 10) != 0)
            items[count++] = arena_printf(arena, "%s=%s", tags->at[i].key, tags->at[i].value);
    return joined(arena, items, count);
}

static const char *text_of(const RdsInstance *instance, size_t at, SettingKind kind, Arena *arena)
{
    const void *field = (const char *)instance + at;
    const char *text;

    switch (kind) {
    case TEXT:
        text = *(const char *const *)field;
        return text && *text ? text : "-";
    case NUM:
        return ((const AwsNum *)field)->set
                   ? arena_printf(arena, "%" PRId64, ((const AwsNum *)field)->value)
                   : "-";
    case BOOL:
        return *(const AwsBool *)field == AWS_UNSET ? "-"
               : aws_is(*(const AwsBool *)field)    ? "yes"
                                                    : "no";
    case NAMES:
        return names_text(arena, field);
    case GROUPS:
        return groups_text(arena, field);
    case ROLES:
        return roles_text(arena, field);
    case TAGS:
    default:
        return tags_text(arena, field);
    }
}

/* A number or flag that one region sends as 0 or false and another leaves out is the same. */
static bool means_nothing(const char *text)
{
    return strcmp(text, "-") == 0 || strcmp(text, "no") == 0 || strcmp(text, "0") == 0;
}

void settings_compare(const RdsInstance *source, const RdsInstance *target, Arena *arena,
                      SettingDiff **diffs, size_t *count, size_t *compared)
{
    *diffs = arena_array(arena, SettingDiff, ARRAY_LEN(settings) + 1);
    *count = 0;
    *compared = ARRAY_LEN(settings) + 1;
    for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
        const char *a = text_of(source, settings[i].at, settings[i].kind, arena);
        const char *b = text_of(target, settings[i].at, settings[i].kind, arena);

        if (strcmp(a, b) != 0 && !(means_nothing(a) && means_nothing(b)))
            (*diffs)[(*count)++] = (SettingDiff){settings[i].name, a, b};
    }
    if (source->port != target->port && target->port)
        (*diffs)[(*count)++] = (SettingDiff){"Port", arena_printf(arena, "%d", source->port),
                                             arena_printf(arena, "%d", target->port)};
}
