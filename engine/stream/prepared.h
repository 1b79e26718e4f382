/* prepared.h - transactions that the source has prepared and neither committed nor rolled back,
 * with what they changed; and those whose commit isn't durable on the target yet, without.
 *
 * The source sends a prepared transaction once: a stream that begins behind its PREPARE gets its
 * COMMIT PREPARED alone. So no position behind that PREPARE may be confirmed before what became of
 * it is durable. Belongs to the assembler's thread.
 */
#ifndef PREPARED_H
#define PREPARED_H

#include "engine/model/position.h"
#include "engine/stream/ids.h"
#include "engine/stream/spool.h"

typedef struct PreparedTxn PreparedTxn;
struct PreparedTxn {
    PreparedTxn *next;
    uint32_t xid;
    char *gid;
    Position at;      /* of its PREPARE */
    Position settled; /* end of its COMMIT PREPARED; NONE: open */
    Spool *spool;     /* what it changed; NULL when settled */
    Ids ids;          /* its subtransactions, when it was streamed */
    uint64_t changes;
};

typedef struct PreparedList {
    PreparedTxn *first;
} PreparedList;

void prepared_fini(PreparedList *list);
PreparedTxn *prepared_find(const PreparedList *list, uint32_t xid); /* an open one; NULL: none */
/* Takes over spool and ids. */
void prepared_add(PreparedList *list, const PreparedTxn *prepared, Span gid);
void prepared_drop(PreparedList *list, PreparedTxn *prepared);
/* Forgets those whose commit is durable. How far the source may forget, at most `durable`. */
Position prepared_hold(PreparedList *list, Position durable);
size_t prepared_open(const PreparedList *list);

#endif
