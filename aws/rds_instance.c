#include <strings.h>

#include "aws/rds_impl.h"
#include "engine/base/mono.h"

#define INSTANCE_GONE "DBInstanceNotFound DBInstanceNotFoundFault"
#define INSTANCE_BUSY "InvalidDBInstanceState InvalidDBInstanceStateFault"
#define RENAME_LOOKS  20

/* Reading ------------------------------------------------------------------------------------ */

static const char *text_or_null(const XmlNode *node, const char *path)
{
    const char *text = xml_text(node, path);

    return text && *text ? text : NULL;
}

static RdsGroups read_groups(const XmlNode *list, const char *element, const char *name,
                             const char *status, Arena *arena)
{
    RdsGroups groups = {.at = arena_array(arena, RdsGroupStatus, xml_count(list, element) + 1)};

    for (const XmlNode *node = xml_first(list, element); node; node = xml_next(node, element))
        groups.at[groups.count++] = (RdsGroupStatus){xml_text(node, name), xml_text(node, status)};
    return groups;
}

static RdsRoles read_roles(const XmlNode *list, Arena *arena)
{
    RdsRoles roles = {.at = arena_array(arena, RdsRole, xml_count(list, "DBInstanceRole") + 1)};

    for (const XmlNode *node = xml_first(list, "DBInstanceRole"); node;
         node = xml_next(node, "DBInstanceRole")) {
        const char *feature = xml_text(node, "FeatureName");

        roles.at[roles.count++] =
            (RdsRole){xml_text(node, "RoleArn"), feature ? feature : "", xml_text(node, "Status")};
    }
    return roles;
}

static RdsDomains read_domains(const XmlNode *list, Arena *arena)
{
    RdsDomains domains = {
        .at = arena_array(arena, RdsDomain, xml_count(list, "DomainMembership") + 1)};

    for (const XmlNode *node = xml_first(list, "DomainMembership"); node;
         node = xml_next(node, "DomainMembership"))
        domains.at[domains.count++] =
            (RdsDomain){.domain = text_or_null(node, "Domain"),
                        .status = text_or_null(node, "Status"),
                        .fqdn = text_or_null(node, "FQDN"),
                        .iam_role = text_or_null(node, "IAMRoleName"),
                        .ou = text_or_null(node, "OU"),
                        .auth_secret_arn = text_or_null(node, "AuthSecretArn"),
                        .dns_ips = xml_names(node, "DnsIps", "member", arena)};
    return domains;
}

static AwsTags read_features(const XmlNode *list, Arena *arena)
{
    AwsTags features = {.at = arena_array(arena, AwsTag, xml_count(list, "ProcessorFeature") + 1)};

    for (const XmlNode *node = xml_first(list, "ProcessorFeature"); node;
         node = xml_next(node, "ProcessorFeature"))
        if (xml_text(node, "Name") && xml_text(node, "Value"))
            features.at[features.count++] =
                (AwsTag){xml_text(node, "Name"), xml_text(node, "Value")};
    return features;
}

static AwsNames child_names(const XmlNode *node, Arena *arena)
{
    AwsNames names = {.at = arena_array(arena, const char *, xml_count(node, NULL) + 1)};

    for (const XmlNode *child = xml_first(node, NULL); child; child = xml_next(child, NULL))
        if (child->first || *child->text)
            names.at[names.count++] = child->name;
    return names;
}

/* The members whose text is taken as it is, by where they go. */
static const struct {
    const char *path;
    size_t offset;
} texts[] = {
#define TEXT(path, field)                  \
    {                                      \
        path, offsetof(RdsInstance, field) \
    }
    TEXT("DBInstanceIdentifier", name),
    TEXT("DBInstanceArn", arn),
    TEXT("DbiResourceId", resource_id),
    TEXT("DBInstanceStatus", status),
    TEXT("DBInstanceClass", class_),
    TEXT("Engine", engine),
    TEXT("EngineVersion", engine_version),
    TEXT("LicenseModel", license_model),
    TEXT("DBClusterIdentifier", cluster),
    TEXT("MasterUsername", master_user),
    TEXT("DBName", db_name),
    TEXT("Endpoint/Address", host),
    TEXT("Endpoint/HostedZoneId", host_zone),
    TEXT("InstanceCreateTime", created),
    TEXT("AvailabilityZone", availability_zone),
    TEXT("SecondaryAvailabilityZone", secondary_zone),
    TEXT("DBSubnetGroup/DBSubnetGroupName", subnet_group),
    TEXT("DBSubnetGroup/VpcId", vpc),
    TEXT("NetworkType", network_type),
    TEXT("StorageType", storage_type),
    TEXT("KmsKeyId", kms_key),
    TEXT("StorageEncryptionType", encryption_type),
    TEXT("StorageOperationStatus", storage_operation),
    TEXT("PreferredBackupWindow", backup_window),
    TEXT("PreferredMaintenanceWindow", maintenance_window),
    TEXT("BackupTarget", backup_target),
    TEXT("CACertificateIdentifier", ca),
    TEXT("EngineLifecycleSupport", lifecycle_support),
    TEXT("MonitoringRoleArn", monitoring_role),
    TEXT("PerformanceInsightsKMSKeyId", performance_kms_key),
    TEXT("DatabaseInsightsMode", insights_mode),
    TEXT("MasterUserSecret/SecretArn", secret_arn),
    TEXT("MasterUserSecret/KmsKeyId", secret_kms_key),
    TEXT("CustomIamInstanceProfile", iam_profile),
    TEXT("TdeCredentialArn", tde_arn),
    TEXT("Timezone", timezone),
    TEXT("CharacterSetName", charset),
    TEXT("NcharCharacterSetName", nchar_charset),
    TEXT("ReadReplicaSourceDBInstanceIdentifier", replica_of),
    TEXT("ActivityStreamStatus", activity_stream),
    TEXT("ActivityStreamKmsKeyId", activity_stream_kms_key),
#undef TEXT
};

