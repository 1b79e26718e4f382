/* router.h - decides for every row of a batch which lane writes it, and compacts each lane's part.
 *
 * Routing is a pure function of the batch's content, the number of lanes and the tables as the
 * target describes them (their fingerprint travels with the progress): after a crash between lanes'
 * commits the same batch gives the same parts. Rows that can depend on each other share a lane (see
 * kin.h); so do all rows of a table whose rows depend on each other in ways that can't be seen.
 */
#ifndef ROUTER_H
#define ROUTER_H

#include "engine/stream/compact.h"

/* Finds (or describes) the target table of a relation; the Table stays alive as long as the router.
 */
typedef struct TableSource {
    void *self;
    bool (*table)(void *self, const Relation *rel, Table **table, Err *err);
} TableSource;

typedef enum PlanForm {
    PLAN_PARTS,  /* each lane has its part, compacted */
    PLAN_SERIAL, /* one lane walks through the batch: it has barriers, or a transaction too big for
                    memory */
    PLAN_EXACT,  /* one transaction at a time, row by row: set-wise isn't possible or can't say what
                    is wrong */
} PlanForm;

typedef struct Plan {
    Batch *batch; /* owned */
    Arena arena;
    PlanForm form;
    unsigned lanes;    /* that have a part; 1 unless PLAN_PARTS */
    TableRows **parts; /* one list for each lane */
    uint64_t fingerprint;
    bool deferrable;
    bool together;    /* tables with unique indexes aren't cut: their values moved lately between
                         rows, unseen */
    bool could_split; /* … and that would make a difference */
    bool may_alter;   /* there may be DDL in it */
} Plan;

/* Fewer changes than this go to one lane: a second one would cost more than it brings. */
#define ROUTER_SPREAD_LEAST 500

/* Takes the batch over, whatever happens. NULL: a failure that says nothing about the batch
 * (connection, stop). */
MUST_USE Plan *plan_new(Batch *batch, unsigned lanes, bool together, const TableSource *tables,
                        Err *err);
/* Routes it again with another `together`. */
MUST_USE bool plan_again(Plan *plan, unsigned lanes, bool together, const TableSource *tables,
                         Err *err);
void plan_free(Plan *plan); /* with its batch; NULL is fine */
/* The part of one lane as it would be written row by row: for a batch that other lanes have
 * already. */
MUST_USE bool plan_steps(Plan *plan, unsigned lane, const TableSource *tables, TableRows **steps,
                         Err *err);

/* Compacts runs of changes for one lane, table by table, until flushed. For serial plans. */
typedef struct Gather Gather;
typedef enum GatherResult {
    GATHER_ADDED,
    GATHER_FLUSH_FIRST, /* not added: write and reset what is gathered, then add it again */
    GATHER_EXACT,       /* not added: only the exact replay can do (or name) this one */
    GATHER_FAILED,      /* see err */
} GatherResult;
Gather *gather_new(const TableSource *tables);
void gather_free(Gather *gather);
/* The change must stay alive until gather_reset. Only inserts, updates and deletes. */
MUST_USE GatherResult gather_add(Gather *gather, const Change *change, const Txn *txn, Err *err);
/* What was gathered, NULL for nothing; valid until gather_reset. *confused: exact replay instead.
 */
TableRows *gather_rows(Gather *gather, bool *confused);
void gather_reset(Gather *gather);

#endif
