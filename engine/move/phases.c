#include "engine/move/phases.h"

#include "engine/base/crash.h"
#include "engine/base/mono.h"

/* Publication, slot, marker, snapshot: in no other order, see origin.h. The copy is made still as
 * soon as it answers; where it ends is in its log, whatever is written to it later. */
const Phase provision_phases[] = {
    {"preflight", "what is there, and whether it can be moved", phase_preflight, false},
    {"publication", "publication on the source", phase_publication, false},
    {"slot", "replication slot on the source", phase_slot, false},
    {"marker", "marker on the source", phase_marker, false},
    {"snapshot", "snapshot of the source", phase_snapshot, false},
    {"copy", "copy of the snapshot under the new key", phase_copy, false},
    {"restore", "new instance from the copy", phase_restore, false},
    {"quiet", "new instance made still", phase_quiet, false},
    {"position", "exact position of the copy", phase_position, false},
    {"settings", "settings that a restore can't take", phase_settings, false},
};
const size_t provision_phase_count = ARRAY_LEN(provision_phases);

const Phase stream_phases[] = {
    {"stream", "changes since the snapshot", phase_stream, true},
    {"catch-up", "new side close behind the old", phase_catch_up, false},
    {"verify", "every row compared", phase_verify, false},
    {"definitions", "definitions, rights and roles compared", phase_definitions, false},
    {"sequences", "sequences compared", phase_sequences, false},
};
const size_t stream_phase_count = ARRAY_LEN(stream_phases);

static bool note_failure(Move *move, const Phase *phase, const Err *err)
{
    Err ignored = ERR_INIT;

    if (!journal_phase_end(move->journal, phase->name,
                           err->kind == ERR_STOPPED ? "stopped" : "failed", err->text, &ignored) ||
        !audit_add(move->audit, &ignored, "phase failed", F_STR("phase", phase->name),
                   F_STR("kind", err_kind_name(err->kind)), F_STR("error", err->text)))
        log_err(LOG_LEVEL_WARN, "the failure can't be written down", &ignored);
    return false;
}

static bool run_phase(Move *move, const Phase *phase, Err *err)
{
    uint64_t begun = mono_us();
    double took_ms;

    move->phase = phase->name;
    log_info("phase begins", F_STR("phase", phase->name), F_STR("about", phase->about));
    if (!journal_phase_begin(move->journal, phase->name, err) ||
        !audit_add(move->audit, err, "phase begins", F_STR("phase", phase->name)))
        return false;
    crash_point(phase->name);
    if (!phase->run(move, err)) {
        note_failure(move, phase, err);
        return err_context(err, "%s", phase->name);
    }
    took_ms = (double)(mono_us() - begun) / 1000;
    if (!journal_phase_end(move->journal, phase->name, "done", "", err) ||
        !audit_add(move->audit, err, "phase done", F_STR("phase", phase->name),
                   F_MS("took_ms", took_ms)))
        return false;
    log_info("phase done", F_STR("phase", phase->name), F_MS("took_ms", took_ms));
    return true;
}

bool phases_run(Move *move, const Phase *phases, size_t count, Err *err)
{
    for (size_t i = 0; i < count; i++) {
        bool done;

        if (stop_requested(move->stop))
            return stop_fail(err, phases[i].name);
        if (!journal_phase_is_done(move->journal, phases[i].name, &done, err))
            return false;
        if (done && !phases[i].alive)
            continue;
        if (!run_phase(move, &phases[i], err))
            return false;
    }
    return true;
}
