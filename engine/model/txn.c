#include "engine/model/txn.h"

#define BATCH_CHUNK KIB(16)

Batch *batch_new(void)
{
    Batch *batch = calloc(1, sizeof(*batch));

    if (!batch)
        abort();
    arena_init(&batch->arena, BATCH_CHUNK);
    return batch;
}

void batch_free(Batch *batch)
{
    if (!batch)
        return;
    for (Txn *txn = batch->first; txn; txn = txn->next)
        if (txn->big)
            txn->big->ops->free(txn->big);
    arena_fini(&batch->arena);
    free(batch);
}

Txn *batch_add(Batch *batch)
{
    Txn *txn = arena_new(&batch->arena, Txn);

    if (batch->last)
        batch->last->next = txn;
    else
        batch->first = txn;
    batch->last = txn;
    batch->txn_count++;
    return txn;
}

void txn_add(Txn *txn, Change *change)
{
    change->next = NULL;
    if (txn->last)
        txn->last->next = change;
    else
        txn->first = change;
    txn->last = change;
    txn->change_count++;
}