static const struct {
    const char *path;
    size_t offset;
} numbers[] = {
#define NUMBER(path, field)                \
    {                                      \
        path, offsetof(RdsInstance, field) \
    }
    NUMBER("AllocatedStorage", allocated_storage),
    NUMBER("MaxAllocatedStorage", max_allocated_storage),
    NUMBER("Iops", iops),
    NUMBER("StorageThroughput", storage_throughput),
    NUMBER("StorageOperationPercentProgress", storage_percent),
    NUMBER("BackupRetentionPeriod", backup_retention),
    NUMBER("MonitoringInterval", monitoring_interval),
    NUMBER("PromotionTier", promotion_tier),
    NUMBER("PerformanceInsightsRetentionPeriod", performance_retention),
#undef NUMBER
};

static const struct {
    const char *path;
    size_t offset;
} flags[] = {
#define FLAG(path, field)                  \
    {                                      \
        path, offsetof(RdsInstance, field) \
    }
    FLAG("MultiAZ", multi_az),
    FLAG("PubliclyAccessible", publicly_accessible),
    FLAG("StorageEncrypted", storage_encrypted),
    FLAG("DedicatedLogVolume", dedicated_log_volume),
    FLAG("IAMDatabaseAuthenticationEnabled", iam_auth),
    FLAG("DeletionProtection", deletion_protection),
    FLAG("CopyTagsToSnapshot", copy_tags_to_snapshot),
    FLAG("AutoMinorVersionUpgrade", auto_minor_upgrade),
    FLAG("PerformanceInsightsEnabled", performance_insights),
    FLAG("CustomerOwnedIpEnabled", customer_owned_ip),
#undef FLAG
};

static void read_plain(const XmlNode *node, RdsInstance *out)
{
    uint8_t *base = (uint8_t *)out;

    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        const char *text = text_or_null(node, texts[i].path);

        memcpy(base + texts[i].offset, &text, sizeof(text));
    }
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        AwsNum number = xml_num(node, numbers[i].path);

        memcpy(base + numbers[i].offset, &number, sizeof(number));
    }
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        AwsBool flag = xml_bool(node, flags[i].path);

        memcpy(base + flags[i].offset, &flag, sizeof(flag));
    }
}

void rds_read_instance(const XmlNode *node, Arena *arena, RdsInstance *out)
{
    *out = (RdsInstance){.name = NULL};
    read_plain(node, out);
    out->port = (int)aws_num_or(xml_num(node, "Endpoint/Port"), 0);
    out->parameter_groups = read_groups(xml_at(node, "DBParameterGroups"), "DBParameterGroup",
                                        "DBParameterGroupName", "ParameterApplyStatus", arena);
    out->option_groups = read_groups(xml_at(node, "OptionGroupMemberships"),
                                     "OptionGroupMembership", "OptionGroupName", "Status", arena);
    out->security_groups =
        read_groups(xml_at(node, "VpcSecurityGroups"), "VpcSecurityGroupMembership",
                    "VpcSecurityGroupId", "Status", arena);
    out->log_exports = xml_names(node, "EnabledCloudwatchLogsExports", "member", arena);
    out->roles = read_roles(xml_at(node, "AssociatedRoles"), arena);
    out->domains = read_domains(xml_at(node, "DomainMemberships"), arena);
    out->processor_features = read_features(xml_at(node, "ProcessorFeatures"), arena);
    out->tags = rds_read_tags(xml_at(node, "TagList"), arena);
    out->pending = child_names(xml_at(node, "PendingModifiedValues"), arena);
    out->replicas = xml_names(node, "ReadReplicaDBInstanceIdentifiers",
                              "ReadReplicaDBInstanceIdentifier", arena);
    out->replica_clusters =
        xml_names(node, "ReadReplicaDBClusterIdentifiers", "ReadReplicaDBClusterIdentifier", arena);
    out->backup_replications.at =
        arena_array(arena, const char *,
                    xml_count(xml_at(node, "DBInstanceAutomatedBackupsReplications"), NULL) + 1);
    for (const XmlNode *one =
             xml_first(xml_at(node, "DBInstanceAutomatedBackupsReplications"), NULL);
         one; one = xml_next(one, NULL))
        if (xml_text(one, "DBInstanceAutomatedBackupsArn"))
            out->backup_replications.at[out->backup_replications.count++] =
                xml_text(one, "DBInstanceAutomatedBackupsArn");
}

