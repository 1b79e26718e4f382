/* slotwatch.h - how much WAL the source keeps for our slot, and how long it can go on with that.
 *
 * While a slot isn't confirmed the source can't throw WAL away: either its disk fills, or, where
 * max_slot_wal_keep_size is set, it gives the slot up. Both are said in time. No connection of its
 * own: the session asks slotwatch_sql every now and then and hands over the answer. Belongs to the
 * session's thread.
 *
 * PostgreSQL documentation, "pg_replication_slots".
 */
#ifndef SLOTWATCH_H
#define SLOTWATCH_H

#include "engine/base/buf.h"
#include "engine/base/err.h"

#define SLOT_UNLIMITED UINT64_MAX

typedef struct SlotState {
    bool known;
    char wal_status[16];  /* reserved, extended, unreserved, lost; "" before version 13 */
    uint64_t retained;    /* bytes of WAL that the source keeps for it */
    uint64_t safe_left;   /* bytes until the source may give it up; SLOT_UNLIMITED: it never does */
    uint64_t disk_left;   /* bytes until the source's disk is full; SLOT_UNLIMITED: nobody said */
    double retained_rate; /* by which retained grows, bytes a second over the last minutes */
    bool ends;            /* at this rate, safe_left or disk_left is used up… */
    double minutes_left;  /* …in so long */
} SlotState;

/* As a JSON object; null when nothing is known. */
void slotstate_put_json(Buf *out, const SlotState *state);

#define SLOTWATCH_SAMPLES 60
#define SLOTWATCH_MS      5000 /* between two of them: five minutes in all */

typedef struct SlotWatch {
    uint64_t disk_free; /* of the source when it began, as the operator said; 0: unknown */
    SlotState now;
    uint64_t first_retained;
    struct {
        uint64_t at_ms;
        uint64_t retained;
    } samples[SLOTWATCH_SAMPLES];
    size_t count;
    uint64_t warned_ms;
    char warned_status[16];
} SlotWatch;

/* $1 is the slot; its first column is the source's end of WAL. */
const char *slotwatch_sql(int version, bool is_standby);

/* The other columns of the answer as text, NULL for null. Logs what has to be known. */
typedef struct SlotAnswer {
    const char *wal_status;
    const char *retained;
    const char *safe_left;
} SlotAnswer;
void slotwatch_take(SlotWatch *watch, const char *slot, const SlotAnswer *answer, uint64_t now_ms);

#endif
