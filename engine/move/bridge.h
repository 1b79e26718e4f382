/* bridge.h - the streams of a migration: started, shown. */
#ifndef BRIDGE_H
#define BRIDGE_H

#include "engine/move/move.h"

/* Where the streams keep what is too big for memory and their relay logs; of one database. */
const char *bridge_spool_base(Move *move);
const char *bridge_spool_dir(Move *move, const MoveDb *db);
StreamConf bridge_stream_conf(const Move *move, const MoveDb *db, const char *spool_dir);
/* Sets move->follow; one that is there is stopped first. */
MUST_USE bool bridge_start(Move *move, Err *err);
/* The live line on a terminal; self is a Move. For FollowWait.tick. */
void bridge_show(void *self);

#endif
