/* move.h - one migration: what all its phases share.
 *
 * The journal is the truth; the rest of this struct is rebuilt from it (and from AWS) by each
 * process. Everything but the streams happens in the main thread. Strings live in the arena;
 * connection strings are secrets.
 */
#ifndef MOVE_H
#define MOVE_H

#include "appliers/postgres/pg.h"
#include "aws/rds.h"
#include "engine/conf/conf.h"
#include "engine/move/audit.h"
#include "engine/move/follow.h"
#include "engine/move/journal.h"
#include "engine/move/switch.h"

typedef struct MoveDb {
    const char *name;
    const char *source_dsn; /* secret */
    const char *target_dsn; /* secret; NULL until the target is there */
    const char *slot;
    uint64_t consistent_point;
    uint64_t start;
} MoveDb;

typedef struct Move {
    const Conf *conf;
    const Stop *stop;
    Arena arena;
    Journal *journal;
    Audit *audit;
    const char *id; /* of this migration: 8 hex digits */
    const char *publication;
    const char *phase; /* that is being run, for intents */

    Aws *aws; /* NULL: two connection strings, no AWS */
    const char *account;
    RdsInstance *source; /* as AWS describes it now; NULL without AWS */
    RdsInstance *target;
    const char *target_name;
    const char *key_arn; /* the new key */

    SwitchEnds ends;
    Switch *mover;                  /* how clients are moved */
    const char *source_maintenance; /* secret: template1 on the source */

    MoveDb *dbs;
    size_t db_count;
    Follow *follow; /* NULL until the stream phase */
} Move;

/* Opens state directory, journal and audit log; a new migration gets its id. `what` identifies what
 * is moved
 * ("instance orders to key …"): a state directory that belongs to something else is refused. */
MUST_USE bool move_open(Move *move, const Conf *conf, const Stop *stop, const char *what, Err *err);
void move_close(Move *move); /* fine on a zeroed one */

/* Facts of this migration; NULL: not there. scope "" or a database. */
MUST_USE bool move_get(Move *move, const char *scope, const char *key, const char **value,
                       Err *err);
MUST_USE bool move_put(Move *move, const char *scope, const char *key, const char *value, Err *err);
MUST_USE bool move_put_lsn(Move *move, const char *scope, const char *key, uint64_t lsn, Err *err);
MUST_USE bool move_put_u64(Move *move, const char *scope, const char *key, uint64_t value,
                           Err *err);
/* 0 when it isn't there. */
MUST_USE bool move_get_lsn(Move *move, const char *scope, const char *key, uint64_t *lsn, Err *err);
MUST_USE bool move_get_u64(Move *move, const char *scope, const char *key, uint64_t *value,
                           Err *err);

/* One change outside: the intent is durable before `act`, the outcome after it. *before: an earlier
 * process intended the same thing (by this fact), so what is found there may be taken for ours. */
typedef bool MoveAct(Move *move, void *self, Err *err);
MUST_USE bool move_act(Move *move, const char *what, MoveAct *act, void *self, Err *err);
/* Marks that something under this scope and key is going to be made; *before tells whether it was
 * marked already. */
MUST_USE bool move_intend(Move *move, const char *scope, const char *key, bool *before, Err *err);

/* Databases from the journal, with their connection strings as far as hosts are known. */
MUST_USE bool move_load_databases(Move *move, Err *err);
MUST_USE bool move_save_databases(Move *move, const char *const *names, size_t count, Err *err);

/* Connections; database NULL: the maintenance one. */
MUST_USE bool move_source(Move *move, const MoveDb *db, Pg *pg, Err *err);
MUST_USE bool move_target(Move *move, const MoveDb *db, Pg *pg, Err *err);

/* Describes the source, finds user and password, builds the source's connection strings. Sets
 * source, account, key_arn on demand. */
MUST_USE bool move_find_source(Move *move, Err *err);
MUST_USE bool move_find_target(Move *move, Err *err);

/* hex of `bytes` random bytes */
const char *move_random(Arena *arena, size_t bytes);

#endif
