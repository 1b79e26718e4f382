/* rds.h - the RDS calls that a migration needs, typed.
 *
 * Names: an instance or snapshot is named by its identifier (case-insensitive, RDS answers in lower
 * case). `find_` gives NULL with success when there is no such thing, `get_` fails then. What comes
 * back lives in the arena.
 *
 * Calls that make something are safe to repeat: when the answer was lost, or the thing exists
 * already, it is looked up and taken if it carries this run's tag (AwsOptions.run); else the call
 * fails with the service's …AlreadyExists. Deletes of what is gone or going succeed. Errors:
 * aws/client.h.
 */
#ifndef AWS_RDS_H
#define AWS_RDS_H

#include "aws/client.h"
#include "engine/base/buf.h"

/* Instances ---------------------------------------------------------------------------------- */

typedef struct RdsGroupStatus { /* of a parameter, option or security group */
    const char *name;
    const char *status; /* parameter group: in-sync, applying, pending-reboot; security group:
                           active; option group: in-sync */
} RdsGroupStatus;

typedef struct RdsGroups {
    RdsGroupStatus *at;
    size_t count;
} RdsGroups;

typedef struct RdsRole {
    const char *arn;
    const char *feature; /* s3Import, s3Export, Lambda, …; "" for the one without */
    const char *status;
} RdsRole;

typedef struct RdsRoles {
    RdsRole *at;
    size_t count;
} RdsRoles;

typedef struct RdsDomain { /* Active Directory */
    const char *domain, *status, *fqdn, *iam_role, *ou, *auth_secret_arn;
    AwsNames dns_ips;
} RdsDomain;

typedef struct RdsDomains {
    RdsDomain *at;
    size_t count;
} RdsDomains;

typedef struct RdsInstance {
    const char *name;        /* DBInstanceIdentifier */
    const char *arn;         /* DBInstanceArn */
    const char *resource_id; /* DbiResourceId: survives a rename, changes with a restore */
    const char *status;      /* DBInstanceStatus */
    const char *class_;      /* DBInstanceClass */
    const char *engine;      /* postgres, mysql, mariadb, aurora-postgresql, … */
    const char *engine_version;
    const char *license_model;
    const char *cluster; /* DBClusterIdentifier; NULL for a plain instance */
    const char *master_user;
    const char *db_name; /* NULL when none was asked for */
    const char *host;    /* Endpoint.Address; NULL while it is being made */
    int port;            /* Endpoint.Port; 0 while it is being made */
    const char *host_zone;
    const char *created; /* InstanceCreateTime, as sent */
    const char *availability_zone;
    const char *secondary_zone;
    const char *subnet_group;
    const char *vpc;
    const char *network_type;
    AwsBool multi_az, publicly_accessible;

    const char *storage_type;
    AwsNum allocated_storage, max_allocated_storage, iops, storage_throughput;
    AwsBool storage_encrypted;
    const char *kms_key;           /* ARN; NULL when unencrypted or under an AWS-owned key */
    const char *encryption_type;   /* StorageEncryptionType: none, sse-kms, sse-rds; NULL from older
                                      regions */
    const char *storage_operation; /* StorageOperationStatus: Initializing, Optimizing; NULL when
                                      hydrated */
    AwsNum storage_percent;
    AwsBool dedicated_log_volume;

    RdsGroups parameter_groups, option_groups, security_groups;
    AwsBool iam_auth;
    AwsNames log_exports; /* EnabledCloudwatchLogsExports */
    AwsBool deletion_protection, copy_tags_to_snapshot, auto_minor_upgrade;
    AwsNum backup_retention;
    const char *backup_window, *maintenance_window, *backup_target;
    const char *ca;                /* CACertificateIdentifier */
    const char *lifecycle_support; /* EngineLifecycleSupport */
    AwsNum monitoring_interval, promotion_tier;
    const char *monitoring_role;
    AwsBool performance_insights;
    const char *performance_kms_key;
    AwsNum performance_retention;
    const char *insights_mode;               /* DatabaseInsightsMode */
    const char *secret_arn, *secret_kms_key; /* MasterUserSecret: a managed password; NULL: none */
    RdsRoles roles;
    RdsDomains domains;
    AwsTags processor_features; /* name and value */
    AwsBool customer_owned_ip;
    const char *iam_profile; /* CustomIamInstanceProfile */
    const char *tde_arn, *timezone, *charset, *nchar_charset;
    AwsTags tags;

    AwsNames pending; /* names of the members of PendingModifiedValues */
    AwsNames replicas, replica_clusters;
    const char *replica_of;
    AwsNames backup_replications; /* ARNs of replicated automated backups */
    const char *activity_stream;  /* ActivityStreamStatus: stopped, started, … */
    const char *activity_stream_kms_key;
} RdsInstance;

