/* capture.h - makes a PostgreSQL source tell its DDL in its own stream, and takes that away again.
 *
 * Schema keybridge, a function and three event triggers. The function puts what it knows of each
 * command into a transactional logical message: it arrives in its place among the rows, and not at
 * all when the command is rolled back. Needs a superuser or a member of rds_superuser, version 14
 * (before, pgoutput sends no messages), and no rights of whoever runs the DDL.
 */
#ifndef CAPTURE_H
#define CAPTURE_H

#include "appliers/postgres/pg.h"

#define CAPTURE_PREFIX "keybridge.ddl"

/* Makes it where it isn't there (or is another version's). *there false: it can't be, why says it;
 * nothing is left half done. */
MUST_USE bool capture_install(Pg *source, bool *there, Buf *why, Err *err);
/* Also the schema, when nothing else is in it. Fine where there is none. */
MUST_USE bool capture_remove(Pg *pg, Err *err);
MUST_USE bool capture_exists(Pg *pg, bool *exists, Err *err);

#endif
