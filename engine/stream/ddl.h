/* ddl.h - what the source's capture (capture.h) says, and what is to be done about it.
 *
 * A message tells of one command: its tag, its objects, where it was called from, and the client's
 * whole string, in which the command's own text has to be found. It is found or it isn't: nothing
 * is guessed. No connection, no clock. A DdlState is of one source transaction, whose messages it
 * must see in order.
 */
#ifndef DDL_H
#define DDL_H

#include "appliers/applier.h"

typedef struct DdlState DdlState;

DdlState *ddl_state_new(void);
void ddl_state_free(DdlState *state); /* NULL is fine */
void ddl_state_reset(DdlState *state);

bool ddl_is(const Change *change); /* one of capture's messages */

typedef enum DdlVerdict {
    DDL_SKIP, /* nothing to do; note says why, when somebody should know */
    DDL_RUN,
    DDL_STOP, /* note says why it can't be done here */
} DdlVerdict;

typedef struct DdlAction {
    DdlVerdict verdict;
    const char *note;
    const char *what;      /* "CREATE TABLE public.t", for people */
    const char *statement; /* as the source ran it, constants masked when it may hold secrets */
    const char *query;     /* the client's whole string, the same way */
    bool makes_types;      /* whose oids the two sides won't have in common */
    bool renames_schema;   /* sources before 18 go on to send its tables' old names */
    bool makes_table;
    Ddl ddl; /* RUN */
} DdlAction;

/* All of action lives until the state is reset. Fails when the message isn't one. */
MUST_USE bool ddl_read(DdlState *state, Span content, DdlAction *action, Err *err);

#endif
