/* types.h - may values travel in their binary form, and do they fit?
 *
 * pgoutput sends a whole stream in one form, so one column decides for all. The binary form of an
 * array or row names the oids of its parts: for the types that aren't built in both sides must
 * agree on oid, name, structure and extension version, and every published column must have the
 * same type on both sides. A copy of the source has; a database that was loaded from a dump has
 * not, and gets text. docs/values.md lists the types whose binary form isn't faithful at all.
 */
#ifndef TYPES_H
#define TYPES_H

#include "appliers/postgres/pg.h"

/* *same: every type that the publication's columns use, also inside others, has the same binary
 * form on both sides. why: what hasn't. */
MUST_USE bool types_compare(Pg *source, Pg *target, const char *publication, bool *same, Buf *why,
                            Err *err);

/* Domains, composites and ranges of the same name are put together from the same parts on both
 * sides, else ERR_FAITHFUL: a domain over numeric(20,2) would round what one over numeric(20,6)
 * sends. */
MUST_USE bool types_fit(Pg *source, Pg *target, const char *publication, Err *err);

#endif
