/* The phases that make the copy still and find out where it ends. */
#include <time.h>

#include "engine/base/crash.h"
#include "engine/base/mono.h"
#include "engine/model/position.h"
#include "engine/move/origin.h"
#include "engine/move/phases.h"
#include "engine/move/quiet.h"
#include "engine/move/seed.h"

#define LOG_MOST MIB(64)

/* rds_tools tells it where it has the function; an extension that isn't there is no error. Asked
 * before anything is written to the copy, and kept. */
static bool ask_rds_tools(Move *move, Pg *pg, Err *err)
{
    AUTO_RESULT there = NULL;
    AUTO_RESULT res = NULL;
    const char *before;

    if (!move_get(move, "", "seed_lsn", &before, err))
        return false;
    if (before)
        return true;
    there = pg_rows(
        pg, err,
        "select 1 from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = 'rds_tools' and"
        " p.proname = 'logical_seed_lsn'");
    if (!there)
        return false;
    if (PQntuples(there))
        res = pg_rows(pg, err, "select coalesce(rds_tools.logical_seed_lsn()::text, '')");
    return (!PQntuples(there) || res) &&
           move_put(move, "", "seed_lsn", res ? PQgetvalue(res, 0, 0) : "", err);
}

static bool rds_tools_said(Move *move, Seed *seed, Err *err)
{
    const char *text;

    if (!move_get(move, "", "seed_lsn", &text, err))
        return false;
    if (!text || !*text)
        return true;
    seed->rule = SEED_RDS_TOOLS;
    return lsn_parse(span_str(text), &seed->start, err);
}

static int by_age(const void *a, const void *b)
{
    int64_t x = ((const RdsLogFile *)a)->last_written;
    int64_t y = ((const RdsLogFile *)b)->last_written;

    return (x > y) - (x < y);
}

/* The oldest recovery is the restore's: later ones are of reboots. */
static bool ask_logs(Move *move, Seed *seed, Err *err)
{
    RdsLogFiles logs;

    if (!rds_list_logs(move->aws, move->target_name, "postgres", &move->arena, &logs, err))
        return false;
    qsort(logs.at, logs.count, sizeof(*logs.at), by_age);
    for (size_t i = 0; i < logs.count && seed->rule == SEED_NONE; i++) {
        AUTO_BUF text;

        buf_init(&text, LOG_MOST);
        if (!rds_download_log(move->aws, move->target_name, logs.at[i].name, &text, err) ||
            !seed_of_log(buf_span(&text), seed, err))
            return err_context(err, "log %s", logs.at[i].name);
        if (seed->rule != SEED_NONE && !move_put(move, "", "position_log", logs.at[i].name, err))
            return false;
    }
    return true;
}

/* Log files appear a little after what they tell. */
static bool find_seed(Move *move, Seed *seed, Err *err)
{
    uint64_t deadline = mono_ms() + 120000;

    *seed = (Seed){SEED_NONE, 0, 0};
    if (!rds_tools_said(move, seed, err))
        return false;
    while (seed->rule == SEED_NONE) {
        if (!ask_logs(move, seed, err))
            return false;
        if (seed->rule != SEED_NONE)
            break;
        if (mono_ms() > deadline) {
            err_fail(err, ERR_TARGET, "the logs of %s don't tell where its recovery ended",
                     move->target_name);
            return err_hint(
                err,
                "log_min_messages above LOG in the parameter group hides the line: set it back, "
                "keybridge cleanup, and start again");
        }
        if (stop_wait(move->stop, 1000))
            return stop_fail(err, "reading the position");
    }
    return true;
}

/* Before the copied publication goes, and the marker with it. */
static bool check_marker(Move *move, const MoveDb *db, Pg *pg, Err *err)
{
    const char *marker;
    const char *seen;
    const char *found;

    if (!move_get(move, "", "marker", &marker, err) ||
        !move_get(move, db->name, "marker_seen", &seen, err))
        return false;
    if (seen || !move->aws)
        return true;
    if (!origin_marker(pg, move->publication, &move->arena, &found, err))
        return false;
    if (found && strcmp(found, marker) == 0)
        return move_put(move, db->name, "marker_seen", found, err);
    err_fail(err, ERR_STATE,
             "the copy %s the marker of this migration: it comes from another snapshot",
             found ? "has another marker than" : "lacks");
    return err_hint(err, "keybridge cleanup, and start again");
}

