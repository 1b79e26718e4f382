/* applier_pg.h - writes to PostgreSQL. */
#ifndef APPLIER_PG_H
#define APPLIER_PG_H

#include "appliers/applier.h"

/* Connects; a lane's session has session_replication_role = replica, and plans that always use the
 * key's index. */
MUST_USE Applier *pg_applier_open(const ApplierConf *conf, Err *err);

#endif