/* Finding ------------------------------------------------------------------------------------ */

static bool find_node(Aws *aws, const char *name, Arena *arena, const XmlNode **node, AwsTags *tags,
                      Err *err)
{
    AwsTag param = {"DBInstanceIdentifier", name};
    RdsDescribe what = {"DescribeDBInstances", {&param, 1}, "DBInstances", "DBInstance"};
    RdsNodes nodes;

    *node = NULL;
    if (!rds_describe(aws, &what, arena, &nodes, err)) {
        if (!aws_code_is(err, INSTANCE_GONE))
            return false;
        err_clear(err);
        return true;
    }
    *node = nodes.count ? nodes.at[0] : NULL;
    *tags = rds_read_tags(xml_at(*node, "TagList"), arena);
    return true;
}

static RdsInstance *instance_of(const XmlNode *node, Arena *arena)
{
    RdsInstance *out = node ? arena_new(arena, RdsInstance) : NULL;

    if (out)
        rds_read_instance(node, arena, out);
    return out;
}

bool rds_find_instance(Aws *aws, const char *name, Arena *arena, RdsInstance **found, Err *err)
{
    const XmlNode *node;
    AwsTags tags;

    if (!find_node(aws, name, arena, &node, &tags, err))
        return false;
    *found = instance_of(node, arena);
    return true;
}

bool rds_get_instance(Aws *aws, const char *name, Arena *arena, RdsInstance **found, Err *err)
{
    if (!rds_find_instance(aws, name, arena, found, err))
        return false;
    return *found || rds_not_found("instance", name, "DBInstanceNotFound", err);
}

bool rds_list_instances(Aws *aws, Arena *arena, RdsInstances *all, Err *err)
{
    RdsDescribe what = {"DescribeDBInstances", {NULL, 0}, "DBInstances", "DBInstance"};
    RdsNodes nodes;

    if (!rds_describe(aws, &what, arena, &nodes, err))
        return false;
    all->at = arena_array(arena, RdsInstance, nodes.count + 1);
    all->count = nodes.count;
    for (size_t i = 0; i < nodes.count; i++)
        rds_read_instance(nodes.at[i], arena, &all->at[i]);
    return true;
}

/* Making ------------------------------------------------------------------------------------- */

static void put_domain(Query *query, const RdsDomain *domain)
{
    if (!domain->domain && !domain->fqdn)
        return;
    query_str(query, "Domain", domain->domain);
    query_str(query, "DomainIAMRoleName", domain->iam_role);
    query_str(query, "DomainFqdn",
              domain->ou ? domain->fqdn : NULL); /* with a self-managed directory only */
    query_str(query, "DomainOu", domain->ou);
    query_str(query, "DomainAuthSecretArn", domain->auth_secret_arn);
    query_names(query, "DomainDnsIps.member", domain->dns_ips);
}

static void put_restore(Query *query, const RdsRestore *how, const char *run)
{
    query_str(query, "DBInstanceIdentifier", how->name);
    query_str(query, "DBSnapshotIdentifier", how->snapshot);
    query_str(query, "DBInstanceClass", how->class_);
    query_num(query, "Port", how->port);
    query_str(query, "AvailabilityZone", how->availability_zone);
    query_str(query, "DBSubnetGroupName", how->subnet_group);
    query_bool(query, "MultiAZ", how->multi_az);
    query_bool(query, "PubliclyAccessible", how->publicly_accessible);
    query_bool(query, "AutoMinorVersionUpgrade", how->auto_minor_upgrade);
    query_str(query, "LicenseModel", how->license_model);
    query_num(query, "Iops", how->iops);
    query_num(query, "StorageThroughput", how->storage_throughput);
    query_num(query, "AllocatedStorage", how->allocated_storage);
    query_str(query, "StorageType", how->storage_type);
    query_bool(query, "DedicatedLogVolume", how->dedicated_log_volume);
    query_str(query, "OptionGroupName", how->option_group);
    query_str(query, "DBParameterGroupName", how->parameter_group);
    query_names(query, "VpcSecurityGroupIds.VpcSecurityGroupId", how->security_groups);
    query_bool(query, "CopyTagsToSnapshot", how->copy_tags_to_snapshot);
    query_bool(query, "EnableIAMDatabaseAuthentication", how->iam_auth);
    query_names(query, "EnableCloudwatchLogsExports.member", how->log_exports);
    query_pairs(query, "ProcessorFeatures.ProcessorFeature", "Name", "Value",
                how->processor_features);
    query_bool(query, "UseDefaultProcessorFeatures", how->default_processor_features);
    query_bool(query, "DeletionProtection", how->deletion_protection);
    query_bool(query, "EnableCustomerOwnedIp", how->customer_owned_ip);
    query_str(query, "CustomIamInstanceProfile", how->iam_profile);
    query_str(query, "BackupTarget", how->backup_target);
    query_num(query, "BackupRetentionPeriod", how->backup_retention);
    query_str(query, "PreferredBackupWindow", how->backup_window);
    query_str(query, "NetworkType", how->network_type);
    query_str(query, "CACertificateIdentifier", how->ca);
    query_str(query, "EngineLifecycleSupport", how->lifecycle_support);
    query_str(query, "TdeCredentialArn", how->tde_arn);
    query_str(query, "TdeCredentialPassword", how->tde_password);
    put_domain(query, &how->domain);
    query_tags(query, how->tags, run);
}