static bool check_slot(Move *move, MoveDb *db, const Seed *seed, Err *err)
{
    AUTO_PG pg = {0};
    OriginSlot slot;
    SeedBounds bounds;

    if (!move_source(move, db, &pg, err) || !origin_slot(&pg, db->slot, &move->arena, &slot, err))
        return false;
    if (!slot.exists) {
        err_fail(err, ERR_STATE, "replication slot %s is gone from the source", db->slot);
        return err_hint(err, "somebody dropped it; keybridge cleanup, and start again");
    }
    bounds = (SeedBounds){db->consistent_point, slot.confirmed_flush, slot.source_flush,
                          slot.wal_status};
    return seed_check(seed, &bounds, err) || err_context(err, "slot %s", db->slot);
}

bool phase_position(Move *move, Err *err)
{
    Seed seed;

    if (!find_seed(move, &seed, err))
        return false;
    for (size_t i = 0; i < move->db_count; i++) {
        MoveDb *db = &move->dbs[i];

        if (!check_slot(move, db, &seed, err) ||
            !move_put_lsn(move, db->name, "start", seed.start, err))
            return false;
        db->start = seed.start;
    }
    log_info("exact position of the copy", F_LSN("start", seed.start),
             F_STR("rule", seed_rule_name(seed.rule)));
    return move_put_lsn(move, "", "start", seed.start, err) &&
           move_put(move, "", "start_rule", seed_rule_name(seed.rule), err) &&
           audit_add(move->audit, err, "position found", F_LSN("start", seed.start),
                     F_STR("rule", seed_rule_name(seed.rule)), F_LSN("logged", seed.logged));
}

/* quiet
 * ---------------------------------------------------------------------------------------------------
 */

typedef struct Keeper {
    Move *move;
    const MoveDb *db;
} Keeper;

/* Kept under its own text's place in the list; the same statement is kept once. */
static bool keep_undo(void *self, const char *undo, Err *err)
{
    Keeper *keeper = self;
    uint64_t count;
    char key[32];

    if (!move_get_u64(keeper->move, keeper->db->name, "undos", &count, err))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        const char *before;

        snprintf(key, sizeof(key), "undo.%05" PRIu64, i);
        if (!move_get(keeper->move, keeper->db->name, key, &before, err))
            return false;
        if (before && strcmp(before, undo) == 0)
            return true;
    }
    snprintf(key, sizeof(key), "undo.%05" PRIu64, count);
    return move_put(keeper->move, keeper->db->name, key, undo, err) &&
           move_put_u64(keeper->move, keeper->db->name, "undos", count + 1, err);
}

/* Slots only on an instance that is ours alone. */
static bool quiet_one(Move *move, MoveDb *db, bool first, QuietReport *report, Err *err)
{
    Keeper keeper = {move, db};
    QuietNote note = {keep_undo, &keeper};
    AUTO_PG pg = {0};

    return move_target(move, db, &pg, err) &&
           (!first || !move->aws || ask_rds_tools(move, &pg, err)) &&
           check_marker(move, db, &pg, err) &&
           (!first || !move->aws || quiet_slots(&pg, report, err)) &&
           quiet_database(&pg, move->publication, &note, report, err);
}

bool phase_quiet(Move *move, Err *err)
{
    QuietReport report = {0};
    AUTO_BUF names;

    buf_init(&names, MIB(4));
    report.prepared_names = &names;
    for (size_t i = 0; i < move->db_count; i++) {
        if (!quiet_one(move, &move->dbs[i], i == 0, &report, err))
            return err_context(err, "database %s", move->dbs[i].name);
        crash_point("quiet-one");
    }
    return audit_add(move->audit, err, "target made still", F_U64("slots", report.slots),
                     F_U64("subscriptions", report.subscriptions),
                     F_U64("prepared", report.prepared),
                     F_STR("prepared_rolled_back", buf_str(&names)),
                     F_U64("triggers", report.triggers), F_U64("jobs", report.jobs));
}
