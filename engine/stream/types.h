/* types.h - may values travel in their binary form?
 *
 * A binary array or row names the oids of its parts, so for the types that aren't built in both
 * sides must agree on oid, name and structure, and every published column must have the same type
 * on both sides. A copy of the source has; a database that was loaded from a dump has not, and gets
 * text.
 */
#ifndef TYPES_H
#define TYPES_H

#include "appliers/postgres/pg.h"

/* *same: every type that the publication's columns use, also inside others, is the same on both
 * sides. why: what isn't. */
MUST_USE bool types_compare(Pg *source, Pg *target, const char *publication, bool *same, Buf *why,
                            Err *err);

#endif
