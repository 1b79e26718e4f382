/* sequences.h - sequences and identity columns of a database: read, compared, raised on the target.
 *
 * Positions are exact: last_value and is_called of the sequence itself, not the highest value in a
 * table. sync moves a target's sequence only in its own direction (up, or down where the increment
 * is negative) and never back: a target that is ahead stays. For a cyclic one, which may have
 * started over, the shorter way round decides who is ahead. Call it under the fence: a nextval on
 * the source after the reading isn't seen.
 *
 * Everything lives in the result's arena until sequences_free.
 */
#ifndef SEQUENCES_H
#define SEQUENCES_H

#include "appliers/postgres/pg.h"
#include "engine/base/arena.h"

typedef enum SequenceVerdict {
    SEQUENCE_EQUAL,
    SEQUENCE_BEHIND,    /* the target would hand out values the source has handed out */
    SEQUENCE_AHEAD,     /* the target is further: safe, left alone */
    SEQUENCE_MISSING,   /* not on the target */
    SEQUENCE_EXTRA,     /* only on the target: reported, not a difference */
    SEQUENCE_DEFINITION /* increment, bounds, cycle or type differ: named, values still compared and
                           raised when possible */
} SequenceVerdict;

typedef struct SequenceState {
    bool there;
    int64_t last_value;
    bool is_called;
    int64_t start, increment, least, most, cache;
    bool cycle;
    const char *type; /* smallint, integer, bigint */
} SequenceState;

typedef struct Sequence {
    const char *schema;
    const char *name;
    const char *owned_by; /* "schema.table.column" on the source; NULL: standalone */
    bool identity;
    SequenceState source;
    SequenceState before;    /* the target, as found */
    SequenceState after;     /* the target, read back; as before where nothing was done */
    bool raised;             /* sync set it */
    SequenceVerdict verdict; /* of source and before; after a sync of source and after */
    double used_percent; /* of the range in its direction, on the source: head-room is the rest */
} Sequence;

typedef struct SequencesResult {
    Arena arena;
    const char *database;
    const Sequence *items; /* by schema, then name, as bytes */
    size_t count;
    size_t raised;
    size_t different;   /* behind, missing or defined otherwise */
    size_t nearly_full; /* over 90 % used and not cyclic */
    uint64_t read_us;   /* both sides */
    uint64_t total_us;
} SequencesResult;

/* Reads both sides, and with `sync` raises the target's and reads them back. Uses the callers'
 * connections outside or inside of a transaction. False: couldn't be done. True: look at
 * `different`. */
MUST_USE bool sequences_run(Pg *source, Pg *target, const char *database, bool sync,
                            SequencesResult *result, Err *err);
void sequences_free(SequencesResult *result); /* fine on a zeroed one */
const char *sequence_verdict_name(SequenceVerdict verdict);
void sequences_json(const SequencesResult *result, Buf *out);

#endif
