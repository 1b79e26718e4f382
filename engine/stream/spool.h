/* spool.h - records of transactions that don't fit into memory, kept on disk until they are
 * applied.
 *
 * A SpoolDir is one stream's folder and its budget of memory; a Spool is one transaction: its first
 * part stays in memory, the rest goes in zstd-compressed, checksummed segments to a file without a
 * name, so that nothing is left behind however the process ends.
 *
 * SpoolDir and the writing side belong to one thread. spool_seal ends the writing; from then on the
 * Spool may be read and freed in another thread, as long as the SpoolDir lives. A full or
 * unwritable disk is ERR_SYSTEM.
 */
#ifndef SPOOL_H
#define SPOOL_H

#include "engine/base/arena.h"
#include "engine/base/err.h"

typedef struct SpoolDir SpoolDir;
typedef struct Spool Spool;

/* Makes the folder when it is missing and tries to write there. memory: bytes that all spools may
 * hold in memory together before the biggest ones are written out. */
MUST_USE SpoolDir *spool_dir_open(const char *path, size_t memory, Err *err);
void spool_dir_close(SpoolDir *dir);           /* NULL is fine; its spools are freed before */
uint64_t spool_dir_bytes(const SpoolDir *dir); /* on disk now; any thread */

MUST_USE Spool *spool_new(SpoolDir *dir);
void spool_free(Spool *spool); /* NULL is fine; gives the disk space back */

/* tag: the caller's own, given back with the record. */
MUST_USE bool spool_append(Spool *spool, uint32_t tag, Span record, Err *err);
/* No more appends. If any of it is on disk, all of it is afterwards. */
MUST_USE bool spool_seal(Spool *spool, Err *err);
MUST_USE bool spool_rewind(Spool *spool, Err *err);
/* In the order of writing; record->at NULL: end. Borrowed until the next call. */
MUST_USE bool spool_next(Spool *spool, uint32_t *tag, Span *record, Err *err);
uint64_t spool_records(const Spool *spool);

#endif