bool rds_restore_instance(Aws *aws, const RdsRestore *restore, Arena *arena, RdsInstance **made,
                          Err *err)
{
    const XmlNode *node;
    AUTO_QUERY query;
    RdsMake make = {.operation = "RestoreDBInstanceFromDBSnapshot",
                    .query = &query,
                    .exists = "DBInstanceAlreadyExists DBInstanceAlreadyExistsFault",
                    .find = find_node,
                    .name = restore->name,
                    .result = "DBInstance"};

    rds_query_init(&query, make.operation);
    put_restore(&query, restore, aws_run(aws));
    if (!rds_make(aws, &make, arena, &node, err))
        return false;
    *made = instance_of(node, arena);
    return true;
}

/* Carrying settings over --------------------------------------------------------------------- */

static AwsNames group_names(RdsGroups groups, Arena *arena)
{
    AwsNames names = {.at = arena_array(arena, const char *, groups.count + 1)};

    for (size_t i = 0; i < groups.count; i++)
        if (groups.at[i].name)
            names.at[names.count++] = groups.at[i].name;
    return names;
}

static const char *first_group(RdsGroups groups)
{
    return groups.count ? groups.at[0].name : NULL;
}

/* A default group belongs to a version and comes by itself. */
static const char *own_option_group(RdsGroups groups)
{
    const char *name = first_group(groups);

    return name && strncmp(name, "default:", 8) != 0 ? name : NULL;
}

static bool is_type(const RdsInstance *instance, const char *type)
{
    return instance->storage_type && strcmp(instance->storage_type, type) == 0;
}

/* gp3 volumes below this size have fixed performance: RDS reports the figures and refuses them as
 * parameters. */
static bool takes_iops(const RdsInstance *instance)
{
    bool oracle = instance->engine && strncmp(instance->engine, "oracle", 6) == 0;
    bool sqlserver = instance->engine && strncmp(instance->engine, "sqlserver", 9) == 0;
    int64_t least = sqlserver ? 0 : oracle ? 200 : 400;

    if (is_type(instance, "gp3"))
        return aws_num_or(instance->allocated_storage, 0) >= least;
    return is_type(instance, "io1") || is_type(instance, "io2");
}

static void restore_storage(const RdsInstance *from, RdsRestore *restore)
{
    /* restores to magnetic storage are refused since July 2026 */
    restore->storage_type = is_type(from, "standard") ? "gp3" : from->storage_type;
    if (!takes_iops(from))
        return;
    restore->iops = from->iops;
    if (is_type(from, "gp3"))
        restore->storage_throughput = from->storage_throughput;
}

void rds_restore_as(const RdsInstance *from, const char *name, const char *snapshot, Arena *arena,
                    RdsRestore *restore)
{
    bool dedicated = from->license_model &&
                     strcmp(from->license_model, "general-public-license") != 0 &&
                     strcmp(from->license_model, "postgresql-license") != 0;

    *restore = (RdsRestore){.name = name,
                            .snapshot = snapshot,
                            .class_ = from->class_,
                            .subnet_group = from->subnet_group,
                            .license_model = dedicated ? from->license_model
                                                       : NULL, /* the others have no choice */
                            .option_group = own_option_group(from->option_groups),
                            .parameter_group = first_group(from->parameter_groups),
                            .network_type = from->network_type,
                            .backup_target = from->backup_target,
                            .lifecycle_support = from->lifecycle_support,
                            .iam_profile = from->iam_profile,
                            .multi_az = from->multi_az,
                            .publicly_accessible = from->publicly_accessible,
                            .auto_minor_upgrade = from->auto_minor_upgrade,
                            .copy_tags_to_snapshot = from->copy_tags_to_snapshot,
                            .iam_auth = from->iam_auth,
                            .deletion_protection = from->deletion_protection,
                            .dedicated_log_volume = from->dedicated_log_volume,
                            .customer_owned_ip = from->customer_owned_ip,
                            .security_groups = group_names(from->security_groups, arena),
                            .log_exports = from->log_exports,
                            .processor_features = from->processor_features,
                            .tags = from->tags};
    restore_storage(from, restore);
    if (!aws_is(from->multi_az)) /* with Multi-AZ the zone is RDS's choice */
        restore->availability_zone = from->availability_zone;
    if (from->port)
        restore->port = aws_num(from->port);
    if (from->domains.count)
        restore->domain = from->domains.at[0];
}

