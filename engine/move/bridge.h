/* bridge.h - the streams of a migration: started, shown. */
#ifndef BRIDGE_H
#define BRIDGE_H

#include "engine/move/move.h"

StreamConf bridge_stream_conf(const Move *move, const MoveDb *db, const char *spool_dir);
/* Sets move->follow; one that is there is stopped first. */
MUST_USE bool bridge_start(Move *move, Err *err);
/* The live line on a terminal; self is a Move. For FollowWait.tick. */
void bridge_show(void *self);

#endif
