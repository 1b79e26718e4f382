/* assembler.h - messages of one replication connection in, batches of committed transactions out.
 *
 * Transactions leave in commit order. Those that are too big for memory, and those that the source
 * streams before they commit, wait in the spool; a big one leaves as a batch of its own with a
 * ChangeReader. Batches end at commit boundaries. What the target holds already is left out, and a
 * batch that is there in some lanes only is formed again exactly. Prepared transactions wait in the
 * spool, too, and leave where they are committed.
 *
 * No sockets, no clock but for read_us. Belongs to one thread; batches and their readers may move
 * to others, but the Assembler and its SpoolDir must outlive them.
 */
#ifndef ASSEMBLER_H
#define ASSEMBLER_H

#include "engine/stream/apply.h"
#include "engine/stream/spool.h"

typedef struct AssemblerConf {
    unsigned protocol;      /* 1 to 4, see pgoutput_new */
    bool two_phase;         /* the source sends PREPARE and COMMIT PREPARED apart */
    size_t batch_changes;   /* a batch is complete when it has so many changes */
    size_t batch_bytes;     /* or so many bytes */
    size_t txn_memory;      /* a transaction beyond it goes to the spool */
    Position start;         /* what commits before is not wanted */
    ApplyProgress progress; /* of the target */
} AssemblerConf;

typedef struct Assembler Assembler;

MUST_USE Assembler *assembler_new(const AssemblerConf *conf, SpoolDir *spool);
void assembler_free(Assembler *assembler); /* NULL is fine */

/* One pgoutput message; copied. */
MUST_USE bool assembler_message(Assembler *assembler, Span message, Err *err);

/* A Relation message without a transaction id, outside of any transaction: as if the source had
 * sent it before. */
MUST_USE bool assembler_relation(Assembler *assembler, Span message, Err *err);
/* A new connection: what is open is forgotten (the source sends it again), what has committed is
 * kept and left out when it comes again. */
void assembler_restart(Assembler *assembler);
/* Gives everything back but what batches that were taken still need; only assembler_free may
 * follow. */
void assembler_retire(Assembler *assembler);

/* The source has sent everything that committed before `upto`, and nothing of it is waiting here:
 * leaves an empty transaction, so that the target's progress says so. It counts as committed at the
 * byte before `upto`, because a real commit can still begin there. False: something is open or
 * waiting, or it is known already. */
bool assembler_quiet(Assembler *assembler, Position upto);

/* Forgets the open transaction, so that those before it can be taken; nothing more may be fed. */
void assembler_drop_open(Assembler *assembler);

/* The next batch, whose owner the caller becomes; NULL: none. `any`: also one that could still
 * grow. */
Batch *assembler_take(Assembler *assembler, bool any);
bool assembler_has_full(const Assembler *assembler); /* a batch that can't grow waits to be taken */
bool assembler_has_any(const Assembler *assembler);  /* take(any) would give one */
/* No transaction is open, none waits to be taken. (Streamed ones that haven't committed don't
 * count.) */
bool assembler_is_empty(const Assembler *assembler);

/* Where the source is, as far as the messages tell: a commit at or behind this is still to come,
 * all others were given. */
Position assembler_seen(const Assembler *assembler);
/* Source's clock, microseconds since 1970, of the oldest commit that waits or is open; 0: none. */
int64_t assembler_oldest_us(const Assembler *assembler);
/* The same of the newest commit seen; 0: none yet. */
int64_t assembler_newest_us(const Assembler *assembler);
size_t assembler_streams(
    const Assembler *assembler); /* transactions being streamed, not committed yet */
size_t assembler_prepared(const Assembler *assembler); /* neither committed nor rolled back yet */
/* How much of what is durable on the target the source may forget: nothing behind the PREPARE of a
 * transaction that is still to come, or whose commit isn't durable. With two_phase also nothing
 * that it hasn't sent again yet: there might be such a PREPARE. quiet: everything before was
 * received. */
Position assembler_confirmable(Assembler *assembler, Position durable, Position quiet);

#endif