static void put_modify(Query *query, const RdsModify *how)
{
    query_str(query, "DBInstanceIdentifier", how->name);
    query_bool(query, "ApplyImmediately", how->later ? AWS_FALSE : AWS_TRUE);
    query_str(query, "NewDBInstanceIdentifier", how->new_name);
    query_str(query, "DBInstanceClass", how->class_);
    query_str(query, "DBSubnetGroupName", how->subnet_group);
    query_names(query, "VpcSecurityGroupIds.VpcSecurityGroupId", how->security_groups);
    query_str(query, "DBParameterGroupName", how->parameter_group);
    query_str(query, "OptionGroupName", how->option_group);
    query_num(query, "AllocatedStorage", how->allocated_storage);
    query_num(query, "MaxAllocatedStorage", how->max_allocated_storage);
    query_str(query, "StorageType", how->storage_type);
    query_num(query, "Iops", how->iops);
    query_num(query, "StorageThroughput", how->storage_throughput);
    query_bool(query, "DedicatedLogVolume", how->dedicated_log_volume);
    query_num(query, "BackupRetentionPeriod", how->backup_retention);
    query_str(query, "PreferredBackupWindow", how->backup_window);
    query_str(query, "PreferredMaintenanceWindow", how->maintenance_window);
    query_bool(query, "MultiAZ", how->multi_az);
    query_str(query, "EngineVersion", how->engine_version);
    query_bool(query, "AllowMajorVersionUpgrade", how->allow_major_upgrade);
    query_bool(query, "AutoMinorVersionUpgrade", how->auto_minor_upgrade);
    query_str(query, "LicenseModel", how->license_model);
    query_str(query, "CACertificateIdentifier", how->ca);
    query_bool(query, "CertificateRotationRestart", how->certificate_restart);
    query_bool(query, "CopyTagsToSnapshot", how->copy_tags_to_snapshot);
    query_num(query, "MonitoringInterval", how->monitoring_interval);
    query_str(query, "MonitoringRoleArn", how->monitoring_role);
    query_num(query, "DBPortNumber", how->port);
    query_bool(query, "PubliclyAccessible", how->publicly_accessible);
    query_num(query, "PromotionTier", how->promotion_tier);
    query_bool(query, "EnableIAMDatabaseAuthentication", how->iam_auth);
    query_bool(query, "EnablePerformanceInsights", how->performance_insights);
    query_str(query, "PerformanceInsightsKMSKeyId", how->performance_kms_key);
    query_num(query, "PerformanceInsightsRetentionPeriod", how->performance_retention);
    query_str(query, "DatabaseInsightsMode", how->insights_mode);
    query_names(query, "CloudwatchLogsExportConfiguration.EnableLogTypes.member", how->enable_logs);
    query_names(query, "CloudwatchLogsExportConfiguration.DisableLogTypes.member",
                how->disable_logs);
    query_pairs(query, "ProcessorFeatures.ProcessorFeature", "Name", "Value",
                how->processor_features);
    query_bool(query, "DeletionProtection", how->deletion_protection);
    query_bool(query, "EnableCustomerOwnedIp", how->customer_owned_ip);
    query_str(query, "NetworkType", how->network_type);
    query_bool(query, "ManageMasterUserPassword", how->manage_master_password);
    query_str(query, "MasterUserSecretKmsKeyId", how->master_secret_kms_key);
    query_str(query, "MasterUserPassword", how->master_password);
    query_str(query, "TdeCredentialArn", how->tde_arn);
    query_str(query, "TdeCredentialPassword", how->tde_password);
    put_domain(query, &how->domain);
}

static bool modify_once(Aws *aws, const RdsModify *modify, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "ModifyDBInstance");
    put_modify(&query, modify);
    return rds_do(aws, "ModifyDBInstance", &query, err);
}

/* Once the answer of one attempt was lost, "it is busy" from the next probably means: with that
 * very change. Asking again for a state that is there does no harm, so wait and ask again. */
