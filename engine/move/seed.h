/* seed.h - the exact place in the source's WAL at which a restored copy ends, from what its server
 * logged.
 *
 * Measured rules (94 of 94 copies exact): after `redo done at R` the copy holds exactly the
 * transactions whose commit record starts at or before R, so the stream starts at R+1. A copy of a
 * server that had nothing to replay says `redo is not required` instead, after `invalid record
 * length at E`: everything below E is there, start at E. What the copy says of its own WAL
 * positions is past the cut and loses transactions.
 *
 * Pure: text in, position out. When a log holds several recoveries, the oldest is the restore's.
 */
#ifndef SEED_H
#define SEED_H

#include "engine/base/err.h"
#include "engine/base/span.h"

typedef enum SeedRule {
    SEED_NONE,
    SEED_REDO_DONE,
    SEED_REDO_NOT_REQUIRED,
    SEED_RDS_TOOLS
} SeedRule;

typedef struct Seed {
    SeedRule rule;   /* NONE: the text holds no finished recovery */
    uint64_t start;  /* apply transactions that commit at or after this */
    uint64_t logged; /* the position in the line: R or E */
} Seed;

/* Fails (ERR_TARGET) only on a line that is there and can't be understood. */
MUST_USE bool seed_of_log(Span text, Seed *seed, Err *err);
const char *seed_rule_name(SeedRule rule);

typedef struct SeedBounds {
    uint64_t consistent_point; /* of the slot, when it was made */
    uint64_t confirmed_flush;  /* of the slot now */
    uint64_t source_flush;     /* the source's flush position, read after the snapshot was there */
    const char *wal_status;    /* of the slot */
} SeedBounds;
/* consistent point <= start <= source flush, the slot neither used beyond the start nor lost.
 * ERR_STATE says which isn't so. */
MUST_USE bool seed_check(const Seed *seed, const SeedBounds *bounds, Err *err);

#endif
