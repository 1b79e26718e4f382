#include "engine/move/tidy.h"

#include <unistd.h>

#include "engine/move/bridge.h"
#include "engine/move/cutover.h"
#include "engine/move/origin.h"
#include "engine/stream/capture.h"
#include "engine/stream/relay.h"

typedef struct Tidy {
    Move *move;
    bool dry_run;
    bool open; /* past the point of no return */
    TidyReport *report;
    Err *err; /* the first failure */
} Tidy;

/* One action: told, and taken unless rehearsing. A failure is noted and the rest goes on: what can
 * be cleaned is. */
typedef bool TidyFn(Tidy *tidy, const void *arg, Err *err);

static void act(Tidy *tidy, const char *what, const char *name, TidyFn *fn, const void *arg)
{
    Err one = ERR_INIT;

    tidy->report->done++;
    if (tidy->dry_run) {
        printf("would %s %s\n", what, name);
        return;
    }
    if (fn(tidy, arg, &one) && audit_add(tidy->move->audit, &one, "cleaned up", F_STR("what", what),
                                         F_STR("name", name))) {
        printf("%s %s: done\n", what, name);
        return;
    }
    printf("%s %s: %s\n", what, name, one.text);
    if (!tidy->report->failed++)
        *tidy->err = one;
}

static bool reopen(Tidy *tidy, const void *arg, Err *err)
{
    (void)arg;
    return cutover_undo(tidy->move, err);
}

static bool drop_slot(Tidy *tidy, const void *arg, Err *err)
{
    const MoveDb *db = arg;
    AUTO_PG pg = {0};

    /* From template1: the database itself may be closed. */
    return move_source(tidy->move, NULL, &pg, err) && origin_drop_slot(&pg, db->slot, 5000, err);
}

static bool drop_publication(Tidy *tidy, const void *arg, Err *err)
{
    AUTO_PG pg = {0};

    return move_source(tidy->move, arg, &pg, err) &&
           origin_drop_publication(&pg, tidy->move->publication, err);
}

static bool drop_capture(Tidy *tidy, const void *arg, Err *err)
{
    AUTO_PG pg = {0};

    return move_source(tidy->move, arg, &pg, err) && capture_remove(&pg, err);
}

static bool drop_schema(Tidy *tidy, const void *arg, Err *err)
{
    AUTO_PG pg = {0};

    return move_target(tidy->move, arg, &pg, err) &&
           pg_exec(&pg, "drop schema if exists keybridge cascade", err);
}

static bool delete_snapshot(Tidy *tidy, const void *arg, Err *err)
{
    return rds_delete_snapshot(tidy->move->aws, arg, err);
}

static bool delete_target(Tidy *tidy, const void *arg, Err *err)
{
    Move *move = tidy->move;
    RdsModify modify = {.name = move->target_name, .deletion_protection = AWS_FALSE};

    (void)arg;
    if (aws_is(move->target->deletion_protection) &&
        (!rds_modify_instance(move->aws, &modify, err) ||
         !rds_wait_instance(move->aws, move->target_name, true, NULL, NULL, err)))
        return false;
    return rds_delete_instance(move->aws, move->target_name, (RdsDelete){0}, err) &&
           rds_wait_instance_gone(move->aws, move->target_name, NULL, NULL, err);
}

static bool slot_exists(Move *move, const MoveDb *db, Err *err)
{
    AUTO_PG pg = {0};
    OriginSlot slot = {0};

    return move_source(move, NULL, &pg, err) &&
           origin_slot(&pg, db->slot, &move->arena, &slot, err) && slot.exists;
}

static bool publication_exists(Move *move, const MoveDb *db, Err *err)
{
    AUTO_PG pg = {0};
    AUTO_RESULT res = NULL;

    if (!move_source(move, db, &pg, err))
        return false;
    res = pg_rows(&pg, err, "select 1 from pg_publication where pubname = $1", move->publication);
    return res && PQntuples(res) > 0;
}

static bool captures(Move *move, const MoveDb *db, Err *err)
{
    AUTO_PG pg = {0};
    bool exists;

    return move_source(move, db, &pg, err) && capture_exists(&pg, &exists, err) && exists;
}

static bool schema_exists(Move *move, const MoveDb *db, Err *err)
{
    AUTO_PG pg = {0};
    AUTO_RESULT res = NULL;

    if (!move_target(move, db, &pg, err))
        return false;
    res = pg_rows(&pg, err, "select 1 from pg_namespace where nspname = 'keybridge'");
    return res && PQntuples(res) > 0;
}

static void note(Tidy *tidy, const char *what, Err *one)
{
    if (!err_is_set(one))
        return;
    printf("%s: %s\n", what, one->text);
    if (!tidy->report->failed++)
        *tidy->err = *one;
    err_clear(one);
}

static bool intended(Move *move, const MoveDb *db, const char *key, Err *err)
{
    const char *fact = NULL;

    if (!move->aws)
        return true; /* named on the command line */
    return move_get(move, db->name, key, &fact, err) && fact;
}

static bool remove_relay(Tidy *tidy, const void *arg, Err *err)
{
    (void)tidy;
    return relay_remove(arg, err);
}