bool rds_modify_instance(Aws *aws, const RdsModify *modify, Err *err)
{
    if (modify_once(aws, modify, err))
        return true;
    if (modify->new_name || !aws_was_ambiguous(aws) || !aws_code_is(err, INSTANCE_BUSY))
        return false;
    err_clear(err);
    return rds_wait_instance(aws, modify->name, true, NULL, NULL, err) &&
           modify_once(aws, modify, err);
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* The differing text, else NULL. What the old one doesn't have can't be asked for. */
static const char *other_text(const char *from, const char *made)
{
    return same_text(from, made) ? NULL : from;
}

/* An unset number or flag on one side is a service that doesn't know it, or its zero. */
static AwsNum other_num(AwsNum from, AwsNum made)
{
    return from.set && aws_num_or(made, 0) != from.value ? from : (AwsNum){.set = false};
}

static AwsBool other_bool(AwsBool from, AwsBool made)
{
    return from != AWS_UNSET && aws_is(from) != aws_is(made) ? from : AWS_UNSET;
}

static bool has_name(AwsNames names, const char *name)
{
    for (size_t i = 0; i < names.count; i++)
        if (strcmp(names.at[i], name) == 0)
            return true;
    return false;
}

static AwsNames missing_names(AwsNames wanted, AwsNames there, Arena *arena)
{
    AwsNames missing = {.at = arena_array(arena, const char *, wanted.count + 1)};

    for (size_t i = 0; i < wanted.count; i++)
        if (!has_name(there, wanted.at[i]))
            missing.at[missing.count++] = wanted.at[i];
    return missing;
}

static void modify_lists(const RdsInstance *from, const RdsInstance *made, Arena *arena,
                         RdsModify *modify)
{
    AwsNames wanted = group_names(from->security_groups, arena);
    AwsNames there = group_names(made->security_groups, arena);

    if (missing_names(wanted, there, arena).count || missing_names(there, wanted, arena).count)
        modify->security_groups = wanted;
    modify->enable_logs = missing_names(from->log_exports, made->log_exports, arena);
    modify->disable_logs = missing_names(made->log_exports, from->log_exports, arena);
}

static void modify_monitoring(const RdsInstance *from, const RdsInstance *made, RdsModify *modify)
{
    modify->monitoring_interval = other_num(from->monitoring_interval, made->monitoring_interval);
    if (modify->monitoring_interval.set && modify->monitoring_interval.value > 0)
        modify->monitoring_role = from->monitoring_role;
    modify->performance_insights =
        other_bool(from->performance_insights, made->performance_insights);
    if (aws_is(from->performance_insights)) {
        modify->performance_retention =
            other_num(from->performance_retention, made->performance_retention);
        if (!aws_is(made->performance_insights)) /* it can't change once set */
            modify->performance_kms_key = from->performance_kms_key;
    }
    modify->insights_mode = other_text(from->insights_mode, made->insights_mode);
}

static void modify_storage(const RdsInstance *from, const RdsInstance *made, RdsModify *modify)
{
    modify->max_allocated_storage =
        other_num(from->max_allocated_storage, made->max_allocated_storage);
    if (!is_type(from, "standard"))
        modify->storage_type = other_text(from->storage_type, made->storage_type);
    if (!takes_iops(from))
        return;
    modify->iops = other_num(from->iops, made->iops);
    if (is_type(from, "gp3"))
        modify->storage_throughput = other_num(from->storage_throughput, made->storage_throughput);
    /* the allocated storage must come along with them */
    if (modify->iops.set || modify->storage_throughput.set)
        modify->allocated_storage = made->allocated_storage;
}

static bool asks_for_something(const RdsModify *modify)
{
    AUTO_QUERY with;
    AUTO_QUERY without;
    RdsModify nothing = {.name = modify->name};

    query_init(&with, "x", "x");
    query_init(&without, "x", "x");
    put_modify(&with, modify);
    put_modify(&without, &nothing);
    return with.body.len != without.body.len;
}

bool rds_modify_as(const RdsInstance *from, const RdsInstance *made, Arena *arena,
                   RdsModify *modify)
{
    *modify = (RdsModify){
        .name = made->name,
        .class_ = other_text(from->class_, made->class_),
        .parameter_group =
            other_text(first_group(from->parameter_groups), first_group(made->parameter_groups)),
        .option_group =
            other_text(own_option_group(from->option_groups), first_group(made->option_groups)),
        .backup_retention = other_num(from->backup_retention, made->backup_retention),
        .backup_window = other_text(from->backup_window, made->backup_window),
        .maintenance_window = other_text(from->maintenance_window, made->maintenance_window),
        .ca = other_text(from->ca, made->ca),
        .promotion_tier = other_num(from->promotion_tier, made->promotion_tier),
        .multi_az = other_bool(from->multi_az, made->multi_az),
        .publicly_accessible = other_bool(from->publicly_accessible, made->publicly_accessible),
        .auto_minor_upgrade = other_bool(from->auto_minor_upgrade, made->auto_minor_upgrade),
        .copy_tags_to_snapshot =
            other_bool(from->copy_tags_to_snapshot, made->copy_tags_to_snapshot),
        .iam_auth = other_bool(from->iam_auth, made->iam_auth),
        .deletion_protection = other_bool(from->deletion_protection, made->deletion_protection),
        .network_type = other_text(from->network_type, made->network_type)};
    if (from->port && made->port && from->port != made->port)
        modify->port = aws_num(from->port);
    modify_lists(from, made, arena, modify);
    modify_monitoring(from, made, modify);
    modify_storage(from, made, modify);
    return asks_for_something(modify);
}

/* Changing and removing ---------------------------------------------------------------------- */

static bool has_status(Aws *aws, const char *name, const char *resource_id, const char *status)
{
    RdsInstance *found = NULL;
    Err why = ERR_INIT;
    Arena arena;
    bool has;

    arena_init(&arena, 4096);
    has = rds_find_instance(aws, name, &arena, &found, &why) && found &&
          (!resource_id || same_text(found->resource_id, resource_id)) &&
          (!status || same_text(found->status, status));
    arena_fini(&arena);
    return has;
}

typedef struct Rename {
    Aws *aws;
    const char *name;
    const char *new_name;
    const char *resource_id;
    unsigned looks;
} Rename;

/* In the middle of a rename neither name is found, and at its begin the old one looks as ever. */
static bool look_rename(void *self, AwsProgress *progress, Err *err)
{
    Rename *rename = self;

    (void)err;
    if (has_status(rename->aws, rename->new_name, rename->resource_id, NULL) ||
        has_status(rename->aws, rename->name, rename->resource_id, "renaming"))
        progress->state = AWS_STATE_READY;
    else
        progress->state = ++rename->looks < RENAME_LOOKS ? AWS_STATE_WAIT : AWS_STATE_FAILED;
    return true;
}

static bool rename_took(Rename *rename, bool lost, Err *err)
{
    AwsWait wait = {.what = "a rename whose answer was lost", .look = look_rename, .self = rename};
    Err why = ERR_INIT;

    if (lost ? !aws_wait(rename->aws, &wait, &why)
             : !has_status(rename->aws, rename->new_name, rename->resource_id, NULL)) {
        if (why.kind == ERR_STOPPED)
            *err = why;
        return false;
    }
    err_clear(err);
    return true;
}

bool rds_rename_instance(Aws *aws, const char *name, const char *new_name, const char *resource_id,
                         Err *err)
{
    RdsModify modify = {.name = name, .new_name = new_name};
    Rename rename = {.aws = aws, .name = name, .new_name = new_name, .resource_id = resource_id};
    bool lost;

    if (rds_modify_instance(aws, &modify, err))
        return true;
    lost = aws_was_ambiguous(aws);
    if (err->kind == ERR_STOPPED || !resource_id ||
        (!lost && !aws_code_is(err, INSTANCE_GONE) && !aws_code_is(err, "DBInstanceAlreadyExists")))
        return false;
    return rename_took(&rename, lost, err);
}

bool rds_reboot_instance(Aws *aws, const char *name, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "RebootDBInstance");
    query_str(&query, "DBInstanceIdentifier", name);
    if (rds_do(aws, "RebootDBInstance", &query, err))
        return true;
    if (!aws_was_ambiguous(aws) || !aws_code_is(err, INSTANCE_BUSY) ||
        !has_status(aws, name, NULL, "rebooting"))
        return false;
    err_clear(err);
    return true;
}

