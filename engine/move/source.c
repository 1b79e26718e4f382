/* The phases that prepare the source. */
#include "aws/kms.h"
#include "aws/sts.h"
#include "engine/base/crash.h"
#include "engine/move/definitions.h"
#include "engine/move/origin.h"
#include "engine/move/phases.h"
#include "engine/move/preflight.h"
#include "engine/stream/capture.h"

static bool check_key(Move *move, Findings *findings, Err *err)
{
    KmsKey key;

    if (!kms_describe_key(move->aws, move->conf->aws_key, &move->arena, &key, err) ||
        !kms_check_key(&key, err))
        return err_context(err, "the new key");
    move->key_arn = key.arn;
    if (move->source->kms_key && strcmp(move->source->kms_key, key.arn) == 0)
        finding_add(findings, FINDING_REFUSE, "", "same key",
                    "the instance is under that key already", "");
    if (strcmp(key.manager, "AWS") == 0)
        finding_add(findings, FINDING_WARN, "", "aws key",
                    "the new key is managed by AWS: snapshots under it can't be shared",
                    "use a customer managed key if they shall be");
    return move_put(move, "", "key_arn", key.arn, err) &&
           move_put(move, "", "old_key_arn", move->source->kms_key ? move->source->kms_key : "",
                    err);
}

static void check_instance(Move *move, Findings *findings)
{
    const RdsInstance *source = move->source;

    if (strcmp(source->engine, "postgres") != 0)
        finding_add(findings, FINDING_REFUSE, "", "engine",
                    arena_printf(&move->arena,
                                 "the instance runs %s; the bridge moves RDS for PostgreSQL",
                                 source->engine),
                    "another road");
    if (source->cluster)
        finding_add(
            findings, FINDING_REFUSE, "", "cluster",
            arena_printf(&move->arena, "the instance is a member of cluster %s", source->cluster),
            "move the cluster");
    if (source->replica_of)
        finding_add(
            findings, FINDING_REFUSE, "", "replica",
            arena_printf(&move->arena, "the instance is a read replica of %s", source->replica_of),
            "move that one");
    if (source->replicas.count)
        finding_add(findings, FINDING_WARN, "", "replicas",
                    arena_printf(&move->arena, "%zu read replicas stay with the old instance",
                                 source->replicas.count),
                    "make new ones of the new instance");
    if (source->secret_arn)
        finding_add(
            findings, FINDING_NOTE, "", "managed password",
            "the master password is managed in Secrets Manager; the new instance starts with the same password, not managed",
            "turn it on again after the cut-over");
    if (!rds_status_is_usable(source->status))
        finding_add(findings, FINDING_REFUSE, "", "status",
                    arena_printf(&move->arena, "the instance is %s", source->status),
                    "wait until it is available");
}

static bool check_target_name(Move *move, Findings *findings, Err *err)
{
    if (!move_find_target(move, err))
        return false;
    if (move->target && !aws_is_ours(move->aws, move->target->tags))
        finding_add(findings, FINDING_REFUSE, "", "target name",
                    arena_printf(&move->arena,
                                 "an instance %s exists already and this migration didn't make it",
                                 move->target_name),
                    "choose another name with --target-instance");
    return true;
}

static bool check_switch(Move *move, Findings *findings, Err *err)
{
    const char *about;

    if (!switch_check(move->mover, &move->ends, &about, err))
        return false;
    finding_add(findings, FINDING_NOTE, "", "switch", about, "");
    return true;
}

static bool check_aws(Move *move, Findings *findings, Err *err)
{
    StsIdentity who;

    if (!sts_get_caller_identity(move->aws, &move->arena, &who, err))
        return false;
    move->account = who.account;
    check_instance(move, findings);
    return move_put(move, "", "account", who.account, err) &&
           move_put(move, "", "caller", who.arn, err) && check_key(move, findings, err) &&
           check_target_name(move, findings, err);
}

static bool check_database(Move *move, const char *name, const PreflightNeeds *needs,
                           Findings *findings, Err *err)
{
    AUTO_PG pg = {0};
    PgOptions options = {.stop = move->stop, .database = name};

    if (!pg_open(&pg, move->source_maintenance, ERR_SOURCE, &options, err))
        return err_context(err, "database %s", name);
    return preflight_database(&pg, needs, findings, err);
}

/* template1 takes connections on RDS and on a fresh server; it's where the fence is worked from. */
static bool check_databases(Move *move, Findings *findings, Err *err)
{
    PreflightNeeds needs = {.publication = move->publication, .rds = move->aws != NULL};
    AUTO_PG pg = {0};
    const char **names;
    size_t count;

    if (!move_source(move, NULL, &pg, err)) {
        err_context(err, "database template1, from which the others are closed at the cut-over");
        return false;
    }
    if (!preflight_databases(&pg, move->conf->database, &move->arena, &names, &count, err))
        return false;
    needs.slots = count + 1; /* verify makes a temporary one */
    if (!preflight_server(&pg, &needs, findings, err))
        return false;
    for (size_t i = 0; i < count && !findings->refusals; i++)
        if (!check_database(move, names[i], &needs, findings, err))
            return false;
    return findings->refusals || move_save_databases(move, names, count, err);
}

