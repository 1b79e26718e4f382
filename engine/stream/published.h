/* published.h - what a publication leaves out of the tables that it has. */
#ifndef PUBLISHED_H
#define PUBLISHED_H

#include "appliers/postgres/pg.h"

/* Appends to *out, in words: operations that aren't published, tables of which only some rows
 * (WHERE) or only some columns are. Nothing: it publishes all of them. */
MUST_USE bool published_limits(Pg *source, const char *publication, Buf *out, Err *err);

#endif
