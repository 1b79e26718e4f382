/* txn.h - committed source transactions, and the batches in which they travel.
 *
 * A Batch owns its arena, which holds everything of its transactions; it has exactly one owner at a
 * time and moves through queues. Batches end at commit boundaries only.
 */
#ifndef TXN_H
#define TXN_H

#include "engine/base/arena.h"
#include "engine/model/change.h"
#include "engine/model/position.h"

/* Changes of a transaction that is too big for memory, read back in order, again and again. */
typedef struct ChangeReader ChangeReader;
typedef struct ChangeReaderOps {
    bool (*rewind)(ChangeReader *self, Err *err);
    /* The next change, in `arena`, valid until the caller resets that; *change NULL: end. Relations
     * stay alive until free. */
    bool (*next)(ChangeReader *self, Arena *arena, Change **change, Err *err);
    void (*free)(ChangeReader *self);
} ChangeReaderOps;
struct ChangeReader {
    const ChangeReaderOps *ops;
};

typedef struct Txn Txn;
struct Txn {
    Txn *next;
    uint32_t xid;
    Position
        commit;   /* start of its commit record: identifies it, strictly increasing in a stream */
    Position end; /* behind it: what is confirmed, and where a restart begins */
    int64_t commit_time_us; /* source's clock, microseconds since 1970 */
    Change *first;          /* NULL when in `big`, or empty */
    Change *last;
    size_t change_count;
    ChangeReader *big; /* owned; set: the changes are there and not in the list */
};

typedef struct Batch {
    Arena arena;
    Txn *first;
    Txn *last;
    size_t txn_count;
    size_t change_count;
    /* Set on a batch that is formed again after a crash between the lanes' commits: it must hold
     * exactly the transactions it held then, and be routed over as many lanes. 0: the router
     * decides. */
    unsigned lanes_before;
    unsigned lanes_most; /* more wouldn't be worth it, 0: nobody knows; lanes_before goes first */
    uint64_t read_us;    /* mono_us of the last commit's arrival, for latency */
} Batch;

MUST_USE Batch *batch_new(void);
void batch_free(Batch *batch); /* frees its transactions' big readers too; NULL is fine */
Txn *batch_add(Batch *batch);  /* appends an empty transaction */
void txn_add(Txn *txn, Change *change);

static inline size_t batch_bytes(const Batch *batch)
{
    return arena_bytes(&batch->arena);
}

#endif
