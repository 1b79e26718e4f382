/* The phases that make the copy under the new key. */
#include "aws/kms.h"
#include "engine/base/crash.h"
#include "engine/base/mono.h"
#include "engine/move/phases.h"
#include "engine/move/settings.h"

static void show_progress(void *self, const AwsProgress *progress)
{
    const char *what = self;
    char line[256];

    snprintf(line, sizeof(line), "%s: %s %d%%, %" PRIu64 " s", what, progress->status,
             progress->percent < 0 ? 0 : progress->percent, progress->waited_ms / 1000);
    log_progress(line);
    log_debug("waiting", F_STR("for", what), F_STR("status", progress->status),
              F_I64("percent", progress->percent));
}

/* Chosen once and written down, so that a rerun looks for the same thing. */
static bool name_of(Move *move, const char *key, const char *standard, const char **name, Err *err)
{
    if (!move_get(move, "", key, name, err))
        return false;
    if (*name)
        return true;
    *name = standard;
    return move_put(move, "", key, standard, err);
}

static bool order_is_kept(Move *move, Err *err)
{
    const char *marker;

    if (!move_get(move, "", "marker", &marker, err))
        return false;
    for (size_t i = 0; i < move->db_count; i++)
        if (!move->dbs[i].slot || !move->dbs[i].consistent_point || !marker)
            return err_fail(err, ERR_BUG, "a snapshot before slot and marker of %s",
                            move->dbs[i].name);
    return true;
}

typedef struct Making {
    const char *name;
    RdsSnapshot *snapshot;
    RdsInstance *instance;
} Making;

/* An earlier run's call may have been carried out although nobody heard its answer: look before
 * asking again, since a busy instance refuses a second snapshot before it says that the first is
 * there. */
static bool snapshot_is_there(Move *move, const char *name, bool *there, Err *err)
{
    RdsSnapshot *found;

    if (!rds_find_snapshot(move->aws, name, &move->arena, &found, err))
        return false;
    *there = found && aws_is_ours(move->aws, found->tags);
    return true;
}

/* An automated backup or a change may be going on: RDS refuses a snapshot meanwhile. */
static bool create_snapshot(Move *move, void *self, Err *err)
{
    Making *making = self;
    uint64_t deadline = mono_ms() + move->conf->retry;

    while (!rds_create_snapshot(move->aws, move->source->name, making->name, (AwsTags){0},
                                &move->arena, &making->snapshot, err)) {
        if (strcmp(err->code, "InvalidDBInstanceState") != 0 || mono_ms() > deadline)
            return false;
        log_info("the instance is busy; the snapshot waits", F_STR("instance", move->source->name));
        err_clear(err);
        if (stop_wait(move->stop, (unsigned)size_min(move->conf->aws_poll, 5000)))
            return stop_fail(err, "waiting for the instance");
    }
    return true;
}

bool phase_snapshot(Move *move, Err *err)
{
    Making making = {0};
    bool there;

    if (!order_is_kept(move, err) ||
        !name_of(move, "snapshot",
                 arena_printf(&move->arena, "keybridge-%s-%s", move->source->name, move->id),
                 &making.name, err))
        return false;
    if (!snapshot_is_there(move, making.name, &there, err) ||
        (!there && !move_act(move, "create snapshot", create_snapshot, &making, err)))
        return false;
    crash_point("snapshot-asked");
    if (!rds_wait_snapshot(move->aws, making.name, show_progress, (void *)(uintptr_t) "snapshot",
                           err))
        return false;
    return audit_add(move->audit, err, "snapshot made", F_STR("snapshot", making.name));
}

static bool copy_snapshot(Move *move, void *self, Err *err)
{
    Making *making = self;
    RdsCopy copy = {.name = making->name, .kms_key = move->key_arn};

    return move_get(move, "", "snapshot", &copy.source, err) &&
           rds_copy_snapshot(move->aws, &copy, &move->arena, &making->snapshot, err);
}

static bool has_new_key(Move *move, const char *what, const char *name, const char *key, Err *err)
{
    if (key && strcmp(key, move->key_arn) == 0)
        return true;
    err_fail(err, ERR_AWS, "%s %s is under key %s, not under %s", what, name, key ? key : "(none)",
             move->key_arn);
    return err_hint(err, "keybridge cleanup, and start again");
}

bool phase_copy(Move *move, Err *err)
{
    Making making = {0};
    bool there;

    if (!name_of(move, "copy",
                 arena_printf(&move->arena, "keybridge-%s-%s-copy", move->source->name, move->id),
                 &making.name, err) ||
        !snapshot_is_there(move, making.name, &there, err) ||
        (!there && !move_act(move, "copy snapshot", copy_snapshot, &making, err)))
        return false;
    crash_point("copy-asked");
    if (!rds_wait_snapshot(move->aws, making.name, show_progress, (void *)(uintptr_t) "copy",
                           err) ||
        !rds_get_snapshot(move->aws, making.name, &move->arena, &making.snapshot, err) ||
        !has_new_key(move, "snapshot", making.name, making.snapshot->kms_key, err))
        return false;
    return audit_add(move->audit, err, "snapshot copied", F_STR("snapshot", making.name),
                     F_STR("key", move->key_arn));
}