/* Of run and of replicate. */
static void tidy_relays(Tidy *tidy, const MoveDb *db)
{
    Move *move = tidy->move;
    const char *base = bridge_spool_base(move);
    const char *above[] = {base, bridge_spool_dir(move, db)};

    for (size_t i = 0; i < ARRAY_LEN(above); i++) {
        char *dir = arena_zalloc(&move->arena, 4096);

        stream_relay_dir(above[i], db->slot, dir, 4096);
        if (access(dir, F_OK) == 0)
            act(tidy, "remove relay log", dir, remove_relay, dir);
    }
}

static void tidy_databases(Tidy *tidy)
{
    Move *move = tidy->move;

    for (size_t i = 0; i < move->db_count; i++) {
        MoveDb *db = &move->dbs[i];
        Err one = ERR_INIT;

        if (!db->slot)
            db->slot = origin_slot_name(&move->arena, move->conf->slot, db->name);
        if (intended(move, db, "slot_intended", &one) && slot_exists(move, db, &one))
            act(tidy, "drop replication slot", db->slot, drop_slot, db);
        note(tidy, "looking at the slot", &one);
        tidy_relays(tidy, db);
        if (!tidy->open && intended(move, db, "publication", &one) &&
            publication_exists(move, db, &one))
            act(tidy, "drop publication in database", db->name, drop_publication, db);
        note(tidy, "looking at the publication", &one);
        if (!tidy->open && intended(move, db, "capture", &one) && captures(move, db, &one))
            act(tidy, "drop capture of DDL in database", db->name, drop_capture, db);
        note(tidy, "looking at the capture of DDL", &one);
        if (tidy->open && schema_exists(move, db, &one))
            act(tidy, "drop schema keybridge on the new side in database", db->name, drop_schema,
                db);
        note(tidy, "looking at the new side", &one);
    }
}

static void tidy_snapshot(Tidy *tidy, const char *key)
{
    Move *move = tidy->move;
    const char *name = NULL;
    RdsSnapshot *found = NULL;
    Err one = ERR_INIT;

    if (move_get(move, "", key, &name, &one) && name &&
        rds_find_snapshot(move->aws, name, &move->arena, &found, &one) && found &&
        aws_is_ours(move->aws, found->tags))
        act(tidy, "delete snapshot", name, delete_snapshot, name);
    note(tidy, "looking at the snapshots", &one);
}

/* What goes away with nothing else: whoever retires the key has to know. */
static void report_old_key(Tidy *tidy)
{
    Move *move = tidy->move;
    const char *key = NULL;
    RdsInstances instances = {0};
    RdsSnapshots snapshots = {0};
    Err one = ERR_INIT;

    if (!move_get(move, "", "old_key_arn", &key, &one) || !key || !*key)
        return;
    if (!rds_list_instances(move->aws, &move->arena, &instances, &one) ||
        !rds_list_snapshots(move->aws, NULL, NULL, &move->arena, &snapshots, &one)) {
        note(tidy, "listing what uses the old key", &one);
        return;
    }
    printf("under the old key %s:\n", key);
    for (size_t i = 0; i < instances.count; i++)
        if (instances.at[i].kms_key && strcmp(instances.at[i].kms_key, key) == 0)
            printf("  instance %s (%s)\n", instances.at[i].name, instances.at[i].status);
    for (size_t i = 0; i < snapshots.count; i++)
        if (snapshots.at[i].kms_key && strcmp(snapshots.at[i].kms_key, key) == 0)
            printf("  snapshot %s (%s, of %s)\n", snapshots.at[i].name, snapshots.at[i].type,
                   snapshots.at[i].instance);
}

static void tidy_aws(Tidy *tidy)
{
    Move *move = tidy->move;

    tidy_snapshot(tidy, "snapshot");
    tidy_snapshot(tidy, "copy");
    if (!tidy->open && move->target && aws_is_ours(move->aws, move->target->tags))
        act(tidy, "delete instance", move->target_name, delete_target, NULL);
    report_old_key(tidy);
}

static bool is_closing(Move *move, Err *err)
{
    const char *state = NULL;

    return move_get(move, "", "cutover", &state, err) && state && strcmp(state, "closing") == 0;
}

bool tidy_run(Move *move, bool dry_run, TidyReport *report, Err *err)
{
    Tidy tidy = {.move = move, .dry_run = dry_run, .report = report, .err = err};
    bool done;
    Err one = ERR_INIT;

    *report = (TidyReport){0};
    if (!cutover_state(move, &tidy.open, &done, err))
        return false;
    if (tidy.open && !done) {
        err_fail(err, ERR_STATE, "the cut-over is past its point of no return and not finished");
        return err_hint(err, "keybridge run --cutover finishes it");
    }
    if (is_closing(move, &one))
        act(&tidy, "open", "the source for connections again", reopen, NULL);
    tidy_databases(&tidy);
    if (move->aws && move->source)
        tidy_aws(&tidy);
    if (report->failed || dry_run || tidy.open)
        return report->failed == 0;
    return journal_reset(move->journal, err);
}
