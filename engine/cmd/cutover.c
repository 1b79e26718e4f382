#include "engine/move/cutover.h"

#include "engine/cmd/cmd.h"
#include "engine/move/bridge.h"
#include "engine/move/entry.h"
#include "engine/move/origin.h"
#include "engine/move/phases.h"

static const Phase quiet_phases[] = {{"quiet", "target made still", phase_quiet, true}};

/* A replicate that runs already goes on; what it has applied is what is waited for. */
static bool follow(Move *move, Err *err)
{
    MoveDb *db = &move->dbs[0];
    AUTO_PG pg = {0};
    OriginSlot slot;

    if (!move_source(move, db, &pg, err) || !origin_slot(&pg, db->slot, &move->arena, &slot, err))
        return false;
    if (!slot.exists) {
        err_fail(err, ERR_SOURCE, "the source has no replication slot %s", db->slot);
        return err_hint(err, "give the slot of the stream with --slot");
    }
    if (!slot.active)
        return bridge_start(move, err);
    log_info("a replicate runs already; its progress is followed", F_STR("slot", db->slot));
    move->follow = follow_elsewhere(move->source_maintenance, db->target_dsn, db->slot, err);
    return move->follow != NULL;
}

static bool cut_over(Move *move, Err *err)
{
    bool ok =
        cutover_undo(move, err) &&
        (move->conf->dry_run || phases_run(move, quiet_phases, ARRAY_LEN(quiet_phases), err)) &&
        follow(move, err) && journal_phase_begin(move->journal, "cutover", err) &&
        cutover_run(move, err);
    Err ignored = ERR_INIT;

    if (!journal_phase_end(move->journal, "cutover", ok ? "done" : "undone", ok ? "" : err->text,
                           &ignored))
        log_err(LOG_LEVEL_WARN, "the journal can't be written", &ignored);
    if (ok && move->conf->dry_run)
        printf("ready for the cut-over; nothing was blocked or changed (--dry-run)\n");
    return ok;
}

static bool go_on(Move *move, Err *err)
{
    bool open;
    bool done;

    if (!cutover_state(move, &open, &done, err))
        return false;
    if (open && !done && !cutover_forward(move, err))
        return false;
    if (!open && !cut_over(move, err))
        return false;
    return move->conf->dry_run || entry_receipt(move, err);
}

static bool cutover_command(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    Move move;
    bool ok;

    (void)argc;
    (void)argv;
    ok = entry_open_pair(&move, conf, stop, err) && go_on(&move, err);
    move_close(&move);
    return ok;
}

const Command cmd_cutover = {
    .name = "cutover",
    .summary = "move the application from one database to the other",
    .about =
        "Locks all tables of the source, waits until the target has everything, sets the sequences, closes the source,"
        " opens the target and moves the clients. Undone when it takes longer than --timeout.\nNeeds a stream between the"
        " two: one that keybridge replicate runs now, or the slot and the progress of one that was stopped.",
    .sections =
        "source.dsn target.dsn tls stream.slot stream.publication stream.ddl stream.ddl-applied apply spool relay state check.database cutover aws.region"
        " aws.profile aws.poll switch",
    .run = cutover_command,
    .examples =
        "keybridge cutover --source postgres://old/app --target postgres://new/app --slot app --dry-run",
};