static bool restore_instance(Move *move, void *self, Err *err)
{
    Making *making = self;
    RdsRestore restore = {0};

    rds_restore_as(move->source, move->target_name, making->name, &move->arena, &restore);
    return rds_restore_instance(move->aws, &restore, &move->arena, &making->instance, err);
}

bool phase_restore(Move *move, Err *err)
{
    Making making = {0};

    bool there = move->target && aws_is_ours(move->aws, move->target->tags);

    if (!move_get(move, "", "copy", &making.name, err) ||
        (!there && !move_act(move, "restore instance", restore_instance, &making, err)))
        return false;
    crash_point("restore-asked");
    if (!rds_wait_instance(move->aws, move->target_name, false, show_progress,
                           (void *)(uintptr_t) "restore", err) ||
        !move_find_target(move, err))
        return false;
    if (!move->target || !move->target->host)
        return err_fail(err, ERR_AWS, "the restored instance %s has no address", move->target_name);
    if (!has_new_key(move, "instance", move->target_name, move->target->kms_key, err))
        return false;
    return move_put(move, "", "target_resource_id", move->target->resource_id, err) &&
           audit_add(move->audit, err, "instance restored", F_STR("instance", move->target_name),
                     F_STR("resource_id", move->target->resource_id),
                     F_STR("key", move->target->kms_key)) &&
           move_load_databases(move, err);
}

static bool add_roles(Move *move, Err *err)
{
    const RdsRoles *roles = &move->source->roles;

    for (size_t i = 0; i < roles->count; i++) {
        bool there = false;

        for (size_t j = 0; j < move->target->roles.count; j++)
            there |= strcmp(roles->at[i].arn, move->target->roles.at[j].arn) == 0 &&
                     strcmp(roles->at[i].feature, move->target->roles.at[j].feature) == 0;
        if (!there && !rds_add_role(move->aws, move->target_name, roles->at[i].arn,
                                    roles->at[i].feature, err))
            return err_context(err, "role %s", roles->at[i].arn);
    }
    return true;
}

static bool modify(Move *move, void *self, Err *err)
{
    return rds_modify_instance(move->aws, self, err);
}

static bool settle(Move *move, Err *err)
{
    return rds_wait_instance(move->aws, move->target_name, true, show_progress,
                             (void *)(uintptr_t) "settings", err) &&
           move_find_target(move, err);
}

static bool needs_reboot(const RdsInstance *instance)
{
    for (size_t i = 0; i < instance->parameter_groups.count; i++)
        if (strcmp(instance->parameter_groups.at[i].status, "pending-reboot") == 0)
            return true;
    return false;
}

static bool keep_differences(Move *move, Err *err)
{
    SettingDiff *diffs;
    size_t count;
    size_t compared;
    char key[32];

    settings_compare(move->source, move->target, &move->arena, &diffs, &count, &compared);
    for (size_t i = 0; i < count; i++) {
        snprintf(key, sizeof(key), "setting.%03zu", i);
        log_warn("setting differs", F_STR("setting", diffs[i].name), F_STR("old", diffs[i].source),
                 F_STR("new", diffs[i].target));
        if (!move_put(move, "", key,
                      arena_printf(&move->arena, "%s: %s on the old side, %s on the new",
                                   diffs[i].name, diffs[i].source, diffs[i].target),
                      err))
            return false;
    }
    return move_put_u64(move, "", "settings_compared", compared, err) &&
           move_put_u64(move, "", "settings_different", count, err);
}

/* The second look is for what the first change made possible, or what AWS shows late. */
bool phase_settings(Move *move, Err *err)
{
    if (!move_find_target(move, err))
        return false;
    for (int round = 0; round < 2; round++) {
        RdsModify change = {0};

        if (!rds_modify_as(move->source, move->target, &move->arena, &change))
            break;
        change.name = move->target_name;
        if (!move_act(move, "modify instance", modify, &change, err))
            return false;
        crash_point("modify-asked");
        if (!settle(move, err))
            return false;
    }
    if (!add_roles(move, err) || !settle(move, err))
        return false;
    if (needs_reboot(move->target)) {
        log_info("rebooting the new instance for its parameter group",
                 F_STR("instance", move->target_name));
        if (!rds_reboot_instance(move->aws, move->target_name, err) || !settle(move, err))
            return false;
    }
    return keep_differences(move, err);
}