static bool is_going(Aws *aws, const char *name)
{
    RdsInstance *found = NULL;
    Err why = ERR_INIT;
    Arena arena;
    bool going;

    arena_init(&arena, 4096);
    going = rds_find_instance(aws, name, &arena, &found, &why) &&
            (!found || (found->status && strcmp(found->status, "deleting") == 0));
    arena_fini(&arena);
    return going;
}

bool rds_delete_instance(Aws *aws, const char *name, RdsDelete how, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "DeleteDBInstance");
    query_str(&query, "DBInstanceIdentifier", name);
    query_bool(&query, "SkipFinalSnapshot", aws_bool(!how.final_snapshot));
    query_str(&query, "FinalDBSnapshotIdentifier", how.final_snapshot);
    query_bool(&query, "DeleteAutomatedBackups", aws_bool(!how.keep_backups));
    if (rds_do(aws, "DeleteDBInstance", &query, err))
        return true;
    if (aws_code_is(err, INSTANCE_GONE) ||
        ((aws_was_ambiguous(aws) || aws_code_is(err, INSTANCE_BUSY)) && err->kind != ERR_STOPPED &&
         is_going(aws, name))) {
        err_clear(err);
        return true;
    }
    return false;
}

static bool has_role(Aws *aws, const char *name, const char *role_arn, const char *feature)
{
    RdsInstance *found = NULL;
    Err why = ERR_INIT;
    Arena arena;
    bool has = false;

    arena_init(&arena, 4096);
    if (rds_find_instance(aws, name, &arena, &found, &why) && found)
        for (size_t i = 0; i < found->roles.count; i++)
            has = has || (same_text(found->roles.at[i].arn, role_arn) &&
                          same_text(found->roles.at[i].feature, feature));
    arena_fini(&arena);
    return has;
}

bool rds_add_role(Aws *aws, const char *name, const char *role_arn, const char *feature, Err *err)
{
    AUTO_QUERY query;

    rds_query_init(&query, "AddRoleToDBInstance");
    query_str(&query, "DBInstanceIdentifier", name);
    query_str(&query, "RoleArn", role_arn);
    query_str(&query, "FeatureName", feature);
    if (rds_do(aws, "AddRoleToDBInstance", &query, err))
        return true;
    if (!(aws_code_is(err, "DBInstanceRoleAlreadyExists DBInstanceRoleAlreadyExistsFault") ||
          (aws_was_ambiguous(aws) && aws_code_is(err, INSTANCE_BUSY))) ||
        !has_role(aws, name, role_arn, feature))
        return false;
    err_clear(err);
    return true;
}

/* Waiting ------------------------------------------------------------------------------------ */

static bool is_one_of(const char *status, const char *const *list, size_t count)
{
    for (size_t i = 0; status && i < count; i++)
        if (strcmp(status, list[i]) == 0)
            return true;
    return false;
}

bool rds_status_is_usable(const char *status)
{
    static const char *const list[] = {"available",
                                       "backing-up",
                                       "configuring-enhanced-monitoring",
                                       "configuring-iam-database-auth",
                                       "configuring-log-exports",
                                       "configuring-associated-roles",
                                       "storage-config-upgrade",
                                       "storage-initialization",
                                       "storage-optimization"};

    return is_one_of(status, list, ARRAY_LEN(list));
}

