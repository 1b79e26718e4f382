/* big.h - the changes of a transaction that lies in a spool, decoded one by one.
 *
 * May be used in another thread than the one that wrote the spool. Has a decoder of its own, which
 * owns the relations that its changes point at.
 */
#ifndef BIG_H
#define BIG_H

#include "engine/model/txn.h"
#include "engine/stream/ids.h"
#include "engine/stream/spool.h"

/* Takes over the sealed spool and the ids. A record's tag is the (sub)transaction it belongs to,
 * which is then also inside the message, or 0. Records of marked ids were rolled back. */
MUST_USE ChangeReader *big_new(Spool *spool, Ids *ids, unsigned protocol);

#endif
