#include "engine/base/crash.h"
#include "engine/cmd/cmd.h"
#include "engine/move/bridge.h"
#include "engine/move/cutover.h"
#include "engine/move/entry.h"
#include "engine/move/phases.h"

/* Without --cutover the new side goes on following until somebody stops it. */
static bool keep_following(Move *move, Err *err)
{
    log_info("both sides are equal; following until stopped, or run again with --cutover");
    while (!stop_wait(move->stop, 500)) {
        if (!follow_check(move->follow, err))
            return false;
        bridge_show(move);
    }
    log_progress(NULL);
    printf("stopped; keybridge run goes on from here, with --cutover it moves the application\n");
    return true;
}

static bool finish(Move *move, Err *err)
{
    follow_stop(move->follow);
    move->follow = NULL;
    if (!journal_phase_end(move->journal, "cutover", "done", "", err))
        return false;
    crash_point("receipt");
    return entry_receipt(move, err);
}

static bool cut_over(Move *move, Err *err)
{
    if (!journal_phase_begin(move->journal, "cutover", err))
        return false;
    if (!cutover_run(move, err)) {
        Err ignored = ERR_INIT;

        if (!journal_phase_end(move->journal, "cutover", "undone", err->text, &ignored))
            log_err(LOG_LEVEL_WARN, "the journal can't be written", &ignored);
        return false;
    }
    if (!move->conf->dry_run)
        return finish(move, err);
    printf("ready for the cut-over; nothing was blocked or changed (--dry-run)\n");
    return journal_phase_end(move->journal, "cutover", "rehearsed", "", err);
}

static bool go_on(Move *move, Err *err)
{
    bool open;
    bool done;

    if (!cutover_state(move, &open, &done, err))
        return false;
    if (done)
        return finish(move, err);
    if (open)
        return cutover_forward(move, err) && finish(move, err);
    return cutover_undo(move, err) &&
           phases_run(move, provision_phases, provision_phase_count, err) &&
           phases_run(move, stream_phases, stream_phase_count, err) &&
           (move->conf->cutover ? cut_over(move, err) : keep_following(move, err));
}

static bool run_run(const Conf *conf, const Stop *stop, int argc, char **argv, Err *err)
{
    Move move;
    bool ok;

    (void)argc;
    (void)argv;
    ok = entry_open(&move, conf, stop, err) && go_on(&move, err);
    move_close(&move);
    return ok;
}

const Command cmd_run = {
    .name = "run",
    .summary = "the whole migration, resumable; stops before the cut-over unless told --cutover",
    .about =
        "Snapshot, copy under the new key, restore with every setting, stream from the snapshot's exact position, compare"
        " every row, and with --cutover move the application.\nIt may be stopped or killed at any moment: run again, with"
        " the same state directory, goes on.",
    .sections =
        "source target.dsn tls stream.slot stream.slot-failover stream.publication stream.ddl stream.ddl-applied apply spool relay state check.database verify cutover aws switch output",
    .run = run_run,
    .examples =
        "keybridge run --instance orders --kms-key alias/new\n"
        "keybridge run --instance orders --kms-key alias/new --record db.example.com --cutover",
};