typedef struct RdsInstances {
    RdsInstance *at;
    size_t count;
} RdsInstances;

MUST_USE bool rds_find_instance(Aws *aws, const char *name, Arena *arena, RdsInstance **found,
                                Err *err);
MUST_USE bool rds_get_instance(Aws *aws, const char *name, Arena *arena, RdsInstance **found,
                               Err *err);
MUST_USE bool rds_list_instances(Aws *aws, Arena *arena, RdsInstances *all, Err *err);

/* Everything that the restore can take; what it can't take (maintenance window, monitoring, …) goes
 * through RdsModify. */
typedef struct RdsRestore {
    const char *name;     /* required */
    const char *snapshot; /* required */
    const char *class_, *availability_zone, *subnet_group, *license_model, *option_group,
        *parameter_group, *storage_type;
    const char *network_type, *ca, *backup_window, *backup_target, *lifecycle_support, *iam_profile;
    const char *tde_arn, *tde_password;
    AwsNum port, iops, storage_throughput, allocated_storage, backup_retention;
    AwsBool multi_az, publicly_accessible, auto_minor_upgrade, copy_tags_to_snapshot, iam_auth,
        deletion_protection;
    AwsBool dedicated_log_volume, customer_owned_ip, default_processor_features;
    AwsNames security_groups, log_exports;
    AwsTags processor_features;
    RdsDomain domain; /* domain NULL: none */
    AwsTags tags;     /* all tags that it shall have: what is given replaces those of the snapshot's
                         source */
} RdsRestore;

MUST_USE bool rds_restore_instance(Aws *aws, const RdsRestore *restore, Arena *arena,
                                   RdsInstance **made, Err *err);
/* `restore` with every setting of `from` that the restore takes (aws.md's table), under the new
 * name and snapshot. Values and lists are borrowed from `from` and `arena`. Tags are all of
 * `from`'s; deletion protection too: leave it off where the copy may have to be deleted again. */
void rds_restore_as(const RdsInstance *from, const char *name, const char *snapshot, Arena *arena,
                    RdsRestore *restore);

typedef struct RdsModify {
    const char *name; /* required */
    const char *new_name;
    const char *class_, *subnet_group, *parameter_group, *option_group, *engine_version,
        *license_model, *storage_type;
    const char *backup_window, *maintenance_window, *ca, *monitoring_role, *network_type;
    const char *performance_kms_key, *insights_mode, *master_secret_kms_key;
    const char *tde_arn, *tde_password, *master_password;
    AwsNum allocated_storage, max_allocated_storage, iops, storage_throughput, backup_retention,
        monitoring_interval;
    AwsNum port, promotion_tier, performance_retention;
    AwsBool multi_az, publicly_accessible, auto_minor_upgrade, copy_tags_to_snapshot, iam_auth,
        deletion_protection;
    AwsBool performance_insights, dedicated_log_volume, certificate_restart, manage_master_password;
    AwsBool allow_major_upgrade, customer_owned_ip;
    AwsNames security_groups, enable_logs, disable_logs;
    AwsTags processor_features;
    RdsDomain domain;
    bool later; /* in the maintenance window; default is at once */
} RdsModify;

