/* phases.h - the steps of a migration on the bridge road, in order, each of which can be repeated.
 *
 * A phase that is done is skipped by a rerun; one that was running is run again. `alive` phases
 * hold something that lives only in the process (the streams) and are run by each process, as long
 * as the target isn't open.
 */
#ifndef PHASES_H
#define PHASES_H

#include "engine/move/move.h"

typedef bool PhaseFn(Move *move, Err *err);

typedef struct Phase {
    const char *name;
    const char *about; /* for people: "publication on the source" */
    PhaseFn *run;
    bool alive;
} Phase;

/* Up to the restored copy with its exact start position: what `provision` does. */
extern const Phase provision_phases[];
extern const size_t provision_phase_count;
/* From there to both sides equal. */
extern const Phase stream_phases[];
extern const size_t stream_phase_count;

MUST_USE bool phases_run(Move *move, const Phase *phases, size_t count, Err *err);

/* source.c */
PhaseFn phase_preflight, phase_publication, phase_slot, phase_marker;
/* copy.c */
PhaseFn phase_snapshot, phase_copy, phase_restore, phase_settings;
/* seat.c */
PhaseFn phase_position, phase_quiet;
/* bridge.c */
PhaseFn phase_stream, phase_catch_up, phase_verify, phase_definitions, phase_sequences;

#endif