static bool keep_findings(Move *move, const Findings *findings, Err *err)
{
    size_t at = 0;
    char key[32];

    for (const Finding *f = findings->first; f; f = f->next) {
        snprintf(key, sizeof(key), "finding.%03zu", at++);
        if (f->level != FINDING_REFUSE &&
            !move_put(move, f->database, key,
                      arena_printf(&move->arena, "%s: %s", finding_level_name(f->level), f->text),
                      err))
            return false;
        log_at(f->level == FINDING_NOTE ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "preflight",
               F_STR("database", f->database), F_STR("check", f->check), F_STR("finding", f->text),
               F_STR("hint", f->hint));
    }
    return true;
}

bool phase_preflight(Move *move, Err *err)
{
    Findings findings = {.arena = &move->arena};

    if (move->aws && !check_aws(move, &findings, err))
        return false;
    if (!check_switch(move, &findings, err) || !check_databases(move, &findings, err) ||
        !keep_findings(move, &findings, err))
        return false;
    return preflight_verdict(&findings, err) && move_load_databases(move, err);
}

/* Before the slot, so that no DDL behind its position goes untold. The copy has it too; quiet.c
 * takes it away there. */
static bool make_tell(Move *move, const MoveDb *db, Pg *pg, Err *err)
{
    bool before, there = false;
    AUTO_BUF why;

    buf_init(&why, 4096);
    if (strcmp(move->conf->ddl, "stop") == 0)
        return true;
    if (!move_intend(move, db->name, "capture", &before, err) ||
        !capture_install(pg, &there, &why, err))
        return err_context(err, "making the source tell its DDL");
    if (!there)
        log_warn(
            "DDL of the source isn't seen: the stream stops at the first row that no longer fits",
            F_STR("database", db->name), F_STR("why", buf_str(&why)));
    crash_point("capture-made");
    return !there ||
           audit_add(move->audit, err, "capture of DDL made", F_STR("database", db->name));
}

bool phase_publication(Move *move, Err *err)
{
    for (size_t i = 0; i < move->db_count; i++) {
        MoveDb *db = &move->dbs[i];
        AUTO_PG pg = {0};
        bool before;
        bool all_tables;

        if (!move_intend(move, db->name, "publication", &before, err) ||
            !move_source(move, db, &pg, err) ||
            !origin_publish(&pg, move->publication, before, &all_tables, err) ||
            !make_tell(move, db, &pg, err))
            return err_context(err, "database %s", db->name);
        crash_point("publication-made");
        if (!all_tables) {
            log_warn("publication of the tables there are, not of all there will be",
                     F_STR("database", db->name));
        }
        if (!move_put(move, db->name, "publication_all", all_tables ? "yes" : "no", err) ||
            !audit_add(move->audit, err, "publication made", F_STR("database", db->name),
                       F_STR("publication", move->publication), F_BOOL("all_tables", all_tables)))
            return false;
    }
    return true;
}

bool phase_slot(Move *move, Err *err)
{
    for (size_t i = 0; i < move->db_count; i++) {
        MoveDb *db = &move->dbs[i];
        OriginNeed need = {.wait_ms = move->conf->retry, .failover = move->conf->slot_failover};
        AUTO_PG pg = {0};
        bool before;

        db->slot = origin_slot_name(&move->arena, move->conf->slot, db->name);
        if (!move_intend(move, db->name, "slot_intended", &before, err) ||
            !move_source(move, db, &pg, err) ||
            !origin_make_slot(&pg, db->slot, before, &need, move->stop, &move->arena,
                              &db->consistent_point, err))
            return err_context(err, "database %s", db->name);
        crash_point("slot-made");
        if (!move_put(move, db->name, "slot", db->slot, err) ||
            !move_put_lsn(move, db->name, "consistent_point", db->consistent_point, err) ||
            !audit_add(move->audit, err, "slot made", F_STR("database", db->name),
                       F_STR("slot", db->slot), F_LSN("consistent_point", db->consistent_point)))
            return false;
    }
    return true;
}

bool phase_marker(Move *move, Err *err)
{
    const char *marker;

    /* Written down first, so that a rerun writes the same one. */
    if (!move_get(move, "", "marker", &marker, err))
        return false;
    if (!marker) {
        marker =
            arena_printf(&move->arena, "keybridge %s %s", move->id, move_random(&move->arena, 16));
        if (!move_put(move, "", "marker", marker, err))
            return false;
    }
    for (size_t i = 0; i < move->db_count; i++) {
        AUTO_PG pg = {0};

        if (!move_source(move, &move->dbs[i], &pg, err) ||
            !definitions_mark(move, &move->dbs[i], &pg, err) ||
            !origin_mark(&pg, move->publication, marker, err))
            return err_context(err, "database %s", move->dbs[i].name);
    }
    return audit_add(move->audit, err, "marker written", F_STR("marker", marker));
}