bool rds_status_is_failed(const char *status)
{
    static const char *const list[] = {"deleted",
                                       "deleting",
                                       "failed",
                                       "inaccessible-encryption-credentials",
                                       "inaccessible-encryption-credentials-recoverable",
                                       "incompatible-create",
                                       "incompatible-network",
                                       "incompatible-option-group",
                                       "incompatible-parameters",
                                       "incompatible-restore",
                                       "insufficient-capacity",
                                       "restore-error",
                                       "stopped",
                                       "stopping",
                                       "storage-full",
                                       "upgrade-failed"};

    return is_one_of(status, list, ARRAY_LEN(list));
}

typedef struct Watch {
    Aws *aws;
    const char *name;
    const char *resource_id; /* only the thing with this one counts, and it may be missing
                                meanwhile; NULL: any */
    bool settled;
    uint64_t
        settled_at; /* first of the looks in a row that found it settled; 0: the last one didn't */
} Watch;

#define MOST_SETTLE_MS 15000

static bool is_usable(const RdsInstance *instance)
{
    return rds_status_is_usable(instance->status) && instance->host;
}

static bool is_settled(const RdsInstance *instance)
{
    for (size_t i = 0; i < instance->parameter_groups.count; i++)
        if (same_text(instance->parameter_groups.at[i].status, "applying"))
            return false;
    return instance->pending.count == 0;
}

/* RDS goes on showing the old state for some seconds after a Modify, so one look proves nothing. */
static bool stays_settled(Watch *watch, const RdsInstance *instance)
{
    uint64_t now = mono_ms();

    if (!is_usable(instance) || !is_settled(instance)) {
        watch->settled_at = 0;
        return false;
    }
    if (!watch->settled_at)
        watch->settled_at = now;
    return now - watch->settled_at >= size_min(aws_poll_ms(watch->aws), MOST_SETTLE_MS);
}

static void judge(Watch *watch, const RdsInstance *instance, AwsProgress *progress)
{
    bool ready = watch->settled ? stays_settled(watch, instance) : is_usable(instance);

    snprintf(progress->status, sizeof(progress->status), "%s",
             instance->status ? instance->status : "unknown");
    if (rds_status_is_failed(instance->status)) {
        progress->state = AWS_STATE_FAILED;
        return;
    }
    progress->state = ready ? AWS_STATE_READY : AWS_STATE_WAIT;
}

static bool look_instance(void *self, AwsProgress *progress, Err *err)
{
    Watch *watch = self;
    RdsInstance *found;
    Arena arena;
    bool ok;

    arena_init(&arena, 8192);
    if (watch->resource_id)
        ok = rds_find_instance(watch->aws, watch->name, &arena, &found, err);
    else
        ok = rds_get_instance(watch->aws, watch->name, &arena, &found, err);
    if (ok && watch->resource_id && (!found || !same_text(found->resource_id, watch->resource_id)))
        snprintf(progress->status, sizeof(progress->status), "renaming");
    else if (ok)
        judge(watch, found, progress);
    arena_fini(&arena);
    return ok;
}

static bool look_instance_gone(void *self, AwsProgress *progress, Err *err)
{
    static const char *const not_going[] = {"creating", "modifying", "rebooting",
                                            "resetting-master-credentials"};
    Watch *watch = self;
    RdsInstance *found;
    Arena arena;
    bool ok;

    arena_init(&arena, 8192);
    ok = rds_find_instance(watch->aws, watch->name, &arena, &found, err);
    if (ok) {
        const char *status = found ? found->status : "deleted";

        snprintf(progress->status, sizeof(progress->status), "%s", status ? status : "unknown");
        progress->state = !found                                               ? AWS_STATE_READY
                          : is_one_of(status, not_going, ARRAY_LEN(not_going)) ? AWS_STATE_FAILED
                                                                               : AWS_STATE_WAIT;
    }
    arena_fini(&arena);
    return ok;
}

static bool wait_for(Watch *watch, bool (*look)(void *, AwsProgress *, Err *), const char *what,
                     AwsProgressFn *progress, void *self, Err *err)
{
    char text[160];
    AwsWait wait = {
        .what = text, .look = look, .self = watch, .progress = progress, .progress_self = self};

    snprintf(text, sizeof(text), "%s %s", what, watch->name);
    return aws_wait(watch->aws, &wait, err);
}

bool rds_wait_instance(Aws *aws, const char *name, bool settled, AwsProgressFn *progress,
                       void *self, Err *err)
{
    Watch watch = {.aws = aws, .name = name, .settled = settled};

    return wait_for(&watch, look_instance, "instance", progress, self, err);
}

bool rds_wait_renamed(Aws *aws, const char *new_name, const char *resource_id,
                      AwsProgressFn *progress, void *self, Err *err)
{
    Watch watch = {.aws = aws, .name = new_name, .settled = true, .resource_id = resource_id};

    return wait_for(&watch, look_instance, "the rename to", progress, self, err);
}

bool rds_wait_instance_gone(Aws *aws, const char *name, AwsProgressFn *progress, void *self,
                            Err *err)
{
    Watch watch = {.aws = aws, .name = name};

    return wait_for(&watch, look_instance_gone, "the end of instance", progress, self, err);
}