MUST_USE bool rds_modify_instance(Aws *aws, const RdsModify *modify, Err *err);
/* What a restore can't take and `made` doesn't have yet, compared with `from`; false when nothing
 * is left to do. */
bool rds_modify_as(const RdsInstance *from, const RdsInstance *made, Arena *arena,
                   RdsModify *modify);
/* resource_id proves afterwards, if the answer was lost, that the thing now called new_name is the
 * one meant. */
MUST_USE bool rds_rename_instance(Aws *aws, const char *name, const char *new_name,
                                  const char *resource_id, Err *err);
MUST_USE bool rds_reboot_instance(Aws *aws, const char *name, Err *err);

typedef struct RdsDelete {
    const char *final_snapshot; /* NULL: none is taken */
    bool keep_backups;          /* automated backups stay (DeleteAutomatedBackups=false) */
} RdsDelete;

MUST_USE bool rds_delete_instance(Aws *aws, const char *name, RdsDelete how, Err *err);
MUST_USE bool rds_add_role(Aws *aws, const char *name, const char *role_arn, const char *feature,
                           Err *err);

/* States in which an instance takes connections although it isn't plainly "available". */
bool rds_status_is_usable(const char *status);
/* States that it doesn't leave by itself. */
bool rds_status_is_failed(const char *status);

/* Until it can be used. `settled` also wants PendingModifiedValues empty and no parameter group in
 * "applying", seen for as long as the client's poll_ms (15 s at most), because RDS shows the old
 * state for some seconds after a Modify. */
MUST_USE bool rds_wait_instance(Aws *aws, const char *name, bool settled, AwsProgressFn *progress,
                                void *self, Err *err);
/* After a rename: until the thing with that resource_id has its new name and can be used. For a
 * while neither name is found. */
MUST_USE bool rds_wait_renamed(Aws *aws, const char *new_name, const char *resource_id,
                               AwsProgressFn *progress, void *self, Err *err);
MUST_USE bool rds_wait_instance_gone(Aws *aws, const char *name, AwsProgressFn *progress,
                                     void *self, Err *err);

/* Snapshots ---------------------------------------------------------------------------------- */

typedef struct RdsSnapshot {
    const char *name, *arn, *instance, *status, *type; /* manual, automated, shared, … */
    const char *engine, *engine_version, *created, *availability_zone, *vpc, *option_group,
        *storage_type, *license_model;
    const char *source_snapshot, *source_region, *resource_id, *master_user, *kms_key;
    AwsNum allocated_storage, iops, storage_throughput, percent, port;
    AwsBool encrypted, iam_auth;
    AwsTags tags;
} RdsSnapshot;

typedef struct RdsSnapshots {
    RdsSnapshot *at;
    size_t count;
} RdsSnapshots;

MUST_USE bool rds_create_snapshot(Aws *aws, const char *instance, const char *name, AwsTags tags,
                                  Arena *arena, RdsSnapshot **made, Err *err);

typedef struct RdsCopy {
    const char *source;       /* name; ARN when it is shared or in another region */
    const char *name;         /* of the copy */
    const char *kms_key;      /* required: without it the copy would have the old key */
    const char *option_group; /* NULL: none */
    AwsTags tags;             /* besides those of the source, which are copied */
} RdsCopy;

MUST_USE bool rds_copy_snapshot(Aws *aws, const RdsCopy *copy, Arena *arena, RdsSnapshot **made,
                                Err *err);
MUST_USE bool rds_find_snapshot(Aws *aws, const char *name, Arena *arena, RdsSnapshot **found,
                                Err *err);
MUST_USE bool rds_get_snapshot(Aws *aws, const char *name, Arena *arena, RdsSnapshot **found,
                               Err *err);
/* instance NULL: of all. type NULL: manual and automated. */
MUST_USE bool rds_list_snapshots(Aws *aws, const char *instance, const char *type, Arena *arena,
                                 RdsSnapshots *all, Err *err);
