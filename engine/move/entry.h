/* entry.h - a migration taken up by a command: what it is, what is known of it, where it stands. */
#ifndef ENTRY_H
#define ENTRY_H

#include "engine/move/move.h"

/* For a migration through AWS (--instance, --kms-key). Opens state, AWS client and switch, finds
 * both instances and, when they are known already, the databases. */
MUST_USE bool entry_open(Move *move, const Conf *conf, const Stop *stop, Err *err);
/* For two connection strings without AWS: one database. */
MUST_USE bool entry_open_pair(Move *move, const Conf *conf, const Stop *stop, Err *err);

/* Records a receipt and prints it on stdout (JSON with --json). */
MUST_USE bool entry_receipt(Move *move, Err *err);

#endif