MUST_USE bool rds_delete_snapshot(Aws *aws, const char *name, Err *err);
MUST_USE bool rds_wait_snapshot(Aws *aws, const char *name, AwsProgressFn *progress, void *self,
                                Err *err);
MUST_USE bool rds_wait_snapshot_gone(Aws *aws, const char *name, AwsProgressFn *progress,
                                     void *self, Err *err);

/* Tags --------------------------------------------------------------------------------------- */

MUST_USE bool rds_list_tags(Aws *aws, const char *arn, Arena *arena, AwsTags *tags, Err *err);
MUST_USE bool rds_add_tags(Aws *aws, const char *arn, AwsTags tags, Err *err);

/* Parameter groups --------------------------------------------------------------------------- */

typedef struct RdsParameterGroup {
    const char *name, *family, *description, *arn;
} RdsParameterGroup;

typedef struct RdsParameter {
    const char *name;
    const char *value;        /* NULL: the engine's default */
    const char *source;       /* user, system, engine-default */
    const char *apply_type;   /* static, dynamic */
    const char *apply_method; /* immediate, pending-reboot */
    const char *data_type, *allowed;
    AwsBool modifiable;
} RdsParameter;

typedef struct RdsParameters {
    RdsParameter *at;
    size_t count;
} RdsParameters;

MUST_USE bool rds_find_parameter_group(Aws *aws, const char *name, Arena *arena,
                                       RdsParameterGroup **found, Err *err);
MUST_USE bool rds_create_parameter_group(Aws *aws, const RdsParameterGroup *group, AwsTags tags,
                                         Err *err);
/* name, value and apply_method (NULL: immediate for dynamic ones, else pending-reboot) are used;
 * sent 20 at a time, which is what the service takes. */
MUST_USE bool rds_modify_parameter_group(Aws *aws, const char *name, RdsParameters parameters,
                                         Err *err);
MUST_USE bool rds_delete_parameter_group(Aws *aws, const char *name, Err *err);
/* source NULL: all; "user": only what was changed. */
MUST_USE bool rds_list_parameters(Aws *aws, const char *group, const char *source, Arena *arena,
                                  RdsParameters *all, Err *err);
const RdsParameter *rds_parameter(RdsParameters all,
                                  const char *name); /* NULL: none of that name */

/* Logs and events ---------------------------------------------------------------------------- */

typedef struct RdsLogFile {
    const char *name;
    int64_t last_written; /* ms since 1970 */
    int64_t bytes;
} RdsLogFile;

typedef struct RdsLogFiles {
    RdsLogFile *at; /* as the service sorts them */
    size_t count;
} RdsLogFiles;

/* contains NULL: all. */
MUST_USE bool rds_list_logs(Aws *aws, const char *instance, const char *contains, Arena *arena,
                            RdsLogFiles *all, Err *err);
/* From the start to the end as it is now, appended to `out` (its maximum bounds it). */
MUST_USE bool rds_download_log(Aws *aws, const char *instance, const char *file, Buf *out,
                               Err *err);
/* The same, one portion at a time; returning false from `portion` ends it with its error. */
typedef bool RdsPortionFn(void *self, Span portion, Err *err);
MUST_USE bool rds_read_log(Aws *aws, const char *instance, const char *file, RdsPortionFn *portion,
                           void *self, Err *err);

typedef struct RdsEvent {
    const char *source, *source_type, *message, *date, *arn;
    AwsNames categories;
} RdsEvent;

typedef struct RdsEvents {
    RdsEvent *at;
    size_t count;
} RdsEvents;

/* source_type: db-instance, db-snapshot, … ; minutes: how far back, at most 14 days. */
MUST_USE bool rds_list_events(Aws *aws, const char *source, const char *source_type,
                              unsigned minutes, Arena *arena, RdsEvents *all, Err *err);

#endif
